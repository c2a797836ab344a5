"""service.stalls: what is late is told, and how often."""

import asyncio
import time

import pytest

from collector.meters import Meters
from collector.service.stalls import BEAT, Stalls
from tests.support import eventually


def shown(meters: Meters) -> tuple[float, float]:
    gauge, counter = (meters.find(f"collector_event_loop_{name}") for name in ("longest_stall_seconds", "stalls"))
    assert gauge is not None
    assert counter is not None
    return gauge.value(), counter.value()


def test_a_loop_that_is_in_time_has_no_stall():
    meters = Meters()
    stalls = Stalls(meters, 10.0)
    for number in range(1, 100):
        stalls.look(10.0 + number * BEAT)
    assert stalls.longest == pytest.approx(0, abs=1e-9)
    assert shown(meters) == (pytest.approx(0, abs=1e-9), 0)


def test_the_longest_stall_stands_and_every_long_one_is_counted():
    meters, now = Meters(), 10.0
    stalls = Stalls(meters, now)
    for late in (0.03, 0.25, 0.0, 0.15, 0.07):
        now += BEAT + late
        stalls.look(now)
    assert stalls.longest == pytest.approx(0.25)
    assert shown(meters) == (pytest.approx(0.25), 2)


def test_a_look_that_comes_early_hides_no_later_stall():
    meters = Meters()
    stalls = Stalls(meters, 10.0)
    stalls.look(10.0 + BEAT / 2)
    stalls.look(10.0 + BEAT / 2 + BEAT + 0.12)
    assert stalls.longest == pytest.approx(0.12)


async def test_a_callback_that_holds_the_loop_is_seen():
    meters = Meters()
    stalls = Stalls(meters, 0.0)
    watching = asyncio.create_task(stalls.watch())
    await asyncio.sleep(0)
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        pass
    await eventually(lambda: stalls.longest > 0)
    watching.cancel()
    assert stalls.longest >= 0.2 - BEAT - 0.01
    assert shown(meters) == (stalls.longest, 1)
