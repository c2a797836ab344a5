"""The full schema of items and headers, and a twin that reads text as bytes for items with invalid UTF-8."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics, ScopeMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from collector.model import Signal

ITEMS: dict[Signal, Any] = {Signal.TRACES: Span, Signal.LOGS: LogRecord, Signal.METRICS: Metric}
SCOPES: dict[Signal, Any] = {Signal.TRACES: ScopeSpans, Signal.LOGS: ScopeLogs, Signal.METRICS: ScopeMetrics}
GROUPS: dict[Signal, Any] = {Signal.TRACES: ResourceSpans, Signal.LOGS: ResourceLogs, Signal.METRICS: ResourceMetrics}


def decode(kind: Any, data: bytes) -> Message:
    """The message in `data`; invalid UTF-8 becomes U+FFFD. Raises DecodeError when it is no such message at all."""
    try:
        message: Message = kind.FromString(data)
    except DecodeError:
        twin = _twin(kind.DESCRIPTOR.full_name).FromString(data)
        _repair(twin)
        message = kind.FromString(twin.SerializeToString())
    return message


@cache
def _twin_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    done: set[str] = set()

    def add(file: Any) -> None:
        if file.name in done:
            return
        done.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        copy = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(copy)
        for message in copy.message_type:
            _as_bytes(message)
        pool.Add(copy)

    for kind in (*GROUPS.values(),):
        add(kind.DESCRIPTOR.file)
    return pool


def _as_bytes(message: Any) -> None:
    for field in message.field:
        if field.type == FieldDescriptor.TYPE_STRING:
            field.type = FieldDescriptor.TYPE_BYTES
    for nested in message.nested_type:
        _as_bytes(nested)


@cache
def _twin(name: str) -> Any:
    return message_factory.GetMessageClass(_twin_pool().FindMessageTypeByName(name))


@cache
def _text_fields(name: str) -> frozenset[int]:
    twin = descriptor_pool.Default().FindMessageTypeByName(name)
    return frozenset(field.number for field in twin.fields if field.type == FieldDescriptor.TYPE_STRING)


def _repair(message: Message) -> None:
    text = _text_fields(message.DESCRIPTOR.full_name)
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if field.is_repeated else (value,):
                _repair(each)
        elif field.number in text:
            if field.is_repeated:
                value[:] = [_valid(each) for each in value]
            else:
                setattr(message, field.name, _valid(value))


def _valid(value: bytes) -> bytes:
    return value.decode("utf-8", "replace").encode()
