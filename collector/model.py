"""Thin views over OTLP bytes: what flows through a pipeline. There is no second data model.

A request is opened into groups (one resource each) and scopes; a span, log record or metric stays one `bytes` object until
something must see inside. The same field numbers serve all three signals (opentelemetry-proto: ResourceSpans, ResourceLogs and
ResourceMetrics agree on resource=1, scope items=2, schema_url=3), so one slim schema opens them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from collector.compiled import compiled_module

_BYTES, _MESSAGE, _REPEATED, _OPTIONAL = 12, 11, 3, 1


def slim_schema(package: str, messages: Mapping[str, Iterable[tuple[str, int, int | str, bool]]]) -> Mapping[str, Any]:
    """Message classes that read only the named fields; everything else survives as unknown fields.

    `messages`: name -> (field, number, protobuf type number or message name, repeated). In a pool of its own, so that it
    never meets the full schema.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            entry = message.field.add(name=field_name, number=number)
            entry.label = _REPEATED if repeated else _OPTIONAL  # type: ignore[assignment]
            if isinstance(kind, str):
                entry.type = _MESSAGE  # type: ignore[assignment]
                entry.type_name = f".{package}.{kind}"
            else:
                entry.type = kind  # type: ignore[assignment]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in messages}


_schema = slim_schema(
    "collector.envelope",
    {
        # resource and scope are repeated, because a message that comes in two parts must be merged, not half forgotten
        "Envelope": [("groups", 1, "Group", True)],
        "Group": [("resource", 1, _BYTES, True), ("scopes", 2, "Scope", True), ("schema_url", 3, _BYTES, False)],
        "Scope": [("scope", 1, _BYTES, True), ("items", 2, _BYTES, True), ("schema_url", 3, _BYTES, False)],
        "Opaque": [],  # a message, not bytes: a resource that stands twice in a request is merged, as protobuf wants it
        "Metric": [(kind, number, "Data", False) for kind, number in
                   (("gauge", 5), ("sum", 7), ("histogram", 9), ("exponential_histogram", 10), ("summary", 11))],
        "Data": [("points", 1, _BYTES, True)],
    },
)  # fmt: skip
Envelope, _Group, _Scope, _Metric = (_schema[n] for n in ("Envelope", "Group", "Scope", "Metric"))
_compiled = compiled_module("_model")


class Signal(StrEnum):
    """Traces, metrics or logs; `noun` is otelcol's word for one counted item."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"

    @property
    def noun(self) -> str:
        """`spans`, `metric_points` or `log_records`: the suffix of otelcol's counters."""
        return {"traces": "spans", "metrics": "metric_points", "logs": "log_records"}[self.value]


@dataclass(slots=True)
class Scope:
    """One instrumentation scope: `header` is its encoded message without items, `items` the encoded items.

    `ScopeSpans.FromString(header)` (or ScopeLogs, ScopeMetrics) reads scope and schema_url. `heads`, where the opener made
    them, runs parallel to `items` (spans: trace_id, span_id, parent_span_id, times, status); to drop items use `keep`, or
    build a Scope without heads and points.
    """

    header: bytes
    items: list[bytes]
    heads: list[Any] | None = None
    trace_ids: list[bytes] | None = None
    """The heads' trace ids, where somebody has read them: reading one from a head makes a new object."""
    points: list[int] | None = None
    """The data points of each metric, where the opener counted them."""

    def keep(self, positions: Iterable[int]) -> Scope:
        """The same scope with only the items at `positions`, in that order."""
        positions = list(positions)
        heads, ids, points = self.heads, self.trace_ids, self.points
        return Scope(
            self.header,
            [self.items[i] for i in positions],
            heads and [heads[i] for i in positions],
            ids and [ids[i] for i in positions],
            points and [points[i] for i in positions],
        )


@dataclass(slots=True)
class Group:
    """All scopes of one resource; `header` is the encoded ResourceSpans/Logs/Metrics without scopes."""

    header: bytes
    scopes: list[Scope]


@dataclass(slots=True)
class Batch:
    """Items of one signal on their way through a pipeline, owned by that pipeline.

    `raw` holds the request's bytes as long as nothing was changed: an untouched request leaves byte-identical. Whoever
    changes groups, scopes or items returns a new Batch without `raw` (see `replace`). `metadata`: request headers, lower
    case, only where the receiver has `include_metadata`.
    """

    signal: Signal
    groups: list[Group]
    raw: bytes | None = None
    metadata: Mapping[str, tuple[str, ...]] | None = None

    def scopes(self) -> Iterator[Scope]:
        """All scopes of all groups, in order."""
        for group in self.groups:
            yield from group.scopes

    def items(self) -> list[bytes]:
        """All items of all scopes, in order: position n here is position n of any scan."""
        return [item for scope in self.scopes() for item in scope.items]

    def count(self) -> int:
        """Spans, log records or metric data points, as otelcol counts them."""
        if self.signal is Signal.METRICS:
            return sum(sum(map(data_points, s.items) if s.points is None else s.points) for s in self.scopes())
        total = 0
        for group in self.groups:
            for scope in group.scopes:
                total += len(scope.items)
        return total

    def replace(self, groups: list[Group]) -> Batch:
        """The same request with other content; groups and scopes without items are left out (OTLP: no empty envelopes)."""
        kept = [Group(g.header, scopes) for g in groups if (scopes := [s for s in g.scopes if s.items])]
        return Batch(self.signal, kept, None, self.metadata)

    def encode(self) -> bytes:
        """One encoded ExportTraceServiceRequest / ExportLogsServiceRequest / ExportMetricsServiceRequest."""
        if self.raw is not None:
            return self.raw
        data: bytes | None = _compiled.encode(self.groups) if _compiled is not None else None
        return self._encoded() if data is None else data

    def _encoded(self) -> bytes:
        """The same by protobuf, which also puts what is out of order in its order."""
        envelope = Envelope()
        for group in self.groups:
            target = envelope.groups.add()
            target.MergeFromString(group.header)
            for scope in group.scopes:
                inner = target.scopes.add()
                inner.MergeFromString(scope.header)
                inner.items.extend(scope.items)
        data: bytes = envelope.SerializeToString()
        return data


def open_envelope(signal: Signal, body: bytes) -> Batch:
    """The batch in `body`, without decoding any item. Raises protobuf's DecodeError."""
    groups = []
    for group in Envelope.FromString(body).groups:
        scopes = []
        for scope in group.scopes:
            items = list(scope.items)
            del scope.items[:]
            scopes.append(Scope(scope.SerializeToString(), items))
        del group.scopes[:]
        groups.append(Group(group.SerializeToString(), scopes))
    return Batch(signal, groups, body)


def data_points(metric: bytes) -> int:
    """How many data points one encoded Metric holds."""
    view = _Metric.FromString(metric)
    return sum(len(getattr(view, kind.name).points) for kind, _ in view.ListFields())


@dataclass(frozen=True, slots=True)
class Payload:
    """What an exporter sends: one encoded export request, shared by all destinations and never changed.

    `items` as otelcol counts them; `born` is the monotonic time of acceptance.
    """

    signal: Signal
    data: bytes
    items: int
    born: float = 0.0
    metadata: Mapping[str, tuple[str, ...]] | None = field(default=None, compare=False)
