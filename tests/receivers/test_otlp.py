"""The OTLP receiver against real clients; the rules are the numbered ones of the OTLP checklist."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from typing import Any

import orjson
import pytest
from google.rpc import error_details_pb2, status_pb2

from collector.errors import Malformed, Refused, Undeliverable
from collector.model import Signal
from collector.otlp.mapping import to_json
from collector.receivers.otlp import Otlp
from tests.receivers.otlp_clients import TRANSPORTS, Running, running
from tests.support import REQUEST, attributes, build, span, traces

EACH = pytest.mark.parametrize("transport", TRANSPORTS)
HTTP = pytest.mark.parametrize("transport", TRANSPORTS[1:])
ALL = pytest.mark.parametrize("signal", list(Signal))
NO_PORT = {"grpc": "UNIMPLEMENTED", "protobuf": 404, "json": 404}


SHOP = {"service.name": "shop"}


def logs(*ids: tuple[bytes, bytes]) -> Any:
    request = REQUEST[Signal.LOGS]()
    group = request.resource_logs.add()
    group.resource.attributes.extend(attributes(SHOP))
    scope = group.scope_logs.add()
    for trace, span_id in ids or ((b"", b""),):
        record = scope.log_records.add(trace_id=trace, span_id=span_id)
        record.body.string_value = "hello"
    return request


def metrics(points: int = 3) -> Any:
    request = REQUEST[Signal.METRICS]()
    group = request.resource_metrics.add()
    group.resource.attributes.extend(attributes(SHOP))
    metric = group.scope_metrics.add().metrics.add(name="m")
    for i in range(points):
        metric.gauge.data_points.add(as_int=i, attributes=attributes({"i": i}))
    return request


def sample(signal: Signal) -> bytes:
    """A request of one span, one record or three points."""
    made = {Signal.TRACES: lambda: traces(span("a")), Signal.LOGS: logs, Signal.METRICS: metrics}
    data: bytes = made[signal]().SerializeToString()
    return data


@EACH
@ALL
@pytest.mark.parametrize("codec", ["", "gzip"])
async def test_every_signal_arrives_plain_and_gzipped(transport: str, signal: Signal, codec: str) -> None:
    """Rules 1 and 20, R-101."""
    async with running() as here:
        data = sample(signal)
        assert (await here.send(transport, signal, data, codec=codec)).ok
        assert [batch.encode() for batch in here.sink.batches] == [data]
        assert here.sink.batches[0].signal is signal
        assert here.counted(f"otelcol_receiver_accepted_{signal.noun}") == (3 if signal is Signal.METRICS else 1)


@EACH
@ALL
async def test_items_without_a_service_name_are_of_an_unknown_service_and_counted(transport: str, signal: Signal) -> None:
    """R-110."""
    request = REQUEST[signal].FromString(sample(signal))
    (group,) = getattr(request, f"resource_{'spans' if signal is Signal.TRACES else signal}")
    group.ClearField("resource")
    group.resource.attributes.extend(attributes({"host.name": "node-1"}))
    async with running() as here:
        assert (await here.send(transport, signal, request.SerializeToString())).ok
        (batch,) = here.sink.batches
        group.resource.attributes.extend(attributes({"service.name": "unknown_service"}))
        assert batch.encode() == request.SerializeToString()
        assert here.counted("collector_receiver_unknown_service") == (3 if signal is Signal.METRICS else 1)
        assert (await here.send(transport, signal, sample(signal))).ok
        assert here.counted("collector_receiver_unknown_service") == (3 if signal is Signal.METRICS else 1)


@HTTP
@pytest.mark.parametrize("codec", ["zstd", "zlib", "deflate"])
async def test_further_encodings_are_taken_over_http(transport: str, codec: str) -> None:
    """Rule 1."""
    async with running() as here:
        assert (await here.send(transport, Signal.TRACES, sample(Signal.TRACES), codec=codec)).ok
        assert len(here.sink.batches) == 1


@HTTP
@pytest.mark.parametrize("codec", ["br", "snappy", "gzip, gzip"])
async def test_other_encodings_are_answered_400_by_name(transport: str, codec: str) -> None:
    """Rule 1."""
    async with running() as here:
        headers = {"Content-Type": "application/json", "Content-Encoding": codec}
        answer = await here.post(b"{}", headers, Signal.TRACES, json=True)
        assert (answer.code, answer.message) == (400, f"unsupported Content-Encoding: {codec!r}")


@EACH
@pytest.mark.parametrize("codec", ["", "gzip"])
async def test_a_message_over_the_limit_is_refused_for_good(transport: str, codec: str) -> None:
    """Rules 2 and 3."""
    async with running({"max_recv_msg_size_mib": 1}, {"max_request_body_size": 1 << 20}) as here:
        big = traces(span("x" * (1 << 20))).SerializeToString()
        answer = await here.send(transport, Signal.TRACES, big, codec=codec)
        assert answer.code in ("RESOURCE_EXHAUSTED", 413)
        assert answer.after is None
        assert "Retry-After" not in answer.headers
        assert not here.sink.batches
        assert (await here.send(transport, Signal.TRACES, sample(Signal.TRACES))).ok


@HTTP
async def test_a_chunked_body_over_the_limit_is_refused_for_good(transport: str) -> None:
    """Rule 3: without a Content-Length too."""

    async def endless() -> Any:
        for _ in range(100):
            yield bytes(64 << 10)

    async with running(None, {"max_request_body_size": 1 << 20}) as here:
        headers = {"Content-Type": f"application/{'json' if transport == 'json' else 'x-protobuf'}"}
        answer = await here.post(endless(), headers, Signal.TRACES, json=transport == "json")
        assert answer.code == 413


@EACH
async def test_the_limit_follows_the_memory_limit_when_unset(transport: str) -> None:
    """Rule 2."""
    async with running() as here:
        assert (await here.send(transport, Signal.TRACES, traces(span("x" * (5 << 20))).SerializeToString())).ok


@EACH
@ALL
async def test_an_empty_request_succeeds_and_counts_nothing(transport: str, signal: Signal) -> None:
    """Rules 7 and 24."""
    async with running() as here:
        for request in (REQUEST[signal](), REQUEST[signal]()):
            answer = await here.send(transport, signal, request.SerializeToString())
            assert answer.ok
        empty = REQUEST[signal]()
        getattr(empty, f"resource_{signal if signal is not Signal.TRACES else 'spans'}").add()
        assert (await here.send(transport, signal, empty.SerializeToString())).ok
        assert not here.sink.batches
        assert here.counted(f"otelcol_receiver_accepted_{signal.noun}") == 0


@EACH
@ALL
async def test_full_success_says_nothing(transport: str, signal: Signal) -> None:
    """Rule 8."""
    async with running() as here:
        answer = await here.send(transport, signal, sample(signal))
        assert answer.body == (b"{}" if transport == "json" else b"")


@EACH
async def test_spans_with_wrong_ids_are_rejected_and_the_others_go_on(transport: str) -> None:
    """Rule 9."""
    bad = [span("short", trace=b"123"), span("zero", trace=bytes(16)), span("id", span_id=b"1"), span("no", span_id=bytes(8))]
    good = [span("good1"), span("good2")]
    async with running() as here:
        request = traces(bad[0], good[0], *bad[1:], good[1])
        answer = await here.send(transport, Signal.TRACES, request.SerializeToString())
        assert (answer.ok, answer.rejected) == (True, 4)
        assert "trace_id" in answer.message
        kept = REQUEST[Signal.TRACES].FromString(here.sink.batches[0].encode())
        assert list(kept.resource_spans[0].scope_spans[0].spans) == good
        assert here.counted("otelcol_receiver_accepted_spans") == 2
        assert here.counted("otelcol_receiver_refused_spans") == 4


@EACH
async def test_log_records_with_wrong_ids_are_rejected_but_may_have_none(transport: str) -> None:
    """Rule 9."""
    request = logs((b"", b""), (b"x" * 16, b"y" * 8), (b"x", b""), (b"x" * 16, b"y" * 9))
    async with running() as here:
        answer = await here.send(transport, Signal.LOGS, request.SerializeToString())
        assert (answer.ok, answer.rejected) == (True, 2)
        assert here.sink.batches[0].count() == 2


@EACH
async def test_a_request_of_bad_items_only_reaches_no_pipeline(transport: str) -> None:
    """Rule 9."""
    async with running() as here:
        answer = await here.send(transport, Signal.TRACES, traces(span(trace=b"x")).SerializeToString())
        assert (answer.ok, answer.rejected) == (True, 1)
        assert not here.sink.batches


@EACH
@ALL
async def test_overload_is_retryable_with_a_delay(transport: str, signal: Signal) -> None:
    """Rules 12, 13, 15 and 17."""
    async with running() as here:
        here.sink.error = Refused("sending queue is full", after=2.2)
        answer = await here.send(transport, signal, sample(signal))
        assert (answer.code, answer.message, answer.after) == (
            "UNAVAILABLE" if transport == "grpc" else 503, "sending queue is full", 2.2)  # fmt: skip
        assert answer.headers.get("Retry-After", "3") == "3"
        assert here.counted(f"otelcol_receiver_refused_{signal.noun}") == (3 if signal is Signal.METRICS else 1)
        assert here.counted(f"otelcol_receiver_accepted_{signal.noun}") == 0


@EACH
async def test_no_room_in_the_byte_budget_is_retryable(transport: str) -> None:
    """Rules 13 and 17."""
    async with running() as here:
        here.host.budget.limit = 10_000
        answer = await here.send(transport, Signal.TRACES, traces(span("x" * 20_000)).SerializeToString())
        assert answer.code in ("UNAVAILABLE", 503)
        assert answer.after == 1
        here.host.budget.limit = 1 << 30
        assert (await here.send(transport, Signal.TRACES, sample(Signal.TRACES))).ok


@EACH
@ALL
@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x05\x12", b"\x0a\x04\x12\x02\x12\x05"])
async def test_undecodable_bodies_are_bad_requests(transport: str, signal: Signal, body: bytes) -> None:
    """Rules 13 and 16."""
    async with running() as here:
        answer = await here.send(transport, signal, body, raw=True)
        assert answer.code in ("INVALID_ARGUMENT", 400)
        assert answer.message
        if transport != "json":
            detail = error_details_pb2.BadRequest()
            assert status_pb2.Status.FromString(answer.body).details[0].Unpack(detail)
        else:
            assert orjson.loads(answer.body)["details"][0]["@type"].endswith("google.rpc.BadRequest")
        assert not here.sink.batches


@EACH
async def test_invalid_utf8_is_a_bad_request(transport: str) -> None:
    """Rule 16: a body that only full decoding refuses."""
    data = traces(span("NAME")).SerializeToString().replace(b"NAME", b"\xff\xfe\xfd\xfc")
    async with running() as here:
        answer = await here.send(transport, Signal.TRACES, data, raw=True)
        assert answer.code in ("INVALID_ARGUMENT", 400)


@EACH
async def test_an_error_for_good_keeps_its_class(transport: str) -> None:
    """Rule 11."""
    async with running() as here:
        here.sink.error = Undeliverable("the backend said no")
        answer = await here.send(transport, Signal.TRACES, sample(Signal.TRACES))
        assert (answer.code, answer.message) == ("INTERNAL" if transport == "grpc" else 500, "the backend said no")
        here.sink.error = Malformed("later")
        assert (await here.send(transport, Signal.TRACES, sample(Signal.TRACES))).code in ("INVALID_ARGUMENT", 400)
        assert here.counted("otelcol_receiver_refused_spans") == 2


@EACH
async def test_a_bug_is_answered_without_its_text_and_logged_without_payload(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as here:
        here.sink.error = RuntimeError("SECRET payload")
        with caplog.at_level(logging.DEBUG):
            for _ in range(3):
                answer = await here.send(transport, Signal.TRACES, sample(Signal.TRACES))
        assert (answer.code, answer.message) == ("INTERNAL" if transport == "grpc" else 500, "internal error")
        assert here.counted("otelcol_receiver_failed_spans") == 3
        failures = [r for r in caplog.records if "failed inside" in r.getMessage()]
        assert len(failures) == 1, "rate limited"
        assert "RuntimeError" in failures[0].getMessage()
        assert "SECRET" not in caplog.text


@EACH
async def test_a_signal_without_pipeline_is_explained(transport: str) -> None:
    async with running(signals=(Signal.TRACES,)) as here:
        answer = await here.send(transport, Signal.LOGS, sample(Signal.LOGS))
        assert (answer.code, answer.message) == (NO_PORT[transport], "no logs pipeline is configured")
        assert (await here.send(transport, Signal.TRACES, sample(Signal.TRACES))).ok


@HTTP
@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/v1/nothing", 404), ("POST", "/", 404), ("GET", "/v1/traces", 405),
    ("PUT", "/v1/logs", 405), ("OPTIONS", "/v1/logs", 405), ("DELETE", "/v1/traces", 405)])  # fmt: skip
async def test_wrong_paths_and_methods_have_a_status_in_the_requests_encoding(
    transport: str, method: str, path: str, status: int
) -> None:
    """Rules 18 and 19."""
    kind = "application/json" if transport == "json" else "application/x-protobuf"
    async with running() as here, here.session.request(method, here.url(path), headers={"Content-Type": kind}) as response:
        assert (response.status, response.content_type) == (status, kind)
        assert _message(await response.read(), kind).startswith(str(status))
        assert response.headers.get("Allow") == ("POST" if status == 405 else None)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/grpc", "application/jsonx"])
async def test_other_media_types_are_415(kind: str) -> None:
    """Rules 18 and 19."""
    async with running() as here:
        headers = {"Content-Type": kind}
        async with here.session.post(here.url(), data=b"x", headers=headers, skip_auto_headers=["Content-Type"]) as response:
            assert (response.status, response.content_type) == (415, "application/json")
            wanted = "415 unsupported media type, supported: [application/json, application/x-protobuf]"
            assert _message(await response.read(), "application/json") == wanted


@HTTP
async def test_answers_carry_the_media_type_of_the_request(transport: str) -> None:
    """Rule 19: parameters and case do not matter."""
    kind = "application/json" if transport == "json" else "application/x-protobuf"
    async with running() as here:
        headers = {"Content-Type": kind.upper() + "; charset=utf-8"}
        async with here.session.post(here.url(), data=b"{}" if transport == "json" else b"", headers=headers) as response:
            assert (response.status, response.content_type) == (200, kind)


def _message(body: bytes, kind: str) -> str:
    if kind == "application/json":
        return str(orjson.loads(body)["message"])
    return str(status_pb2.Status.FromString(body).message)


async def test_json_of_other_habits_is_read_and_counted() -> None:
    """Rule 22."""
    body = b'{"resource_spans":[{"scope_spans":[{"spans":[{"trace_id":"%s","span_id":"%s","kind":"SPAN_KIND_CLIENT"}]}]}]}'
    async with running() as here:
        assert (await here.send("json", Signal.TRACES, body % (b"aB" * 16, b"aB" * 8), raw=True)).ok
        series = here.receiver.settings.meters._made["collector_nonstandard_json"].series()
        assert series == {("snake_case",): 4, ("enum_name",): 1}
        assert here.sink.batches[0].count() == 1


async def test_strict_json_reads_by_the_letter() -> None:
    """Rule 22."""
    async with running(None, {"strict_json": True}) as here:
        assert (await here.send("json", Signal.TRACES, b'{"resource_spans":[{"scope_spans":[5]}]}', raw=True)).ok
        assert not here.sink.batches


@EACH
async def test_the_same_request_twice_is_taken_twice_unchanged(transport: str) -> None:
    """Rule 25."""
    async with running() as here:
        data = sample(Signal.TRACES)
        for _ in range(2):
            assert (await here.send(transport, Signal.TRACES, data)).ok
        assert [batch.encode() for batch in here.sink.batches] == [data, data]


@EACH
async def test_unknown_fields_survive_byte_for_byte(transport: str) -> None:
    data = sample(Signal.TRACES) + b"\x9a\x06\x03abc"  # field 99
    async with running() as here:
        if transport == "json":
            body = b'{"future":1,"resourceSpans":[]}'
            assert (await here.send(transport, Signal.TRACES, body, raw=True)).ok
        else:
            assert (await here.send(transport, Signal.TRACES, data)).ok
            assert here.sink.batches[0].encode() == data


@EACH
async def test_the_answer_waits_for_the_pipelines(transport: str) -> None:
    """Rule 23: acknowledged means taken."""
    async with running() as here:
        gate, entered = asyncio.Event(), asyncio.Event()

        async def slow(batch: object) -> None:
            entered.set()
            await gate.wait()

        here.sink.__class__ = type("Slow", (type(here.sink),), {"__call__": lambda self, batch: slow(batch)})
        call = asyncio.create_task(here.send(transport, Signal.TRACES, sample(Signal.TRACES)))
        await asyncio.wait_for(entered.wait(), 10)
        assert here.counted("otelcol_receiver_accepted_spans") == 0
        assert not call.done()
        gate.set()
        assert (await call).ok
        assert here.counted("otelcol_receiver_accepted_spans") == 1


@EACH
async def test_stopping_answers_what_is_in_flight(transport: str) -> None:
    async with running() as here:
        gate, entered = asyncio.Event(), asyncio.Event()

        async def slow(batch: object) -> None:
            entered.set()
            await gate.wait()

        here.sink.__class__ = type("Slow", (type(here.sink),), {"__call__": lambda self, batch: slow(batch)})
        call = asyncio.create_task(here.send(transport, Signal.TRACES, sample(Signal.TRACES)))
        await asyncio.wait_for(entered.wait(), 10)
        stop = asyncio.create_task(here.receiver.stop())
        await asyncio.sleep(0)
        gate.set()
        assert (await call).ok
        await stop
        await here.receiver.stop()


async def test_requests_are_accepted_while_draining() -> None:
    async with running() as here:
        here.host.now_state = "draining"
        assert (await here.send("grpc", Signal.TRACES, sample(Signal.TRACES))).ok
        assert (await here.send("json", Signal.TRACES, sample(Signal.TRACES))).ok


async def test_requests_are_counted_by_answer() -> None:
    async with running() as here:
        await here.send("grpc", Signal.TRACES, sample(Signal.TRACES))
        await here.send("protobuf", Signal.TRACES, b"\xff")
        series = here.receiver.settings.meters._made["collector_receiver_requests"].series()
        assert series == {("otlp", "grpc", "OK"): 1, ("otlp", "http", "INVALID_ARGUMENT"): 1}


async def test_metadata_is_kept_only_where_asked() -> None:
    async def both(here: Running) -> None:
        call = here.channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        await call(sample(Signal.TRACES), metadata=(("x-tenant", "a"), ("x-bin", b"\xff")))
        headers = {"Content-Type": "application/x-protobuf", "X-Tenant": "a"}
        await here.post(sample(Signal.TRACES), headers, Signal.TRACES, json=False)

    async with running({"include_metadata": True}, {"include_metadata": True}) as here:
        await both(here)
        assert [dict(b.metadata or {}).get("x-tenant") for b in here.sink.batches] == [("a",), ("a",)]
        assert dict(here.sink.batches[0].metadata or {})["x-bin"] == ("\xff",)
    async with running() as here:
        await both(here)
        assert [b.metadata for b in here.sink.batches] == [None, None]


async def test_health_follows_the_service() -> None:
    """R-1104."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with running() as here:
        stub = health_pb2_grpc.HealthStub(here.channel)
        for state, status in (("running", 1), ("draining", 2), ("starting", 2), ("failed", 2)):
            here.host.now_state = state
            for service in ("", "opentelemetry.proto.collector.trace.v1.TraceService"):
                assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == status
        here.host.now_state = "running"
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == 1
        here.host.now_state = "draining"
        assert (await asyncio.wait_for(watch.read(), 10)).status == 2
        watch.cancel()


async def test_a_second_message_or_none_on_a_call_is_a_bad_request() -> None:
    import grpc

    async with running() as here:
        call = here.channel.stream_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        for messages in ([], [b"", b""]):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(iter(messages))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_port_in_use_is_an_error_and_leaves_nothing_open() -> None:
    async with running() as here:
        taken = here.receiver.ports["http"]
        with pytest.raises(OSError, match=str(taken)):
            async with running(None, {"endpoint": f"127.0.0.1:{taken}"}):
                pass
        with pytest.raises(OSError, match="cannot listen"):
            async with running({"endpoint": f"127.0.0.1:{here.receiver.ports['grpc']}"}):
                pass


async def test_stopping_twice_is_harmless() -> None:
    async with running() as here:
        await here.receiver.stop()
        await here.receiver.stop()


@EACH
async def test_a_large_request_leaves_the_loop_free(transport: str) -> None:
    """Reliability: no input stalls the loop; the goal is 100 ms, a slow test machine gets more."""
    spans = [span(f"s{i}", {f"k{j}": "v" * 40 for j in range(10)}) for i in range(6000)]
    data = traces(*spans).SerializeToString()
    body = to_json(Signal.TRACES, data) if transport == "json" else data
    async with running() as here:
        task = asyncio.create_task(here.send(transport, Signal.TRACES, body, raw=True))
        longest, last = 0.0, time.thread_time()  # the loop's own CPU time: another process on the machine is no stall of ours
        while not task.done():
            await asyncio.sleep(0)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()
        assert task.result().ok
        assert here.sink.batches[0].count() == 6000
        assert longest < 0.5


@pytest.mark.parametrize("name", ["grpc", "http"])
async def test_a_protocol_that_is_not_named_is_off(name: str) -> None:
    receiver = build(Otlp, {"protocols": {name: {"endpoint": "127.0.0.1:0"}}}, component_id="otlp")
    await receiver.start({})
    assert set(receiver.ports) == {name}
    await receiver.stop()


def test_validation_loads_no_client_library() -> None:
    code = (
        "import sys; from collector.receivers.otlp import Otlp; Otlp.Config.model_validate({'protocols': {'grpc': None}}); "
        "print([name for name in ('grpc', 'aiohttp', 'zstandard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
