"""Requests in which every place that can hold text holds a canary of its own, built from the protobuf descriptors."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from collector.model import Signal
from tests.support import REQUEST, any_value, attributes

SERVICE = "canary-shop"
IDS = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
"""Fixed-size ids, which hold no text."""
HOLDS_TEXT = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE}
Canary = Callable[[str], str]


def leaves(message: Descriptor, path: str = "") -> Iterator[str]:
    """Paths of all fields below a message that hold text: strings, bytes that are no ids, any-values and attributes."""
    for field in message.fields:
        here = f"{path}.{field.name}" if path else field.name
        if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.name not in ("AnyValue", "KeyValue"):
            yield from leaves(field.message_type, here)
        elif field.type in HOLDS_TEXT and field.name not in IDS:
            yield here


def planted(signal: Signal, canary: Canary, seed: int = 1) -> Any:
    """A request with one canary in each leaf; metrics come once for each kind of data."""
    request, rnd = REQUEST[signal](), random.Random(seed)
    (group,) = request.DESCRIPTOR.fields
    for choice in _choices(group.message_type):
        _fill(getattr(request, group.name).add(), canary, rnd, group.name, choice)
    for each in getattr(request, group.name):
        each.resource.attributes.extend(attributes({"service.name": SERVICE}))
    return request


def _choices(group: Descriptor) -> list[str | None]:
    """The kinds of data a metric can have; [None] for other signals."""
    scope = group.fields_by_name.get("scope_metrics")
    if scope is None:
        return [None]
    metric = scope.message_type.fields_by_name["metrics"].message_type
    return [field.name for field in metric.oneofs_by_name["data"].fields]


def _fill(message: Message, canary: Canary, rnd: random.Random, path: str, choice: str | None) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is not None and field.containing_oneof.name == "data" and field.name != choice:
            continue
        _set(message, field, canary, rnd, f"{path}.{field.name}", choice)
    _make_plausible(message)


def _set(message: Message, field: FieldDescriptor, canary: Canary, rnd: random.Random, path: str, choice: str | None) -> None:
    value = getattr(message, field.name)
    repeated = hasattr(value, "append")
    if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type.name == "KeyValue":
        value.extend(attributes(_shapes(canary, path)))
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        target = value.add() if repeated else value
        if field.message_type.name == "AnyValue":
            target.CopyFrom(any_value(_shapes(canary, path)))
        else:
            target.SetInParent()
            _fill(target, canary, rnd, path, choice)
    elif field.name in IDS:
        setattr(message, field.name, rnd.randbytes(IDS[field.name]))
    elif field.type == FieldDescriptor.TYPE_STRING:
        text = canary(path)
        if field.name == "trace_state":
            text = f"vendor={text}"
        elif field.name == "name" and choice:
            text = f"{choice} of {text}"  # else all metrics have the same name once the canary is gone
        value.append(text) if repeated else setattr(message, field.name, text)


def _shapes(canary: Canary, path: str) -> dict[str, object]:
    """A canary in each shape that a value can have, and one in a key."""

    def seen(shape: str) -> str:
        return f"seen {canary(f'{path} {shape}')} here"

    return {
        "note.text": seen("text"),
        "note.list": [seen("list"), {"inner": seen("list of maps")}],
        "note.map": {"inner": seen("map"), canary(f"{path} map key"): 1},
        "note.bytes": seen("bytes").encode(),
        "note.json": json.dumps({"role": "user", "parts": [seen("JSON")], "again": json.dumps({"deep": seen("JSON in JSON")})}),
        f"by.{canary(f'{path} key')}.count": 1,
    }


def _make_plausible(message: Message) -> None:
    """Numbers that receivers and backends expect: times, values, buckets, temporality."""
    now, name = time.time_ns(), message.DESCRIPTOR.name
    for key in ("time_unix_nano", "start_time_unix_nano", "end_time_unix_nano", "observed_time_unix_nano"):
        if key in message.DESCRIPTOR.fields_by_name:
            setattr(message, key, now)
    made: dict[str, dict[str, Any]] = {
        "Sum": {"aggregation_temporality": 2, "is_monotonic": True},
        "Histogram": {"aggregation_temporality": 2},
        "ExponentialHistogram": {"aggregation_temporality": 2},
        "NumberDataPoint": {"as_double": 1.0},
        "HistogramDataPoint": {"count": 1, "sum": 1.0},
        "ExponentialHistogramDataPoint": {"count": 1, "sum": 1.0, "scale": 2},
        "SummaryDataPoint": {"count": 1, "sum": 1.0},
        "Exemplar": {"as_double": 1.0},
    }
    for key, value in made.get(name, {}).items():
        setattr(message, key, value)
    if name == "HistogramDataPoint":
        message.explicit_bounds[:], message.bucket_counts[:] = [2.0], [1, 0]  # type: ignore[attr-defined]
    if name == "ExponentialHistogramDataPoint":
        message.positive.bucket_counts[:] = [1]  # type: ignore[attr-defined]
