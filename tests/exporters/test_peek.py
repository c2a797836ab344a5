"""exporters.peek: the newest traces and logs, bounded."""

import logging

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from collector.exporters.peek import Peek
from collector.model import Payload, Signal
from tests.support import REQUEST, any_value, attributes, build, span, traces

LLM = {
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 200,
    "llm.cost_usd": 0.0045,
    "nested": {"a": [1, 2]},
    "raw": b"123",
    "none": None,
}


def payload(*spans, **options):
    return Payload(Signal.TRACES, traces(*spans, **options).SerializeToString(), len(spans))


async def test_a_trace_shows_model_tokens_and_cost():
    peek = build(Peek)
    root = span("POST /chat", duration=1.5)
    child = span("chat gpt-4o", LLM, trace=root.trace_id, parent=root.span_id, error=True)
    assert await peek.send(payload(child)) == 0
    await peek.send(payload(root))
    (shown,) = peek.traces()
    assert shown["name"] == "POST /chat"
    assert (shown["service"], shown["models"], shown["tokens"], shown["cost_usd"], shown["errors"], shown["span_count"]) == (
        "api", ["gpt-4o"], 1200, 0.0045, 1, 2)  # fmt: skip
    whole = peek.trace(root.trace_id.hex())
    assert whole["spans"][1]["attributes"]["raw"] == "3 bytes"
    assert peek.trace("00") is None


async def test_the_newest_traces_are_kept():
    peek = build(Peek, {"max_traces": 3})
    for number in range(5):
        await peek.send(payload(span(f"t{number}")))
    assert [t["name"] for t in peek.traces()] == ["t4", "t3", "t2"]


async def test_bytes_bound_what_is_kept():
    """R-111 (partly)."""
    peek = build(Peek, {"max_bytes": 20_000})
    for _ in range(50):
        await peek.send(payload(span("t", {"text": "x" * 2000})))
    assert 0 < len(peek.traces()) < 10
    await peek.send(payload(span("giant", {"text": "x" * 50_000})))
    assert peek.traces() == []
    assert peek._bytes == 0


async def test_log_records_are_kept_newest_first_and_bounded():
    peek = build(Peek, {"max_logs": 2})
    request = REQUEST[Signal.LOGS]()
    group = request.resource_logs.add()
    group.resource.attributes.extend(attributes({"service.name": "api"}))
    for number in range(3):
        group.scope_logs.add().log_records.append(
            LogRecord(time_unix_nano=10**18, body=any_value(f"line {number}"), severity_text="INFO")
        )
    await peek.send(Payload(Signal.LOGS, request.SerializeToString(), 3))
    assert [row["body"] for row in peek.logs()] == ["line 2", "line 1"]
    assert peek.logs()[0]["time"] == "2001-09-09T01:46:40.000Z"


async def test_the_terminal_names_the_first_trace_errors_and_llm_calls_only(caplog):
    caplog.set_level(logging.INFO)
    peek = build(Peek)
    for item in (span("first"), span("plain"), span("broken", error=True), span("chat", LLM)):
        await peek.send(payload(item))
    assert [record.name_ if hasattr(record, "name_") else record.getMessage() for record in caplog.records] == [
        "first trace",
        "trace",
        "trace",
    ]
    assert caplog.records[-1].cost == "$0.0045"


@pytest.mark.parametrize("tokens", [True, "12", float("nan"), -5, 1e15])
async def test_odd_token_numbers_are_not_shown(tokens):
    peek = build(Peek, {"terminal": False})
    await peek.send(payload(span("chat", {"gen_ai.usage.input_tokens": tokens})))
    assert peek.traces()[0]["tokens"] == 0


async def test_metrics_are_not_kept():
    peek = build(Peek)
    assert await peek.send(Payload(Signal.METRICS, b"", 0)) == 0
