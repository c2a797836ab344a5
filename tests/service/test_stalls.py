"""service.stalls: what is late is told, and how often."""

import asyncio
import time

from collector.meters import Meters
from collector.pipeline.admission import MUCH
from collector.service import stalls as module
from collector.service.stalls import BEAT, Stalls
from tests.support import eventually


def shown(meters: Meters) -> tuple[float, float]:
    gauge, counter = (meters.find(f"collector_event_loop_{name}") for name in ("longest_stall_seconds", "stalls"))
    assert gauge is not None
    assert counter is not None
    return gauge.value(), counter.value()


def hold_the_loop(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def test_a_loop_that_is_in_time_has_no_stall():
    meters = Meters()
    stalls = Stalls(meters)
    for late in (0.0, -0.001):
        stalls.look(late)
    assert stalls.longest == 0
    assert shown(meters) == (0, 0)


def test_the_longest_stall_stands_and_every_long_one_is_counted():
    meters = Meters()
    stalls = Stalls(meters)
    for late in (0.03, 0.25, 0.0, 0.15, 0.07):
        stalls.look(late)
    assert stalls.longest == 0.25
    assert shown(meters) == (0.25, 2)


async def test_a_callback_that_holds_the_loop_is_seen_while_it_is_looked_at_closely():
    meters = Meters()
    stalls = Stalls(meters)
    stalls.closely()
    hold_the_loop(0.2)
    await eventually(lambda: stalls.longest > 0.1)
    assert stalls.longest >= 0.2 - BEAT - 0.01
    assert shown(meters) == (stalls.longest, 1)


async def test_close_looks_go_on_until_all_has_been_calm_for_a_while_and_begin_again(monkeypatch):
    monkeypatch.setattr(module, "CALM", 5 * BEAT)
    stalls, looks = Stalls(Meters()), []
    monkeypatch.setattr(stalls, "look", looks.append)
    for _ in range(2):
        looks.clear()
        for _ in range(3):
            stalls.closely()
        await eventually(lambda: stalls._timer is None)
        assert len(looks) in range(2, 8)  # one every BEAT at most, of one timer


async def test_a_stall_that_nobody_expected_is_seen_by_the_tick(sidecar):
    await sidecar.start()
    stalls = sidecar.service.host.stalls
    before = max(stalls.longest, 0.05)
    for _ in range(20):  # the tick is due in one of them
        hold_the_loop(before + 0.07)
        await asyncio.sleep(0.001)
        if stalls.longest > before:
            break
    assert stalls.longest > before


async def test_a_large_request_makes_the_service_look_closely(sidecar):
    await sidecar.start()
    host = sidecar.service.host
    with host.budget.hold(MUCH - 1):
        assert host.stalls._timer is None
    with host.budget.hold(MUCH):
        assert host.stalls._timer is not None
