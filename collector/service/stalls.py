"""How long the event loop was held: while it is, nobody is answered and nothing is sent."""

from __future__ import annotations

import asyncio
import time

from collector.meters import Meters

BEAT = 0.04
"""Seconds between two looks: a stall is measured up to this much too short; 25 looks a second cost 0.05 % of a core."""
LONG = 0.1
"""Seconds from which a stall is counted."""


class Stalls:
    """Compares when the loop came to each look with when it should have come. `longest`: seconds, since the start.

    The maximum stands until the end, so that no reader takes it away from another; the counter says whether it goes on.
    """

    def __init__(self, meters: Meters, now: float) -> None:
        self.longest = 0.0
        self._last = now
        self._gauge = meters.gauge(
            "collector_event_loop_longest_stall_seconds", "Longest time the event loop was held since the start."
        )
        self._count = meters.counter("collector_event_loop_stalls", "Times the event loop was held for 0.1 s or longer.", cap=0)
        self._gauge.set(0.0)
        self._count.touch()

    def look(self, now: float) -> None:
        """Called BEAT seconds after the last look, or later. `now`: monotonic seconds."""
        late = now - self._last - BEAT
        self._last = now
        if late > self.longest:
            self.longest = late
            self._gauge.set(late)
        if late >= LONG:
            self._count.add(1)

    async def watch(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()

        def beat() -> None:  # a timer of the loop costs half of what a sleeping task does
            self._timer = loop.call_later(BEAT, beat)
            self.look(time.monotonic())

        self._last = time.monotonic()
        self._timer = loop.call_later(BEAT, beat)
        try:
            await loop.create_future()
        finally:
            self._timer.cancel()
