"""service.drain: the last flush is taken, what is held is sent, and the deadline holds."""

import asyncio
import os
import signal

import pytest

from collector.service.drain import quiet
from tests.service.sidecar import BASE, TWO, books
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("quick")


async def test_after_sigterm_the_applications_last_flush_is_still_taken(sidecar):
    await sidecar.start(drain=5)
    feeder = sidecar.graph.receivers["feeder"]
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: sidecar.service.host.state() == "draining")
    assert feeder.running
    await sidecar.feed(2)
    assert await sidecar.task == 0
    assert sidecar.graph.exporters["sink"].items == 2


async def test_a_drain_ends_at_its_deadline_and_counts_what_is_left(sidecar):
    await sidecar.start(BASE.replace("{sink: {", "{sink: {down: true, "))
    await sidecar.feed(4)
    assert await sidecar.stop() == 0
    assert sidecar.terms()["dropped_shutdown"] == 4


async def test_quiet_waits_for_the_last_data_but_not_past_its_end():
    class Busy:
        last = float("inf")

    loop = asyncio.get_running_loop()
    start = loop.time()
    await quiet([Busy()], start, start + 0.1)
    assert 0.09 < loop.time() - start < 1


async def test_a_receiver_that_is_slow_to_close_does_not_take_the_time_to_send(sidecar):
    text = TWO.replace("processors: []", "processors: [holder]")
    await sidecar.start(text, drain=1)
    await sidecar.feed(3)
    feeder = sidecar.graph.receivers["feeder"]
    closed = asyncio.Event()
    feeder.stop = closed.wait
    assert await sidecar.stop() == 0
    assert books(sidecar)["sink"]["delivered"] == 3
    closed.set()


async def test_ticks_go_on_while_draining(sidecar):
    await sidecar.start(drain=5)
    ticks = []
    sidecar.graph.pipelines["traces"].tick = lambda: ticks.append(sidecar.service.host.state())
    sidecar.service._signalled()
    await eventually(lambda: "draining" in ticks or sidecar.task.done())
    assert "draining" in ticks
    assert await sidecar.task == 0


async def test_a_signal_during_a_reload_drains_everything(sidecar):
    await sidecar.start(TWO, drain=3)
    await sidecar.feed(3)
    sidecar.file.write_text(TWO.replace("sink: {", "sink: {mark: 1, ").replace("feeder: {}", "feeder: {mark: 1}"))
    sidecar.service.reloads.request()
    await asyncio.sleep(0)
    assert await sidecar.stop() == 0
    shown = books(sidecar)
    assert shown["sink"]["delivered"] == shown["sink/b"]["delivered"] == 3
