"""Log records become Loki lines with the fields of the requirements."""

from __future__ import annotations

import traceback
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from collector.exporters.loki.lines import LEVELS, Line, plain, read
from tests.support import any_value, attributes

NOW = 1_790_000_000_123_456_789


def line(body: object = "hello", values: dict[str, Any] | None = None, scope: str = "", **fields: Any) -> Line:
    """The line of a record with a time."""
    record = LogRecord(time_unix_nano=NOW, attributes=attributes(values or {}), **fields)
    if body is not None:
        record.body.CopyFrom(any_value(body))
    return read(record, scope, NOW + 1)


def text(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """The JSON object of the line."""
    out: dict[str, Any] = orjson.loads(line(*args, **kwargs).text())
    return out


def test_a_plain_text_body_becomes_the_message() -> None:
    """R-602."""
    expected = {"timestamp": "2026-09-21T14:13:20.123456Z", "level": "INFO", "logger": "arc.agents", "message": "hello"}
    assert text("hello", scope="arc.agents") == expected


S1 = {"timestamp": "2026-01-01T00:00:00Z", "request_id": "r-1", "user_id": "u-1", "agent_type": "planner"}
S1 |= {"operation": "plan", "duration": 1.5, "error_details": "none"}
S0 = {"timestamp": "t", "level": "WARNING", "logger": "arc.core", "message": "m", "module": "core", "function": "run"}
S0 |= {"line": 7, "error": "boom", "error_type": "ValueError", "tenant": {"a": [1, "x", True]}}
EVENTS = {"task_id": "t", "priority": 1, "arm": "a", "agent_name": "n", "model": "gpt-4o", "retry_count": 0, "duration_ms": 3.5}
EVENTS |= {
    "tokens": 9,
    "status": "ok",
    "sources_count": 2,
    "tokens_used": 5,
    "latency_ms": 8,
    "query_length": 3,
    "cache_type": "l1",
}


@pytest.mark.parametrize("fields", [S1, S0, EVENTS])
@pytest.mark.parametrize("form", ["JSON text", "map", "attributes"])
def test_fields_survive_with_name_and_value_however_they_were_sent(fields: dict[str, Any], form: str) -> None:
    """R-602, R-603, R-606."""
    if form == "attributes":
        found = text("hello", fields)
    else:
        found = text(orjson.dumps(fields).decode() if form == "JSON text" else fields)
    if form == "attributes" and "message" in fields:
        assert found["attributes"] == {"message": "m"}
        fields = {**fields, "message": "hello"}
    assert {key: found[key] for key in fields} == fields


@pytest.mark.parametrize("key", ["event", "msg"])
def test_the_event_of_structlog_and_the_msg_of_others_are_the_message(key: str) -> None:
    """R-603."""
    found = text(f'{{"{key}": "task_done", "task_id": "t"}}')
    assert (found["message"], found["task_id"]) == ("task_done", "t")
    assert key not in found
    both = text({key: "a", "message": "b"})
    assert (both[key], both["message"]) == ("a", "b")


LOGURU = {
    "text": "2026 | ERROR | boom\n",
    "record": {
        "level": {"icon": "x", "name": "ERROR", "no": 40}, "message": "boom", "name": "app.jobs", "function": "run", "line": 12,
        "module": "jobs", "time": {"repr": "2026-01-01 00:00:00+00:00", "timestamp": 1.0}, "extra": {"request_id": "r-9", "line": 3},
        "exception": {"type": "ValueError", "value": "no", "traceback": True}, "process": {"id": 1, "name": "MainProcess"},
    },
}  # fmt: skip


def test_loguru_lines_are_flattened() -> None:
    """R-606."""
    entry = line(orjson.dumps(LOGURU).decode())
    found = orjson.loads(entry.text())
    assert entry.level == "ERROR"
    assert entry.logger == "app.jobs"
    expected = {
        "message": "boom",
        "function": "run",
        "line": 12,
        "module": "jobs",
        "error_type": "ValueError",
        "error_details": "no",
    }
    assert {key: found[key] for key in expected} == expected
    assert found["timestamp"] == "2026-01-01 00:00:00+00:00"
    assert found["request_id"] == entry.ids["request_id"] == "r-9"
    assert found["attributes"] == {"line": 3}
    assert found["process"] == {"id": 1, "name": "MainProcess"}
    assert "text" not in found


def test_a_record_field_that_is_not_logurus_stays() -> None:
    assert text({"record": {"id": 1}})["record"] == {"id": 1}
    assert text({"record": {"message": "m", "level": "INFO", "time": 5, "extra": "x"}})["message"] == "m"


def test_python_json_logger_gives_level_and_logger() -> None:
    """R-606."""
    entry = line('{"levelname": "ERROR", "name": "app.db", "message": "m", "asctime": "2026-01-01"}')
    assert (entry.level, entry.logger, entry.fields["asctime"]) == ("ERROR", "app.db", "2026-01-01")
    assert line('{"name": "Anna"}', scope="scope").logger == "scope"


def trace(message: str = "no such arm") -> str:
    try:
        raise LookupError(message)
    except LookupError:
        return traceback.format_exc()


def test_exc_info_moves_to_error_type_and_error_details() -> None:
    """R-606."""
    found = text({"event": "failed", "exc_info": trace()})
    assert found["error_type"] == "LookupError"
    assert found["error_details"] == trace()
    assert "exc_info" not in found


@pytest.mark.parametrize(
    ("fields", "kind", "details"),
    [
        ({"exc_info": trace("first\nsecond: line")}, "LookupError", trace("first\nsecond: line")),
        ({"exc_info": "app.errors.Broken"}, "app.errors.Broken", "app.errors.Broken"),
        ({"exception": trace()}, "LookupError", "no such arm"),
        ({"exception": [{"exc_type": "KeyError", "exc_value": "'k'", "frames": []}]}, "KeyError", "'k'"),
        ({"exception.type": "ValueError", "exception.message": "bad"}, "ValueError", "bad"),
        ({"exception.stacktrace": trace()}, "LookupError", "no such arm"),
        ({"exc_info": trace(), "error_type": "Mine", "error_details": "mine"}, "Mine", "mine"),
        ({"exc_info": True}, None, None),
        ({"exc_info": "  \n"}, None, None),
        ({"exc_info": "???"}, None, "???"),
        ({"exception": []}, None, None),
    ],
)
def test_every_way_to_tell_an_exception_gives_type_and_details(fields: dict[str, Any], kind: str, details: str) -> None:
    """R-606."""
    found = text(fields)
    assert (found.get("error_type"), found.get("error_details")) == (kind, details)
    for key, value in fields.items():
        assert found.get(key) == value or key == "exc_info"


def test_the_place_in_the_code_is_named_as_the_seeds_name_it() -> None:
    """R-602."""
    new = text("x", {"code.function.name": "run", "code.line.number": 7, "code.file.path": "/app/jobs/core.py"})
    old = text("x", {"code.function": "run", "code.lineno": 7, "code.filepath": "/app/jobs/core.py"})
    for found in (new, old):
        assert (found["function"], found["line"], found["module"]) == ("run", 7, "core")
    assert new["code.function.name"] == "run"
    assert text({"line": 9}, {"code.lineno": 7})["line"] == 9


@pytest.mark.parametrize("number", range(25))
def test_levels_follow_the_severity(number: int) -> None:
    """R-604."""
    expected = LEVELS[0 if number < 9 else (number - 5) // 4] if number else "INFO"
    assert line(severity_number=number).level == expected


@pytest.mark.parametrize(
    ("body", "severity", "expected"),
    [
        ({"level": "error"}, "", "ERROR"),
        ({"level": " Warn "}, "", "WARNING"),
        ({"levelname": "CRITICAL"}, "", "CRITICAL"),
        ({"severity": "fatal"}, "", "CRITICAL"),
        ({"level": 30}, "", "INFO"),
        ({"level": "loud"}, "", "INFO"),
        ("text", "ERR", "ERROR"),
        ("text", "", "INFO"),
    ],
)
def test_without_severity_the_level_of_the_body_counts_else_info(body: object, severity: str, expected: str) -> None:
    """R-604."""
    assert line(body, severity_text=severity).level == expected


def test_severity_beyond_24_counts_as_none() -> None:
    assert line({"level": "debug"}, severity_number=99).level == "DEBUG"


@pytest.mark.parametrize("key", ["request_id", "http.request.header.x-request-id", "X-Request-ID", "x-request-id"])
@pytest.mark.parametrize("value", ["r-1", ["r-1", "other"]])
def test_the_request_id_has_one_name_and_originals_stay(key: str, value: object) -> None:
    """R-106 (partly)."""
    for entry in (line("x", {key: value}), line({key: value}), line(orjson.dumps({key: value}).decode())):
        assert entry.ids["request_id"] == "r-1"
        assert entry.fields[key] == value
        assert entry.fields["request_id"] == ("r-1" if key != "request_id" else value)


@pytest.mark.parametrize("key", ["user_id", "enduser.id", "user.id", "X-User-ID", "http.request.header.x-user-id"])
def test_the_user_id_has_one_name_and_originals_stay(key: str) -> None:
    """R-108 (partly)."""
    entry = line("x", {key: 42})
    assert entry.ids["user_id"] == "42"
    assert entry.fields[key] == 42


def test_no_request_id_is_invented() -> None:
    """R-107 (partly)."""
    for values in ({}, {"request_id": ""}, {"request_id": []}, {"request_id": {"a": 1}}):
        assert "request_id" not in line("x", values).ids


def test_trace_and_span_id_are_those_of_the_record_else_of_the_fields() -> None:
    """R-109 (partly)."""
    entry = line("x", {"trace_id": "b" * 32}, trace_id=b"\xaa" * 16, span_id=b"\x01" * 8)
    assert entry.ids == {"trace_id": "aa" * 16, "span_id": "01" * 8}
    entry = line({"otelTraceID": "AB" * 16, "otelSpanID": "CD" * 8})
    assert entry.ids == {"trace_id": "ab" * 16, "span_id": "cd" * 8}
    assert line({"otelTraceID": "0", "trace_id": "0" * 32, "span_id": "xyz"}).ids == {}


def test_the_event_time_is_kept_and_observed_time_is_the_fallback() -> None:
    """R-601."""
    assert read(LogRecord(time_unix_nano=5, observed_time_unix_nano=7), "", 9).time == 5
    assert read(LogRecord(observed_time_unix_nano=7), "", 9).time == 7
    assert read(LogRecord(), "", 9).time == 9
    assert read(LogRecord(time_unix_nano=2**64 - 1), "", 9).fields["timestamp"].startswith("2554-07-21")


def test_an_empty_record_is_a_line_too() -> None:
    assert text(None) == {"timestamp": "2026-09-21T14:13:20.123456Z", "level": "INFO", "logger": "", "message": ""}


@pytest.mark.parametrize("body", ["{not json", "{}x", '["a"]', " {", '{"a": NaN}', '"quoted"'])
def test_text_that_is_no_json_object_is_the_message(body: str) -> None:
    assert text(body)["message"] == body


@pytest.mark.parametrize("body", [7, 1.5, True, ["a", 1]])
def test_bodies_of_other_types_are_the_message(body: object) -> None:
    assert text(body)["message"] == body


def test_bytes_nan_and_empty_values_have_a_json_form() -> None:
    assert text(b"\x00\xff")["message"] == "AP8="
    found = text("x", {"a": float("nan"), "b": float("inf"), "c": float("-inf")})
    assert (found["a"], found["b"], found["c"]) == ("NaN", "Infinity", "-Infinity")
    assert plain(LogRecord().body) is None


def test_what_the_record_says_beside_attributes_is_kept() -> None:
    found = text("x", event_name="device.boot", dropped_attributes_count=3)
    assert (found["event_name"], found["dropped_attributes_count"]) == ("device.boot", 3)


def test_an_attribute_never_replaces_a_field_of_the_body() -> None:
    found = text({"a": 1, "same": 2}, {"a": 5, "same": 2})
    assert (found["a"], found["same"], found["attributes"]) == (1, 2, {"a": 5})
    found = text({"a": 1, "attributes": "mine"}, {"a": 5})
    assert (found["attributes"], found["attributes.a"]) == ("mine", 5)


def test_long_lines_have_their_longest_texts_cut_and_say_so() -> None:
    entry = line({"message": "m", "prompt": "ä" * 50_000, "answer": "x" * 20_000, "request_id": "r"})
    cut = entry.text(10_000)
    found = orjson.loads(cut)
    assert len(cut.encode()) <= 10_000
    assert (found["truncated"], found["message"], found["request_id"]) == (True, "m", "r")
    assert 256 <= len(found["prompt"]) < 50_000
    assert "truncated" not in orjson.loads(line("short").text(10_000))


def test_long_lines_without_long_texts_are_cut_as_a_whole() -> None:
    entry = line({"list": list(range(10_000))}, severity_number=17)
    found = orjson.loads(entry.text(2_000))
    assert found["truncated"] is True
    assert found["level"] == "ERROR"
    assert len(entry.text(2_000)) <= 2_000


def test_values_nested_deeper_than_json_writes_do_not_lose_the_line() -> None:
    deep = "[" * 600 + "]" * 600
    found = text(f'{{"message": "m", "deep": {deep}}}')
    assert found["message"] == "m"
    assert found["deep"].startswith("[[[[")


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
NAMES = st.text() | st.sampled_from(
    [
        "event",
        "exc_info",
        "exception",
        "record",
        "level",
        "message",
        "request_id",
        "attributes",
        "logger",
        "code.file.path",
        "trace_id",
    ]
)


@settings(max_examples=100, deadline=None)
@given(VALUES | st.dictionaries(NAMES, VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=4), st.integers(0, 2**31 - 1))
def test_any_record_becomes_one_json_object_with_text_ids(body: Any, values: dict[str, Any], number: int) -> None:
    """R-602."""
    entry = line(body, values, severity_number=number)
    found = orjson.loads(entry.text(4096))
    assert isinstance(found, dict)
    assert {"level", "message"} <= found.keys()
    assert "\n" not in entry.text()
    assert entry.level in LEVELS
    assert isinstance(entry.logger, str)
    assert all(isinstance(value, str) and 0 < len(value) <= 512 for value in entry.ids.values())
