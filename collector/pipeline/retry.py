"""When to send again: backoff with jitter for each record, one probe at a time towards a destination that is down."""

from __future__ import annotations

import random
from collections.abc import Callable

from collector.fields import Retry

LONGEST_DELAY = 300.0  # a backend's Retry-After beyond that is not believed
_DOWN_AFTER, _DOWN_FAILURES = 5.0, 5


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
