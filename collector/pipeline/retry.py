"""When to send again: backoff with jitter for each record, one probe at a time towards a destination that is down.

And seldom one record towards a destination whose token or address is wrong (reliability section 5).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from collector.fields import Retry
from collector.model import Signal

LONGEST_DELAY = 300.0  # a backend's Retry-After beyond that is not believed
_DOWN_AFTER, _DOWN_FAILURES = 5.0, 5
_REFUSALS = 3


def backoff(policy: Retry, attempt: int, rnd: Callable[[], float] = random.random) -> float:
    """Seconds to wait after failed attempt number `attempt` (0 = the first)."""
    base = min(policy.max_interval, policy.initial_interval * policy.multiplier ** min(attempt, 64))
    return base * (1 + policy.randomization_factor * (2 * rnd() - 1))


class Pulse:
    """Whether one destination is up. Times are monotonic seconds.

    Down = no success for 5 s and at least 5 failures in a row; then one probe at a time, until the first success.
    """

    def __init__(self, now: float) -> None:
        self._success = now
        self._failures = 0
        self._asked = self._probe = 0.0

    def succeeded(self, now: float) -> None:
        """A send was accepted."""
        self._success, self._failures, self._probe = now, 0, 0.0

    def failed(self, now: float, wait: float, asked: float) -> None:
        """A send failed; `wait` seconds until that record's next try, `asked` = the delay the backend itself named, else 0."""
        self._failures += 1
        if asked:
            self._asked = max(self._asked, now + asked)
        if self.down(now):
            self._probe = max(self._probe, now + wait)

    @property
    def not_before(self) -> float:
        """No send before that time. What a backend asked for holds whatever an earlier send comes back with."""
        return max(self._asked, self._probe)

    def down(self, now: float) -> bool:
        """True while only probes may be sent."""
        return self._failures >= _DOWN_FAILURES and now - self._success >= _DOWN_AFTER


class Pause:
    """Whether one destination is held back because its token or address is wrong. Times are monotonic seconds.

    On = three records in a row were refused so; then one record in `interval` seconds, until the first success. A signal of
    which nothing was refused yet is not held back. Where one signal is delivered, another one that is refused is just not
    taken there (traces at a backend without metrics): it cannot bring on a pause again before it was delivered once.
    """

    def __init__(self, interval: float) -> None:
        self.on = False
        self._interval = interval
        self._in_a_row = 0
        self._probe = 0.0
        self._refused: dict[Signal, None] = {}  # the one refused last is last
        self._not_taken: set[Signal] = set()

    def refused(self, signal: Signal, now: float) -> bool:
        """A record was refused because of the settings; True when the pause begins with it."""
        if signal in self._not_taken and not self.on:
            return False
        self._in_a_row += 1
        self._refused.pop(signal, None)
        self._refused[signal] = None
        self.tried(now)
        begins = not self.on and self._in_a_row >= _REFUSALS
        self.on = self.on or begins
        return begins

    def interrupted(self) -> None:
        """A record was refused because of its data: the refusals before it do not count as in a row."""
        if not self.on:
            self._in_a_row = 0
            self._refused.clear()

    def succeeded(self, signal: Signal) -> None:
        """A record was accepted."""
        if self.on:
            self._not_taken.update(self._refused)
        self._not_taken.discard(signal)
        self.on = False
        self.interrupted()

    def tried(self, now: float) -> None:
        """A record was sent or refused: the next one has to wait."""
        self._probe = now + self._interval

    def turn(self, now: float) -> list[Signal] | None:
        """Signals one record of which may be sent now, in that order; None = no pause."""
        if not self.on:
            return None
        return [signal for signal in Signal if signal not in self._refused] + [*(self._refused if self.wait(now) is None else ())]

    def wait(self, now: float) -> float | None:
        """Seconds until the next try; None when it is due, or there is no pause."""
        return self._probe - now if self.on and self._probe > now else None
