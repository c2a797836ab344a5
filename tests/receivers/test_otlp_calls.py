"""gRPC calls from the completion queue: bounded reads, every call ends, and the plain way where the queue cannot be used."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Refused
from collector.model import Batch, Signal
from collector.receivers.otlp import calls, grpc_server, reads
from collector.receivers.otlp.aio_calls import AioCalls
from collector.receivers.otlp.calls import Call, Calls, usable
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


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "arrived", "taken", "expired", "leave"]), st.integers(0, 10 << 20)), max_size=200
    )
)
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
        elif step == "leave" and reads.leave(size % (number + 1)):
            untaken.append(0)
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
async def served(
    handler: Callable[[Call], Reply | Awaitable[Reply]], places: Reads[Call] | None = None
) -> AsyncIterator[tuple[Calls, Any]]:
    """A server with one method, and a client's call of it."""
    server = Calls(
        [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 10 << 20)],
        {EXPORT: handler},
        places or Reads(2, 1 << 20),
        LOG,
    )
    port = server.add_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        try:
            yield server, channel.unary_unary(EXPORT) if places is None else channel.stream_unary(EXPORT)
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


class Hold:
    def grow(self, _: int) -> None: ...


async def taking(call: Any) -> Reply:
    return Reply(await call.body(Hold()))


async def test_a_call_whose_client_leaves_while_it_waits_for_room_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "CONTENDED", 60)
    async with served(taking, Reads(1, 10 << 20)) as (server, call):
        slow = call()
        await eventually(lambda: server.reads.running == 1)
        others = [call() for _ in range(20)]
        await eventually(lambda: server.reads.waiting == 20)
        for other in others[1:]:
            other.cancel()
        await eventually(lambda: server.reads.waiting == 1 and not server._calls)
        for each in (slow, others[0]):
            await each.write(b"x")
            await each.done_writing()
            assert await each == b"x"
        assert (server.reads.running, server.reads.waiting, server.reads._untaken) == (0, 0, 0)


async def test_a_server_stops_whatever_its_calls_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "CONTENDED", 60)
    inside: list[int] = []

    async def handler(call: Any) -> Reply:
        await call.body(Hold())
        inside.append(1)
        await asyncio.Event().wait()
        raise AssertionError

    async with served(handler, Reads(1, 10 << 20)) as (server, call):
        working = call()
        await working.write(b"x")
        await working.done_writing()
        await eventually(lambda: inside)
        pending = [working, *(call() for _ in range(5))]
        await eventually(lambda: (server.reads.running, server.reads.waiting) == (1, 4))
        await server.stop(0.01)
        assert server.closed
        assert not server._calls
        for each in pending:
            assert await each.code() is not grpc.StatusCode.OK


async def test_a_message_that_arrives_after_it_was_given_up_is_not_counted() -> None:
    clock, over = Clock(), []
    places: Reads[Any] = Reads(1, 10 << 20, clock)
    server: Any = SimpleNamespace(reads=places, over=False, hand_over=over.append, begin=lambda _: None)
    call = Call(server, SimpleNamespace(call=None, invocation_metadata=()), lambda _: Reply(None))
    places.enter(call)
    clock.now += LONGEST + 1
    for late in places.expired():
        late.gave_up()
    call._first(SimpleNamespace(batch_operations=[SimpleNamespace(message=lambda: bytes(1 << 20))]))
    assert over == [call]
    with pytest.raises(Refused, match="did not arrive in time"):
        await call.body(Hold())  # type: ignore[arg-type]
    assert places._untaken == 0


async def test_a_read_that_the_loop_began_is_given_up_in_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    may_take, may_end = asyncio.Event(), asyncio.Event()

    async def handler(call: Any) -> Reply:
        await may_take.wait()
        await call.body(Hold())
        await may_end.wait()
        return Reply(None)

    async with served(handler, Reads(1, 10 << 20)) as (server, call):
        large = call()
        await large.write(bytes(5 << 20))
        await large.done_writing()
        await eventually(lambda: server._calls)
        silent = call()
        await eventually(lambda: server.reads.waiting == 1)
        monkeypatch.setattr(reads, "LONGEST", 0.1)
        may_take.set()
        assert await asyncio.wait_for(silent.code(), 5) is not grpc.StatusCode.OK
        may_end.set()
        assert await large.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("way", [lambda reply: reply, later])
async def test_an_answer_that_cannot_be_sent_becomes_an_internal_error(way: Any) -> None:
    replies = iter([Reply(None, 3, "\ud800"), Reply(b"fine")])
    async with served(lambda _: way(next(replies))) as (_, call):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"x", timeout=5)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert await call(b"x", timeout=5) == b"fine"


async def test_a_message_that_does_not_fit_into_memory_ends_its_own_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "LONGEST", 0.2)

    class Narrow(calls.core.CompletionQueue):  # type: ignore[misc,name-defined]
        def poll(self, deadline: float | None = None) -> Any:
            event = super().poll(deadline)
            for operation in getattr(event, "batch_operations", ()):
                if type(operation) is calls.core.ReceiveMessageOperation and operation.message() == b"large":
                    raise MemoryError
            return event

    monkeypatch.setattr(calls.core, "CompletionQueue", Narrow)
    async with served(taking) as (_, call):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"large", timeout=10)
        assert caught.value.code() is grpc.StatusCode.INTERNAL  # Refused, by a handler that does not say it better
        assert await call(b"small", timeout=10) == b"small"


async def test_the_loop_goes_round_between_two_large_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, polled, early, handled = asyncio.get_running_loop(), threading.Event(), [], []

    def hold() -> None:  # whoever polls meanwhile would copy the next message while this callback waits for the lock
        early.append(polled.wait(0.05))

    class Watched(calls.core.CompletionQueue):  # type: ignore[misc,name-defined]
        def poll(self, deadline: float | None = None) -> Any:
            polled.set()
            event = super().poll(deadline)
            for operation in getattr(event, "batch_operations", ()):
                if type(operation) is calls.core.ReceiveMessageOperation and len(operation.message() or b"") > 4 << 20:
                    polled.clear()
                    loop.call_soon_threadsafe(hold)
            return event

    def handler(call: Call) -> Reply:
        handled.append(len(call.here() or b""))
        return Reply(b"")

    monkeypatch.setattr(calls.core, "CompletionQueue", Watched)
    async with served(handler, Reads(2, 10 << 20)) as (_, call):
        for _ in range(3):
            large = call()
            await large.write(bytes(5 << 20))
            await large.done_writing()
            assert await large == b""
    assert handled == [5 << 20] * 3
    assert early == [False] * 3


async def test_what_fails_before_it_is_a_call_keeps_no_other_from_being_taken() -> None:
    async with served(taking) as (server, call):
        for _ in range(10):
            server._called(SimpleNamespace(success=False))
        assert await call(b"x", timeout=5) == b"x"


async def test_a_call_with_an_error_is_not_kept_by_it() -> None:
    async with served(taking, Reads(2, 1 << 20)) as (server, call):
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                empty = call()
                await empty.done_writing()
                await empty.code()
            await eventually(lambda: not server._calls and not any(type(each) is Call for each in gc.get_objects()))
        finally:
            gc.enable()


async def test_a_server_that_has_stopped_handles_nothing() -> None:
    handled: list[object] = []

    async def handler(call: Any) -> Reply:
        handled.append(call)
        return Reply(b"")

    async with served(handler) as (server, call):
        await call(b"x")
        await server.stop(5)
        server.hand_over(handled[0])  # type: ignore[arg-type]
        await eventually(lambda: not server._arrived)
        assert len(handled) == 1
        with pytest.raises(asyncio.CancelledError):
            await handled[0].write(b"")  # type: ignore[attr-defined]


class Old:
    def __init__(self, *arguments: object) -> None: ...


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Server", Old),
        ("CompletionQueue", None),
        ("ReceiveMessageOperation", Old),
        ("SendStatusFromServerOperation", lambda code: 0),
    ],
)
def test_a_library_of_another_make_is_not_used(name: str, value: Any) -> None:
    assert usable(calls.core)
    assert not usable(SimpleNamespace(**(vars(calls.core) | {name: value})))
    assert not usable(None)


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


async def test_a_client_that_sends_as_fast_as_it_is_answered_does_not_keep_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(grpc_server.WAY_VARIABLE, raising=False)
    async with running() as here:
        server, loop = here.receiver._servers[0]._server, asyncio.get_running_loop()
        handled: list[int] = []
        rounds = 0

        def round_() -> None:
            nonlocal rounds
            rounds += 1
            if len(handled) < 20:
                loop.call_soon(round_)

        def again(call: Any) -> Reply:
            handled.append(rounds)
            if len(handled) < 20:
                server.hand_over(call)
            return Reply(b"")

        monkeypatch.setattr(server, "_replied", again)
        monkeypatch.setattr(calls, "_ROUND", 1)
        round_()
        await here.send("grpc", Signal.TRACES, sample(Signal.TRACES))
        await eventually(lambda: len(handled) == 20)
        monkeypatch.undo()
    assert max(Counter(handled).values()) <= 2


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
