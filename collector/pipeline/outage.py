"""Says in the own log that a destination does not take data, and when it takes some again: seldom, so that it is read."""

from __future__ import annotations

import logging

EVERY = 30.0  # seconds between two warnings about one destination


class Outage:
    """What one destination has told about its failures. Times are monotonic seconds."""

    def __init__(self, name: str, log: logging.Logger) -> None:
        self._name, self._log = name, log
        self._told = False
        self._next = float("-inf")

    def failing(self, now: float, error: str, queued: int, wait: float) -> None:
        """A send failed and is tried again in `wait` seconds; `queued` items wait."""
        if now < self._next:
            return
        self._told, self._next = True, now + EVERY
        self._log.warning(
            "cannot deliver: kept in the queue and tried again",
            extra={"exporter": self._name, "error": error, "queued_items": queued, "next_try": f"{wait:.0f} s"},
        )

    def paused(self, now: float, error: str, fix: str, queued: int, wait: float) -> None:
        """The settings of the destination are wrong; `queued` items wait while one record in `wait` seconds is tried."""
        self._told, self._next = True, now + EVERY
        self._log.warning(
            "paused, the settings of this exporter are wrong: kept in the queue, now and then one request is tried",
            extra={"exporter": self._name, "fix": fix, "error": error, "queued_items": queued, "next_try": f"{wait:.0f} s"},
        )

    def over(self, queued: int) -> None:
        """A send was accepted; `queued` items still wait."""
        if self._told:
            self._told = False
            self._log.info("delivers again", extra={"exporter": self._name, "queued_items": queued})
