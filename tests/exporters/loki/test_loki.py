"""The Loki exporter against a real HTTP server on loopback."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from collector.errors import Oversized, Permanent, Retryable
from collector.exporters.loki import Loki
from collector.model import Payload, Signal
from tests.exporters.servers import HttpBackend, payload
from tests.support import build


async def sent(config: dict[str, Any], what: Payload | None = None, count: int = 1, filtered: int = 0) -> Any:
    """Start, send, stop; returns the exporter."""
    exporter = build(Loki, config)
    await exporter.start()
    try:
        for _ in range(count):
            answer = await exporter.send(what or payload(Signal.LOGS))
            assert answer in (0, (0, filtered))
            assert filtered == 0 or answer
    finally:
        await exporter.stop()
    return exporter


@pytest.mark.parametrize("path", ["", "/", "/loki/api/v1/push"])
@pytest.mark.parametrize("items", [1, 3000])
async def test_logs_are_pushed_as_packed_json_and_the_payload_stays(http: HttpBackend, path: str, items: int) -> None:
    """R-601, R-1303."""
    what = payload(Signal.LOGS, items, text="hello loki")
    before = bytes(what.data)
    await sent({"endpoint": http.url + path}, what)
    [seen] = http.seen
    assert seen.path == "/loki/api/v1/push"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["content-encoding"] == "gzip"
    assert "x-scope-orgid" not in seen.headers
    [stream] = orjson.loads(seen.body)["streams"]
    assert len(stream["values"]) == items
    assert orjson.loads(stream["values"][0][1])["message"] == "hello loki"
    assert what.data == before


async def test_the_tenant_comes_from_the_configuration_only(http: HttpBackend) -> None:
    await sent({"endpoint": http.url, "tenant": "team-a"}, payload(Signal.LOGS, text='{"loki.tenant": "evil"}'))
    assert http.seen[0].headers["x-scope-orgid"] == "team-a"


@pytest.mark.parametrize("path", ["/otlp", "/otlp/", "/otlp/v1/logs"])
async def test_the_otlp_endpoint_gets_otlp(http: HttpBackend, path: str) -> None:
    what = payload(Signal.LOGS)
    await sent({"endpoint": http.url + path, "tenant": "t"}, what)
    [seen] = http.seen
    assert (seen.path, seen.headers["content-type"], seen.headers["x-scope-orgid"]) == (
        "/otlp/v1/logs",
        "application/x-protobuf",
        "t",
    )
    assert seen.body == what.data


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 507])
async def test_rate_limits_and_server_errors_are_retried(http: HttpBackend, status: int) -> None:
    http.answers(status, b"ingester down", "text/plain", Retry_After="3")
    with pytest.raises(Retryable, match=f"HTTP {status}: ingester down") as caught:
        await sent({"endpoint": http.url})
    assert caught.value.after == 3


@pytest.mark.parametrize(
    ("status", "fix"), [(301, "final URL"), (400, ""), (401, "credentials"), (403, "credentials"), (404, "endpoint"), (422, "")]
)
@pytest.mark.parametrize("path", ["", "/otlp"])
async def test_other_answers_are_permanent_and_blame_the_settings_or_the_data(
    http: HttpBackend, status: int, fix: str, path: str
) -> None:
    http.answers(status, b"entry has timestamp too old", "text/plain")
    with pytest.raises(Permanent, match=f"HTTP {status}: entry has") as caught:
        await sent({"endpoint": http.url + path})
    assert fix in caught.value.fix
    assert bool(fix) == bool(caught.value.fix)


async def test_what_loki_cannot_pass_on_is_to_be_halved(http: HttpBackend) -> None:
    http.answers(413)
    with pytest.raises(Oversized, match="HTTP 413"):
        await sent({"endpoint": http.url})
    http.answers(
        500, b"rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)", "text/plain"
    )
    with pytest.raises(Oversized, match="larger than max"):
        await sent({"endpoint": http.url})


@pytest.mark.parametrize(("path", "largest"), [("", 3 << 19), ("/otlp", 4 << 20)])
async def test_no_more_is_joined_than_a_push_should_hold(http: HttpBackend, path: str, largest: int) -> None:
    exporter = await sent({"endpoint": http.url + path})
    assert exporter.largest == largest


async def test_a_large_push_is_halved_before_it_is_sent(http: HttpBackend) -> None:
    with pytest.raises(Oversized, match="more than one push should hold"):
        await sent({"endpoint": http.url}, payload(Signal.LOGS, 20, text="x" * 200_000))
    with pytest.raises(Oversized, match="more than Loki passes on"):
        await sent({"endpoint": http.url}, payload(Signal.LOGS, 40_000, text="x"))
    assert http.seen == []
    await sent({"endpoint": http.url, "max_line_size": 0}, payload(Signal.LOGS, 1, text="x" * (4 << 20)))
    assert len(http.seen) == 1


async def test_a_request_that_cannot_be_decoded_is_permanent(http: HttpBackend) -> None:
    with pytest.raises(Permanent, match="cannot be decoded"):
        await sent({"endpoint": http.url}, Payload(Signal.LOGS, b"\xff\xff", 1))


async def test_lines_below_their_loggers_level_are_not_sent_and_counted(http: HttpBackend) -> None:
    """R-607 (partly)."""
    what = payload(Signal.LOGS, 3, text='{"logger": "httpx", "level": "info"}')
    exporter = await sent({"endpoint": http.url, "logger_levels": {"httpx": "WARNING"}}, what, filtered=3)
    assert http.seen == []
    assert exporter.settings.meters.counter("collector_loki_lines_below_level", "").value("test") == 3


async def test_lines_of_a_failed_push_are_counted_only_when_it_succeeds(http: HttpBackend) -> None:
    one, other = payload(Signal.LOGS, text='{"logger": "httpx"}'), payload(Signal.LOGS)
    http.answers(503)
    exporter = build(Loki, {"endpoint": http.url, "logger_levels": {"httpx": "WARNING"}})
    await exporter.start()
    mixed = Payload(Signal.LOGS, one.data + other.data, 2)
    counter = exporter.settings.meters.counter("collector_loki_lines_below_level", "")
    with pytest.raises(Retryable):
        await exporter.send(mixed)
    assert counter.value("test") == 0
    http.answers(204)
    assert await exporter.send(mixed) == (0, 1)
    assert counter.value("test") == 1
    await exporter.stop()


async def test_label_values_beyond_the_cap_are_counted_and_remembered_between_pushes(http: HttpBackend) -> None:
    """R-504 (partly)."""
    exporter = build(Loki, {"endpoint": http.url, "agent_type_label": True})
    await exporter.start()
    for number in range(100):
        await exporter.send(payload(Signal.LOGS, text=f'{{"agent_type": "a{number}"}}'))
    await exporter.stop()
    labels = [orjson.loads(seen.body)["streams"][0]["stream"]["agent_type"] for seen in http.seen]
    assert labels[97:] == ["a97", "__overflow__", "__overflow__"]
    assert exporter.settings.meters.counter("label_overflow", "").value("agent_type") == 2


@pytest.mark.parametrize(
    ("block", "labels"),
    [
        ({}, {"service", "exporter", "level"}),
        ({"exporter": False}, {"service", "level"}),
        ({"exporter": False, "level": False}, {"service"}),
    ],
)
async def test_otelcols_old_block_is_taken(http: HttpBackend, block: dict[str, bool], labels: set[str]) -> None:
    await sent({"endpoint": http.url, "default_labels_enabled": block})
    assert orjson.loads(http.seen[0].body)["streams"][0]["stream"].keys() == labels


async def test_without_structured_metadata_lines_have_two_parts(http: HttpBackend) -> None:
    await sent({"endpoint": http.url, "structured_metadata": False})
    assert len(orjson.loads(http.seen[0].body)["streams"][0]["values"][0]) == 2


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "endpoint"),
        ({"endpoint": "loki:3100"}, "write a URL such as http://loki:3100"),
        ({"endpoint": "http://h", "tenant": "a\nb"}, "tenant"),
        ({"endpoint": "http://h", "labels": {}}, "labels is not supported"),
        ({"endpoint": "http://h/otlp", "logger_levels": {"a": "INFO"}}, "need the push API"),
        ({"endpoint": "http://h", "logger_levels": {"a": "LOUD"}}, "logger_levels"),
        ({"endpoint": "http://h", "auth": {}}, "auth is not supported"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_reason(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        build(Loki, config)


def test_it_takes_logs_only() -> None:
    assert Loki.signals == {Signal.LOGS}
