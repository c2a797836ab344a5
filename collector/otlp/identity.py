"""Every resource has a service name, so that no backend has to make one up."""

from __future__ import annotations

import re
from functools import lru_cache

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from collector.model import Batch, Group

UNKNOWN = "unknown_service"
"""What a service without a name is called (OpenTelemetry resource conventions, service.name)."""
_NAMED = re.compile(rb"\n\x0cservice\.name\x12[\x00-\x7f]\n[\x01-\xff]")
"""As every encoder writes it: key, then a text that is not empty."""
_LONGEST = 4096  # bytes of a header that is remembered


def with_service(batch: Batch) -> tuple[Batch, int]:
    """The batch with a service.name on every resource, and how many of its items (spans, data points, records) had none."""
    if all(_NAMED.search(group.header) for group in batch.groups):
        return batch, 0
    headers = [(_known if len(group.header) <= _LONGEST else _named)(group.header) for group in batch.groups]
    unnamed = [group for group, header in zip(batch.groups, headers, strict=True) if header != group.header]
    if not unnamed:
        return batch, 0
    groups = [Group(header, group.scopes) for group, header in zip(batch.groups, headers, strict=True)]
    return Batch(batch.signal, groups, None, batch.metadata), Batch(batch.signal, unnamed).count()


def _named(header: bytes) -> bytes:
    """The encoded group header (of any signal: the field numbers agree) with a service name."""
    group = ResourceSpans.FromString(header)
    values = [entry.value for entry in group.resource.attributes if entry.key == "service.name"]
    if any(value.WhichOneof("value") != "string_value" or value.string_value for value in values):
        return header
    value = values[0] if values else group.resource.attributes.add(key="service.name").value
    value.string_value = UNKNOWN
    return group.SerializeToString()


_known = lru_cache(256)(_named)
