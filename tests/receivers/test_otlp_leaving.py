"""The OTLP receiver and clients that leave, hang or watch: everything is given back, nobody keeps the port open."""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from typing import Any

import grpc
import pytest

from collector.component import Accept
from collector.errors import Refused
from collector.model import Signal
from collector.receivers.otlp import reads
from collector.receivers.otlp.aio_calls import Reads
from tests.receivers.otlp_clients import SERVICES, Running, running
from tests.receivers.test_otlp import sample
from tests.support import eventually

EXPORT = f"/{SERVICES[Signal.TRACES]}/Export"
OWN = [("grpc.use_local_subchannel_pool", 1)]


class Never(Accept):
    """An accept that waits for ever, as for a destination that is down and a client that waits for the result."""

    def __init__(self) -> None:
        self.inside = 0

    async def __call__(self, batch: Any) -> None:
        self.inside += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.inside -= 1


def never(here: Running) -> Never:
    waiting = Never()
    for server in here.receiver._servers:
        server._intake._accept = dict.fromkeys(Signal, waiting)
    return waiting


@pytest.mark.parametrize("transport", ["grpc", "protobuf", "json"])
async def test_a_client_that_leaves_while_it_waits_gives_everything_back(transport: str) -> None:
    async with running() as here:
        waiting = never(here)
        call = asyncio.create_task(here.send(transport, Signal.TRACES, sample(Signal.TRACES)))
        await eventually(lambda: waiting.inside == 1 and here.host.budget.used)
        call.cancel()
        await asyncio.wait([call])
        await eventually(lambda: waiting.inside == 0 and here.host.budget.used == 0)
        await eventually(lambda: here.counted("collector_receiver_requests") == 1)


async def test_no_byte_stays_reserved_whenever_clients_leave() -> None:
    chance = random.Random(7)
    async with running() as here:
        never(here)
        calls = [
            asyncio.create_task(here.send(chance.choice(["grpc", "protobuf", "json"]), Signal.TRACES, sample(Signal.TRACES)))
            for _ in range(60)
        ]
        for call in calls:
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.003]))
            call.cancel()
        await asyncio.wait(calls)
        await eventually(lambda: here.host.budget.used == 0)
        server = here.receiver._servers[0]
        await eventually(lambda: not server._server.reads.running and server._server.reads.waiting == 0)


@pytest.mark.parametrize("how", ["cancels", "runs out of time", "disconnects"])
async def test_a_client_that_leaves_before_its_message_came_counts_as_cancelled(how: str) -> None:
    async with running() as here:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{here.receiver.ports['grpc']}", OWN)
        call = channel.stream_unary(EXPORT)(timeout=0.2 if how == "runs out of time" else None)
        await call.wait_for_connection()
        await eventually(lambda: here.receiver._servers[0]._server.reads.running == 1 or call.done())
        if how == "cancels":
            call.cancel()
        await asyncio.wait([asyncio.ensure_future(channel.close() if how == "disconnects" else call.code())])
        await eventually(lambda: here.counted("collector_receiver_requests") == 1)
        assert here.counted("collector_receiver_requests", "CANCELLED") == 1
        await channel.close()


async def test_a_call_without_a_message_is_told_so() -> None:
    async with running() as here:
        call = here.channel.stream_unary(EXPORT)()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await call.details() == "the call has no message"
        assert here.counted("collector_receiver_requests", "INVALID_ARGUMENT") == 1


async def test_clients_that_leave_at_any_stage_of_a_call_leave_nothing() -> None:
    chance = random.Random(11)
    async with running() as here:
        waiting, server = never(here), here.receiver._servers[0]._server

        async def client() -> None:
            call = here.channel.stream_unary(EXPORT)(timeout=chance.choice([None, 0.01]))
            stages = [
                call.wait_for_connection,
                *[partial(call.write, sample(Signal.TRACES))] * chance.choice([1, 2]),
                call.done_writing,
            ]
            try:
                for stage in stages[: chance.randrange(len(stages) + 1)]:
                    await stage()
                    await asyncio.sleep(chance.choice([0, 0.002]))
            except Exception:
                pass  # it ran out of time, or was refused for its second message: the library tells it in many ways
            call.cancel()

        await asyncio.gather(*(client() for _ in range(200)))
        await eventually(lambda: not (server.reads.running or server.reads.waiting or waiting.inside or here.host.budget.used))
        started = time.monotonic()
        await here.receiver.stop()
        assert time.monotonic() - started < 2


async def test_a_client_that_watches_health_does_not_keep_the_port_open() -> None:
    """R-1104."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with running() as here:
        watch = health_pb2_grpc.HealthStub(here.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == 1
        started = time.monotonic()
        await here.receiver.stop()
        assert time.monotonic() - started < 2
        watch.cancel()


async def test_a_read_that_has_just_run_out_of_time_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "CONTENDED", 0.0)
    places, told = Reads(1), []

    async def read() -> None:
        try:
            async with places.slot():
                await asyncio.Event().wait()
        except Refused:
            told.append(1)

    first = asyncio.create_task(read())
    await eventually(lambda: places._running)
    limit = next(iter(places._running))
    limit.reschedule(0.0)
    others: list[asyncio.Task[None]] = []

    def arrive() -> None:
        assert limit.expired()
        others.extend(asyncio.create_task(read()) for _ in range(3))

    await _at_expiry(limit, arrive)
    await asyncio.wait_for(asyncio.gather(first, *others[:-1]), 5)
    others[-1].cancel()
    await asyncio.wait(others)
    assert len(told) == 3
    assert not places._free.locked()


async def _at_expiry(limit: asyncio.Timeout, then: Any) -> None:
    done = asyncio.Event()

    def look() -> None:
        if limit.expired():
            then()
            done.set()
        else:
            asyncio.get_running_loop().call_soon(look)

    look()
    await done.wait()


async def test_reads_that_begin_while_others_wait_get_the_short_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "CONTENDED", 0.05)
    async with running({"max_recv_msg_size_mib": 64}) as here:
        export = f"/{SERVICES[Signal.TRACES]}/Export"
        stalled = [here.channel.stream_unary(export)() for _ in range(7)]
        server = here.receiver._servers[0]
        await eventually(lambda: server._server.reads.waiting == 5)
        assert (await asyncio.wait_for(here.send("grpc", Signal.TRACES, sample(Signal.TRACES)), 5)).ok
        for call in stalled:
            call.cancel()
        await eventually(lambda: not server._server.reads.running)
        assert grpc.StatusCode.UNAVAILABLE in [await call.code() for call in stalled]
