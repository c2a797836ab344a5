"""One log record -> one Loki line (a JSON object) with its level, logger and correlation ids. Pure: no clock, no sockets.

Field names are those of requirements R-602 to R-606; whatever an application sent stays under its own name.
A little longer than most files: one field after the other of one line.
"""

from __future__ import annotations

import base64
import contextlib
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import orjson

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SEVERITY = ("", *(level for level, width in zip(LEVELS, (8, 4, 4, 4, 4), strict=True) for _ in range(width)))
_NAMES = {
    "trace": "DEBUG", "verbose": "DEBUG", "debug": "DEBUG", "info": "INFO", "information": "INFO", "notice": "INFO",
    "success": "INFO", "warn": "WARNING", "warning": "WARNING", "err": "ERROR", "error": "ERROR", "exception": "ERROR",
    "critical": "CRITICAL", "fatal": "CRITICAL", "alert": "CRITICAL", "emergency": "CRITICAL", "panic": "CRITICAL",
}  # fmt: skip
_REQUEST_ID = (
    "request_id",
    "http.request.header.x-request-id",
    "http.request.header.x_request_id",
    "X-Request-ID",
    "x-request-id",
)
_USER_ID = ("user_id", "enduser.id", "user.id", "http.request.header.x-user-id", "X-User-ID", "x-user-id")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXCEPTION = re.compile(r"([A-Za-z_][\w.]{0,200})(?::\s(.*))?$")
_SCALARS = frozenset(("string_value", "int_value", "bool_value"))
_LONGEST_ID = 512
_DEEP = 64 << 10


@dataclass(slots=True)
class Line:
    """`fields` becomes the line's JSON; `ids` its structured metadata; `time` is in nanoseconds."""

    time: int
    level: str
    logger: str
    agent_type: str
    fields: dict[str, Any]
    ids: dict[str, str]

    def text(self, longest: int = 0) -> str:
        """The JSON object; with `longest` (bytes) its longest texts are cut until it fits, marked by `truncated`."""
        data = self._json()
        while longest and len(data) > longest:
            texts = {key: len(value) for key, value in self.fields.items() if isinstance(value, str) and len(value) > 256}
            if not texts:
                self.fields = {"message": data[: longest // 2].decode("utf-8", "ignore"), "level": self.level, "truncated": True}
                return self._json()[:longest].decode("utf-8", "ignore")
            key = max(texts, key=texts.__getitem__)
            self.fields[key] = self.fields[key][: min(texts[key] // 2, max(256, texts[key] - (len(data) - longest)))]
            self.fields["truncated"] = True
            data = self._json()
        return data.decode()

    def _json(self) -> bytes:
        try:
            return orjson.dumps(self.fields, option=orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError:  # nested deeper than orjson writes
            shallow = {key: value for key, value in self.fields.items() if not isinstance(value, dict | list)}
            deep = {key: repr(value)[:_DEEP] for key, value in self.fields.items() if key not in shallow}
            return orjson.dumps(shallow | deep)


def plain(value: Any) -> Any:
    """The JSON-ready Python value of an AnyValue (bytes as base64, NaN and infinities as text)."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    inner = getattr(value, kind)
    if kind in _SCALARS:
        return inner
    if kind == "array_value":
        return [plain(entry) for entry in inner.values]
    if kind == "kvlist_value":
        return {entry.key: plain(entry.value) for entry in inner.values}
    if kind == "bytes_value":
        return base64.b64encode(inner).decode()
    if math.isfinite(inner):
        return inner
    return "NaN" if math.isnan(inner) else "Infinity" if inner > 0 else "-Infinity"


def as_text(value: Any) -> str:
    """A value as a label or metadata text: strings as they are, others as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def read(record: Any, scope: str, now: int) -> Line:
    """The line of a LogRecord; `scope` is its scope's name, the logger when the record names none.

    Its time is the event's, else the observed one, else `now` (nanoseconds).
    """
    fields = _body(record.body)
    for entry in record.attributes:
        _put(fields, entry.key, plain(entry.value))
    if record.event_name:
        fields.setdefault("event_name", record.event_name)
    if record.dropped_attributes_count:
        fields.setdefault("dropped_attributes_count", record.dropped_attributes_count)
    _errors(fields)
    _source(fields)
    level = _level(record.severity_number, record.severity_text, fields)
    logger = as_text(fields.get("logger") or _name(fields) or scope)
    time = record.time_unix_nano or record.observed_time_unix_nano or now
    ids = _ids(record, fields)
    for key in ("request_id", "user_id"):
        if key in ids:
            fields.setdefault(key, ids[key])
    first = {"timestamp": _iso(time), "level": level, "logger": logger, "message": fields.get("message", "")}
    agent_type = as_text(fields.get("agent_type") or "")
    return Line(time, level, logger, agent_type, {**first, **fields}, ids)


def _body(body: Any) -> dict[str, Any]:
    content = plain(body)
    if isinstance(content, str) and content.lstrip()[:1] == "{":
        with contextlib.suppress(orjson.JSONDecodeError):
            content = orjson.loads(content)
    if not isinstance(content, dict):
        return {} if content is None else {"message": content}
    value: dict[str, Any] = content
    if isinstance(value.get("record"), dict) and "message" in value["record"]:
        value = _loguru(value)
    for key in ("event", "msg"):
        if "message" not in value and isinstance(value.get(key), str):
            value["message"] = value.pop(key)
    return value


def _loguru(body: dict[str, Any]) -> dict[str, Any]:
    """loguru's `serialize=True`: everything lies under `record`; `text` is the same line formatted."""
    record: dict[str, Any] = dict(body["record"])
    level, time, extra, error = (record.pop(key, None) for key in ("level", "time", "extra", "exception"))
    if isinstance(level, dict):
        level = level.get("name")
    if isinstance(time, dict):
        time = time.get("repr")
    out = {key: value for key, value in body.items() if key not in ("record", "text")} | record
    out |= {key: value for key, value in (("level", level), ("timestamp", time), ("logger", out.pop("name", None))) if value}
    if isinstance(error, dict):
        out |= {"error_type": error.get("type"), "error_details": error.get("value")}
    for key, value in (extra if isinstance(extra, dict) else {}).items():
        _put(out, key, value)
    return out


def _put(fields: dict[str, Any], key: str, value: Any) -> None:
    """Add an attribute; where the body has the key with another value, both stay."""
    if key not in fields:
        fields[key] = value
    elif fields[key] != value:
        beside = fields.setdefault("attributes", {})
        if isinstance(beside, dict):
            beside[key] = value
        else:
            fields[f"attributes.{key}"] = value


def _level(number: int, text: str, fields: dict[str, Any]) -> str:
    if 0 < number < len(_SEVERITY):
        return _SEVERITY[number]
    for name in (fields.get("level"), fields.get("levelname"), fields.get("severity"), text):
        if isinstance(name, str) and (level := _NAMES.get(name.strip().lower())):
            return level
    return "INFO"


def _name(fields: dict[str, Any]) -> Any:
    """python-json-logger writes the logger as `name`, beside `levelname`."""
    return fields.get("logger_name") or (fields.get("name") if "levelname" in fields else None)


def _errors(fields: dict[str, Any]) -> None:
    """Give errors the fields error_type and error_details; the text of `exc_info` moves, other originals stay."""
    kind, details = fields.get("exception.type"), fields.get("exception.message")
    trace = fields.get("exc_info") or fields.get("exception") or fields.get("exception.stacktrace")
    if isinstance(trace, list) and trace and isinstance(trace[0], dict):  # structlog's dict_tracebacks
        kind, details = kind or trace[0].get("exc_type"), details or trace[0].get("exc_value")
    elif isinstance(trace, str) and trace.strip():
        found = _exception(trace)
        kind, details = kind or found[0], details or found[1]
        if trace is fields.get("exc_info") and "error_details" not in fields:
            details = fields.pop("exc_info")
    for key, value in (("error_type", kind), ("error_details", details)):
        if value:
            fields.setdefault(key, value)


def _exception(trace: str) -> tuple[str, str]:
    """Class and message of the last exception in a traceback's text."""
    lines = [line[:_LONGEST_ID] for line in trace[-16384:].splitlines() if line.strip()]
    frames = [position for position, line in enumerate(lines) if line.startswith("  ")]
    start = frames[-1] + 1 if frames else 0
    for line in [*lines[start : start + 1], *reversed(lines)]:
        if found := _EXCEPTION.match(line):
            return found[1], found[2] or ""
    return "", ""


def _source(fields: dict[str, Any]) -> None:
    """`function`, `line` and `module` from the code.* attributes that OpenTelemetry's logging handlers set."""
    for name, keys in (("function", ("code.function.name", "code.function")), ("line", ("code.line.number", "code.lineno"))):
        for key in keys:
            if key in fields:
                fields.setdefault(name, fields[key])
    for key in ("code.file.path", "code.filepath"):
        if isinstance(fields.get(key), str):
            fields.setdefault("module", _stem(fields[key]))


@lru_cache(4096)
def _stem(path: str) -> str:
    return PurePath(path).stem


def _ids(record: Any, fields: dict[str, Any]) -> dict[str, str]:
    out = {"request_id": _first(fields, _REQUEST_ID), "user_id": _first(fields, _USER_ID)}
    if trace := record.trace_id.hex() or _hex(fields, ("trace_id", "otelTraceID"), 32):
        out["trace_id"] = trace
    if span := record.span_id.hex() or _hex(fields, ("span_id", "otelSpanID"), 16):
        out["span_id"] = span
    return {key: value[:_LONGEST_ID] for key, value in out.items() if value}


def _first(fields: dict[str, Any], keys: tuple[str, ...]) -> str:
    for key in keys:
        value = fields.get(key)
        if isinstance(value, list):
            value = value[0] if value else None
        if value is not None and value != "" and not isinstance(value, dict):
            return as_text(value)
    return ""


def _hex(fields: dict[str, Any], keys: tuple[str, ...], length: int) -> str:
    for key in keys:
        value = fields.get(key)
        if isinstance(value, str) and re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", value) and value.strip("0"):
            return value.lower()
    return ""


def _iso(time: int) -> str:
    seconds, rest = divmod(time, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(64)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
