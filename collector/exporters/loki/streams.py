"""Lines -> the body of Loki's push API: few stream labels with few values, the rest as structured metadata.

Loki: https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs. Labels by R-605, the cap by R-504.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.exporters.loki.lines import LEVELS, Line, as_text, plain, read

OVERFLOW = "__overflow__"
_MOST_VALUES = 98
_LONGEST_LABEL = 512  # Loki refuses the whole request for a label value over 2048 bytes
_MOST_METADATA, _METADATA_BYTES = 64, 16 << 10  # Loki refuses a line with more than 128 entries or 64 KiB
_RESERVED = frozenset(("service", "environment", "level", "agent_type", "request_id", "user_id", "trace_id", "span_id"))
_LAST = 2**63 - 1  # Loki refuses the whole request for a time beyond it
_SERVICE = "service.name"
_ENVIRONMENT = ("deployment.environment.name", "deployment.environment")


class Caps:
    """At most 98 values for a label, later ones become `__overflow__`; `overflowed(label)` is told each time."""

    def __init__(self, overflowed: Callable[[str], None]) -> None:
        self._seen: dict[str, set[str]] = {}
        self._overflowed = overflowed
        self._lock = threading.Lock()

    def value(self, label: str, value: str) -> str:
        """The value itself, cut to what Loki takes, or `__overflow__`."""
        value = value.encode()[:_LONGEST_LABEL].decode("utf-8", "ignore")
        with self._lock:  # large requests are read in threads
            seen = self._seen.setdefault(label, set())
            if value not in seen and len(seen) >= _MOST_VALUES:
                self._overflowed(label)
                return OVERFLOW
            seen.add(value)
        return value


class Threshold:
    """The least level of a logger: the entry of its longest dotted prefix, `""` for all others."""

    def __init__(self, levels: dict[str, str]) -> None:
        self._levels = {name: LEVELS.index(level) for name, level in levels.items()}
        self._of = lru_cache(4096)(self._find)

    def _find(self, logger: str) -> int:
        name = logger
        while name:
            if name in self._levels:
                return self._levels[name]
            name = name.rpartition(".")[0]
        return self._levels.get("", 0)

    def keeps(self, line: Line) -> bool:
        """False when the line's level is lower than its logger's least level."""
        return not self._levels or LEVELS.index(line.level) >= self._of(line.logger)


class Streams:
    """Collects lines by stream. `resource` is called before the lines of each resource."""

    def __init__(self, caps: Caps, *, agent_type: bool, metadata: bool, level: bool, old: frozenset[str], longest: int) -> None:
        self._caps, self._agent_type, self._metadata, self._level = caps, agent_type, metadata, level
        self._old, self._longest = old, longest
        self._streams: dict[tuple[tuple[str, str], ...], list[list[Any]]] = {}
        self._labels: dict[str, str] = {}
        self._shared: dict[str, str] = {}
        self._rest: dict[str, Any] = {}

    def resource(self, resource: Any, scope: Any) -> None:
        """Read what all lines of one resource and scope share."""
        values = {entry.key: plain(entry.value) for entry in resource.attributes}
        labels = {"service": as_text(values.get(_SERVICE) or "unknown_service")}
        environment = next((values[key] for key in _ENVIRONMENT if values.get(key)), None)
        if environment is not None:
            labels["environment"] = as_text(environment)
        labels |= self._old_labels(values)
        self._labels = {name: self._caps.value(name, value) for name, value in labels.items()}
        others = {key: value for key, value in values.items() if key not in (_SERVICE, *_ENVIRONMENT) and value is not None}
        others |= {f"scope.{entry.key}": plain(entry.value) for entry in scope.attributes}
        if scope.version:
            others["scope.version"] = scope.version
        self._shared, self._rest = shared_metadata(others) if self._metadata else ({}, others)

    def _old_labels(self, values: dict[str, Any]) -> dict[str, str]:
        name, namespace = as_text(values.get(_SERVICE) or ""), as_text(values.get("service.namespace") or "")
        job = f"{namespace}/{name}" if namespace else name
        labels = {"exporter": "OTLP", "job": job, "instance": as_text(values.get("service.instance.id") or "")}
        return {key: value for key, value in labels.items() if key in self._old and value}

    def add(self, line: Line) -> None:
        """Put one line of the present resource into its stream."""
        labels = dict(self._labels)
        if self._level:
            labels["level"] = line.level.lower()
        if self._agent_type and line.agent_type:
            labels["agent_type"] = self._caps.value("agent_type", line.agent_type)
        if self._rest:
            line.fields.setdefault("resource", self._rest)
        if not self._metadata:
            line.fields = line.ids | line.fields
        entry: list[Any] = [str(min(line.time, _LAST)), line.text(self._longest)]
        if self._metadata and (self._shared or line.ids):
            entry.append(self._shared | line.ids)
        self._streams.setdefault(tuple(labels.items()), []).append(entry)

    def body(self) -> bytes:
        """The request body; empty when there is no line."""
        if not self._streams:
            return b""
        return orjson.dumps(
            {"streams": [{"stream": dict(labels), "values": entries} for labels, entries in self._streams.items()]}
        )


def shared_metadata(values: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Structured metadata of a resource, and what Loki's limits leave for the line."""
    out: dict[str, str] = {}
    rest: dict[str, Any] = {}
    room = _METADATA_BYTES
    for key, value in values.items():
        name, text = label_name(key), as_text(value)
        room_after = room - len(name) - len(text.encode())
        if len(out) >= _MOST_METADATA or room_after < 0 or name in out:
            rest[key] = value
        else:
            out[name] = text
            room = room_after
    return out, rest


@lru_cache(4096)
def label_name(key: str) -> str:
    """An attribute key as LogQL can name it; never one of our own names."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", key)
    return f"resource_{name}" if name in _RESERVED or not name or name[0].isdigit() else name


def collect(data: bytes, streams: Streams, threshold: Threshold, now: int) -> int:
    """Put all records of an export request into `streams`; returns how many were below their logger's least level."""
    below = 0
    for group in ExportLogsServiceRequest.FromString(data).resource_logs:
        for scope in group.scope_logs:
            streams.resource(group.resource, scope.scope)
            for record in scope.log_records:
                line = read(record, scope.scope.name, now)
                if threshold.keeps(line):
                    streams.add(line)
                else:
                    below += 1
    return below
