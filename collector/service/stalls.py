"""How long the event loop was held: while it is, nobody is answered and nothing is sent."""

from __future__ import annotations

import asyncio
import time

from collector.meters import Meters

BEAT, CALM = 0.01, 1.0
"""Seconds between two looks while large requests are worked on, and after the last of them: a stall is measured up to BEAT too
short then. At other times only the service's tick looks: waking an idle process 100 times a second costs 1 % of a core."""
LONG = 0.1
"""Seconds from which a stall is counted."""


class Stalls:
    """Compares when the loop came to a look with when it should have come. `longest`: seconds, since the start.

    The maximum stands until the end, so that no reader takes it away from another; the counter says whether it goes on.
    """

    def __init__(self, meters: Meters) -> None:
        self.longest = 0.0
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._gauge = meters.gauge(
            "collector_event_loop_longest_stall_seconds", "Longest time the event loop was held since the start."
        )
        self._count = meters.counter("collector_event_loop_stalls", "Times the event loop was held for 0.1 s or longer.", cap=0)
        self._gauge.set(0.0)
        self._count.touch()

    def look(self, late: float) -> None:
        """What was to happen came `late` seconds later."""
        if late > self.longest:
            self.longest = late
            self._gauge.set(late)
        if late >= LONG:
            self._count.add(1)

    def closely(self) -> None:
        """Look every BEAT from now on, until CALM seconds after the last call. Needs a running loop."""
        self._until = time.monotonic() + CALM
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        # a timer of the loop costs half of what a sleeping task does
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat, time.monotonic() + BEAT)

    def _beat(self, due: float) -> None:
        now = time.monotonic()
        self._timer = None
        self.look(now - due)
        if now < self._until:
            self._arm()
