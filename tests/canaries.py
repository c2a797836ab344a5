"""Requests with one unique piece of personal data in every place where text can hide, generated from the protobuf descriptors.

`planted(signal)` gives a valid export request (one resource group per place) and what was planted where. Search every sink for
the needles of ALL_CANARIES: none may appear behind the redaction processor. Spans carry status ERROR, so that sampling keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from collector.model import Signal
from tests.support import REQUEST, any_value

ROOTS: dict[Signal, Any] = {Signal.TRACES: ResourceSpans, Signal.LOGS: ResourceLogs, Signal.METRICS: ResourceMetrics}
IDS = ("trace_id", "span_id", "parent_span_id")
TIME = 1_790_000_000_000_000_000
Path = tuple[FieldDescriptor, ...]


@dataclass(frozen=True)
class Canary:
    """What was planted: `path` of the field, `shape` of the value, `needle` that must not be found afterwards."""

    path: str
    shape: str
    needle: str


@dataclass(frozen=True)
class Planted:
    """One export request and its canaries; group n of the request holds canary n alone."""

    request: Any
    canaries: tuple[Canary, ...]


def leaf_paths(descriptor: Descriptor, path: Path = ()) -> Iterator[Path]:
    """All fields below that hold text: strings, bytes that are no ids, AnyValue and KeyValue."""
    for field in descriptor.fields:
        here = (*path, field)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if field.message_type.name in ("AnyValue", "KeyValue"):
                yield here
            else:
                yield from leaf_paths(field.message_type, here)
        elif field.type == FieldDescriptor.TYPE_STRING or (field.type == FieldDescriptor.TYPE_BYTES and field.name not in IDS):
            yield here


def email_of(needle: str) -> str:
    """An address that holds the needle."""
    return f"{needle}@leak.example"


def card_of(number: int) -> str:
    """A valid Visa number, unique for each `number`."""
    digits = f"400047{number:09d}"
    odd = sum(int(d) for d in digits[-2::-2])
    even = sum(sum(divmod(2 * int(d), 10)) for d in digits[-1::-2])
    return f"{digits}{-(odd + even) % 10}"


_SHAPES = """
    string array kvlist kvlist_key nested json json_in_json invalid_json bytes binary percent escaped_at escaped_slash
    key_name json_key_name secret url int double card_grouped
"""
SHAPES = tuple(_SHAPES.split())
NUMERIC = ("int", "double", "card_grouped")


def value_of(shape: str, needle: str) -> AnyValue:
    """An AnyValue that hides the needle in one of SHAPES."""
    mail = email_of(needle)
    inner = json.dumps({"role": "user", "content": f"write to\n{mail}"})
    made: dict[str, Any] = {
        "string": lambda: f"Reach me at {mail}, please",
        "array": lambda: ["first", mail],
        "kvlist": lambda: {"to": mail},
        "kvlist_key": lambda: {mail: 1},
        "nested": lambda: [{"a": [{"b": [mail]}]}],
        "json": lambda: inner,
        "json_in_json": lambda: json.dumps([{"arguments": inner}]),
        "bytes": lambda: mail.encode(),
        "binary": lambda: b"\xff\xfe\x00 " + mail.encode(),
        "percent": lambda: f"/reset?to={needle}%40leak.example&x=1",
        "escaped_at": lambda: f'{{"to": "{needle}\\u0040leak.example"}}',
        "escaped_slash": lambda: f"https:\\/\\/user:{needle}pw@db.internal\\/x",
        "key_name": lambda: {"db.password": {"any": [f"{needle} free text"]}},
        "json_key_name": lambda: json.dumps({"a": {"api_key": f"{needle} free text"}}),
        "secret": lambda: f"sk-proj-{needle}0123456789abcdefghij",
        "url": lambda: f"postgres://app:{needle}@db.internal/x",
        "int": lambda: int(needle),
        "double": lambda: float(needle),
        "card_grouped": lambda: " ".join(needle[i : i + 4] for i in range(0, 16, 4)),
        "invalid_json": lambda: inner[: inner.index("leak.example") + len("leak.example")],
    }
    return any_value(made[shape]())


def shapes_of(path: Path) -> tuple[str, ...]:
    """The shapes that fit the field at the end of a path."""
    field = path[-1]
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return (*SHAPES, "attribute_key") if field.message_type.name == "KeyValue" else SHAPES
    return ("value", "member_key") if field.name == "trace_state" else ("value",)


@cache
def planted(signal: Signal) -> Planted:
    """Every path of the signal times every shape that fits."""
    request = REQUEST[signal]()
    groups = getattr(request, request.DESCRIPTOR.fields[0].name)
    found, number = [], list(Signal).index(signal) * 100_000
    for path in leaf_paths(ROOTS[signal].DESCRIPTOR):
        for shape in shapes_of(path):
            number += 1
            needle = card_of(number) if shape in NUMERIC else f"canary{number:06d}q"
            group = groups.add()
            _plant(group, path, shape, needle)
            _complete(signal, group, number)
            found.append(Canary(".".join(f.name for f in path), shape, needle))
    return Planted(request, tuple(found))


def _plant(message: Any, path: Path, shape: str, needle: str) -> None:
    for field in path[:-1]:
        child = getattr(message, field.name)
        if field.is_repeated:
            message = child.add()
        else:
            child.SetInParent()
            message = child
    last = path[-1]
    if last.type == FieldDescriptor.TYPE_MESSAGE:
        target = getattr(message, last.name)
        if last.message_type.name == "AnyValue":
            target.CopyFrom(value_of(shape, needle))
        elif shape == "attribute_key":
            target.append(KeyValue(key=f"user.{email_of(needle)}.seen", value=AnyValue(bool_value=True)))
        else:
            target.append(KeyValue(key="place", value=value_of(shape, needle)))
        return
    text = {"member_key": f"{email_of(needle)}=1"}.get(shape, email_of(needle))
    if last.name == "trace_state" and shape == "value":
        text = f"vendor={text}"
    content: Any = text.encode() if last.type == FieldDescriptor.TYPE_BYTES else text
    if last.is_repeated:
        getattr(message, last.name).append(content)
    else:
        setattr(message, last.name, content)


def _complete(signal: Signal, group: Any, number: int) -> None:
    group.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="canaries")))
    scopes = getattr(group, group.DESCRIPTOR.fields_by_number[2].name)
    scope = scopes[0] if scopes else scopes.add()
    items = getattr(scope, scope.DESCRIPTOR.fields_by_number[2].name)
    item = items[0] if items else items.add()
    {Signal.TRACES: _complete_span, Signal.LOGS: _complete_log, Signal.METRICS: _complete_metric}[signal](item, number)


def _complete_span(span: Span, number: int) -> None:
    span.trace_id, span.span_id = (number + 1).to_bytes(16, "big"), (number + 1).to_bytes(8, "big")
    span.name = span.name or f"op {number % 7}"
    span.start_time_unix_nano, span.end_time_unix_nano = TIME, TIME + 1_000_000
    span.status.code = 2  # type: ignore[assignment]
    for link in span.links:
        link.trace_id, link.span_id = b"\1" * 16, b"\1" * 8
    for event in span.events:
        event.time_unix_nano = TIME


def _complete_log(record: LogRecord, number: int) -> None:
    record.time_unix_nano = record.observed_time_unix_nano = TIME
    if not record.HasField("body"):
        record.body.string_value = f"line {number % 7}"


def _complete_metric(metric: Metric, number: int) -> None:
    metric.name = metric.name or f"place_{number}"
    kind = metric.WhichOneof("data")
    if kind is None:
        metric.gauge.data_points.add(as_double=1)
        kind = "gauge"
    data = getattr(metric, kind)
    for point in data.data_points:
        point.time_unix_nano = TIME
    if "aggregation_temporality" in data.DESCRIPTOR.fields_by_name:
        data.aggregation_temporality = 2


ALL_CANARIES: tuple[str, ...] = tuple(canary.needle for signal in Signal for canary in planted(signal).canaries)
"""Every needle of all three signals."""
