"""Tells the user which model has no price: one warning per model and day, defects once an hour, never in the way of a batch."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

_MODELS, _DAY, _HOUR = 100, 86_400.0, 3600.0


class Complaints:
    """Collects while batches run, speaks on ticks: looking for a similar name takes 20 ms."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[tuple[str, str], float] = {}
        self._waiting: deque[tuple[str, str, str, str]] = deque()
        self._others = 0
        self._summed = 0.0
        self._defects: dict[str, int] = {}
        self._defects_said = 0.0

    def defect(self, error: str) -> None:
        """One more span that could not be read or priced because of that error."""
        self._defects[error] = self._defects.get(error, 0) + 1

    def note(self, provider: str, model: str, service: str, reason: str, now: float, calls: int = 1) -> None:
        """Some more calls without price."""
        key = (provider, model)
        last = self._said.get(key)
        if last is not None and now - last < _DAY:
            return
        if last is None and len(self._said) >= _MODELS:
            self._said = {k: at for k, at in self._said.items() if now - at < _DAY}
            if len(self._said) >= _MODELS:
                self._others += calls
                return
        self._said[key] = now
        self._waiting.append((provider, model, service, reason))

    def say_one(self, nearest: Callable[[str, str], str], now: float) -> None:
        """Log one waiting warning, and each hour how many further calls had no price, for want of one or for a defect."""
        if self._waiting:
            provider, model, service, reason = self._waiting.popleft()
            close = nearest(model[:128], provider) if reason == "unknown_model" else ""
            hint = f'; nearest known: "{close}"' if close else ""
            self._log.warning(
                "no price for model %r (provider %s, service %s)%s; add it under processors.llm_cost.prices or aliases",
                model[:128], provider, service, hint,
            )  # fmt: skip
        if self._defects and now - self._defects_said >= _HOUR:
            kinds = ", ".join(f"{error} ({spans})" for error, spans in sorted(self._defects.items()))
            self._log.warning("%d spans could not be priced: %s", sum(self._defects.values()), kinds)
            self._defects, self._defects_said = {}, now
        if self._others and now - self._summed >= _HOUR:
            self._log.warning("%d calls of further models had no price", self._others)
            self._others, self._summed = 0, now
