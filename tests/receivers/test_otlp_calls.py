"""gRPC calls from the completion queue: bounded reads, every call ends, and the plain way where the queue cannot be used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Refused
from collector.model import Batch, Signal
from collector.receivers.otlp import grpc_server
from collector.receivers.otlp.aio_calls import AioCalls
from collector.receivers.otlp.calls import Call, Calls
from collector.receivers.otlp.face import Reply
from collector.receivers.otlp.reads import CONTENDED, LONGEST, Reads
from tests.receivers.otlp_clients import SERVICES, Quick, Running, running
from tests.receivers.test_otlp import sample
from tests.support import eventually, span, traces

EXPORT = f"/{SERVICES[Signal.TRACES]}/Export"
LOG = logging.getLogger("collector.test")
SLACK = 4 << 20


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_as_many_messages_are_read_at_once_as_there_is_room_for() -> None:
    reads: Reads[str] = Reads(2, 10 << 20)
    assert [reads.enter(name) for name in "abc"] == [["a"], ["b"], []]
    assert (reads.running, reads.waiting) == (2, 1)
    assert reads.arrived("a", 5 << 20)
    assert reads.more() == [], "it still counts with its own size, which is more than the slack"
    assert reads.taken(5 << 20) == ["c"]
    assert reads.more() == []


def test_small_messages_that_wait_to_be_taken_do_not_keep_others_from_being_read() -> None:
    reads: Reads[int] = Reads(2, 64 << 20)
    for number in range(100):
        assert reads.enter(number) == [number]
        assert reads.arrived(number, 1000)


def test_a_message_may_take_long_unless_others_wait_for_its_place() -> None:
    clock = Clock()
    reads: Reads[str] = Reads(1, 64 << 20, clock)
    reads.enter("slow")
    clock.now += LONGEST - 1
    assert reads.expired() == []
    reads.enter("other")
    assert reads.expired() == ["slow"]
    assert not reads.arrived("slow", 10), "it was given up"
    assert reads.taken(0) == ["other"]
    clock.now += CONTENDED + 1
    assert reads.expired() == []
    clock.now += LONGEST
    assert reads.expired() == ["other"]


@given(st.lists(st.tuples(st.sampled_from(["enter", "arrived", "taken", "expired"]), st.integers(0, 10 << 20)), max_size=200))
def test_what_is_read_and_not_taken_never_exceeds_its_room(steps: list[tuple[str, int]]) -> None:
    limit, slots, clock = 10 << 20, 3, Clock()
    reads: Reads[int] = Reads(slots, limit, clock)
    running: list[int] = []
    untaken: list[int] = []
    for number, (step, size) in enumerate(steps):
        begun: list[int] = []
        if step == "enter":
            begun = reads.enter(number)
        elif step == "arrived" and running:
            assert reads.arrived(running.pop(0), size)
            untaken.append(size)
            begun = reads.more()
        elif step == "taken" and untaken:
            begun = reads.taken(untaken.pop(0))
        elif step == "expired":
            clock.now += CONTENDED + 0.1
            late = reads.expired()
            running = [each for each in running if each not in late]
            untaken += [0] * len(late)
        running += begun
        assert reads.running == len(running)
        if begun:
            assert len(running) * limit + sum(untaken) <= slots * limit + SLACK
    while running or untaken:
        while running:
            assert reads.arrived(running.pop(), 0)
            untaken.append(0)
        running += reads.taken(untaken.pop())
    assert reads.waiting == 0, "whoever waits is read in the end"


@asynccontextmanager
async def served(handler: Callable[[Call], Reply | Awaitable[Reply]]) -> AsyncIterator[tuple[Calls, Any]]:
    """A server with one method, and a client's call of it."""
    server = Calls([("grpc.so_reuseport", 0)], {EXPORT: handler}, Reads(2, 1 << 20), LOG)
    port = server.add_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        try:
            yield server, channel.unary_unary(EXPORT)
        finally:
            await server.stop(5)


async def later(reply: Reply | Exception) -> Reply:
    await asyncio.sleep(0)
    if isinstance(reply, Exception):
        raise reply
    return reply


def at_once(_: Call) -> Reply:
    raise ValueError("SECRET")


@pytest.mark.parametrize("handler", [at_once, lambda _: later(ValueError("SECRET"))])
async def test_a_handler_with_a_bug_ends_its_own_call_only(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with served(handler) as (server, call):
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"x")
            assert caught.value.code() is grpc.StatusCode.INTERNAL
        await eventually(lambda: server.reads.running == 0)
    assert "a gRPC call failed" in caplog.text
    assert "SECRET" not in caplog.text


async def test_calls_that_end_at_once_or_later_are_all_answered_and_leave_nothing() -> None:
    number = iter(range(10_000))

    def handler(call: Call) -> Reply | Awaitable[Reply]:
        reply = Reply(call.here())
        return reply if next(number) % 2 else later(reply)

    async with served(handler) as (server, call):
        bodies = [f"{i}".encode() * 50 for i in range(500)]
        assert await asyncio.gather(*map(call, bodies)) == bodies
        await eventually(lambda: not server._calls)
        assert (server.reads.running, server.reads.waiting, server.reads._untaken) == (0, 0, 0)


async def test_a_call_that_does_not_end_in_time_is_cut_off_when_the_server_stops() -> None:
    cancelled: list[int] = []

    async def never() -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(1)
        return Reply(None)

    async with served(lambda _: never()) as (server, call):
        pending = asyncio.ensure_future(call(b"x"))
        await eventually(lambda: server._calls)
        await server.stop(0.01)
        with pytest.raises(grpc.aio.AioRpcError):
            await pending
        assert cancelled == [1]
        assert server.closed
        await server.stop(0.01)


async def test_a_server_that_was_never_started_stops() -> None:
    await Calls([], {}, Reads(1, 1), LOG).stop(1)


async def test_a_method_that_is_not_there_is_unimplemented() -> None:
    async with running() as here:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await here.channel.unary_unary("/opentelemetry.Nothing/Export")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("reason", ["the library has no such queue", "the user asks for it"])
async def test_grpc_aio_serves_where_the_completion_queue_may_not(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    if reason == "the user asks for it":
        monkeypatch.setenv(grpc_server.WAY_VARIABLE, "aio")
    else:
        monkeypatch.setattr(grpc_server, "USABLE", False)
    async with running() as here:
        assert isinstance(here.receiver._servers[0]._server, AioCalls)
        assert (await here.send("grpc", Signal.TRACES, sample(Signal.TRACES))).ok


async def test_the_installed_library_has_the_completion_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(grpc_server.WAY_VARIABLE, raising=False)
    async with running() as here:
        assert isinstance(here.receiver._servers[0]._server, Calls)


def quick(here: Running, monkeypatch: pytest.MonkeyPatch) -> Quick:
    sink = Quick()
    monkeypatch.setattr(here.receiver._servers[0]._intake, "_accept", dict.fromkeys(Signal, sink))
    return sink


async def test_what_the_pipelines_take_at_once_is_counted_and_refused_like_everything_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(grpc_server.WAY_VARIABLE, raising=False)
    monkeypatch.setattr("collector.receivers.otlp.intake.open_plain", lambda signal, body: plain(signal, body))
    async with running({"include_metadata": True}) as here:
        sink, data = quick(here, monkeypatch), sample(Signal.TRACES)
        assert (await here.send("grpc", Signal.TRACES, data)).ok
        assert [batch.encode() for batch in sink.quick] == [data]
        assert "user-agent" in (sink.quick[0].metadata or {})
        assert here.counted("otelcol_receiver_accepted_spans") == 1
        sink.error = Refused("busy", after=3, reason="queue_full")
        answer = await here.send("grpc", Signal.TRACES, data)
        assert (answer.code, answer.message, answer.after) == ("UNAVAILABLE", "busy", 3)
        assert here.counted("otelcol_receiver_refused_spans") == 1
        sink.error = ZeroDivisionError()
        assert (await here.send("grpc", Signal.TRACES, data)).code == "INTERNAL"
        assert here.counted("otelcol_receiver_failed_spans") == 1
        sink.error, sink.willing = None, False
        assert (await here.send("grpc", Signal.TRACES, data)).ok
        assert (len(sink.quick), len(sink.batches)) == (1, 1)
        assert here.counted("otelcol_receiver_accepted_spans") == 2
        sink.willing, many = True, traces(*(span() for _ in range(100))).SerializeToString()
        assert (await here.send("grpc", Signal.TRACES, many)).ok
        assert (len(sink.quick), len(sink.batches)) == (1, 2)
        assert here.counted("otelcol_receiver_accepted_spans") == 102


def plain(signal: Signal, body: bytes) -> Batch:
    from collector.model import open_envelope

    return open_envelope(signal, body)


async def test_health_tells_of_services_it_does_not_know() -> None:
    """R-1104."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with running() as here:
        stub = health_pb2_grpc.HealthStub(here.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="other"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await here.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
