"""What the calls of one kind in one batch add up to, so that counters are raised once per batch and not once per call."""

from __future__ import annotations

from typing import NamedTuple

from collector.processors.llm_cost.usage import Usage


class Call(NamedTuple):
    """One counted call: `at` in nanoseconds, `duration` and `first` (time to the first token) in seconds, `amount` in USD."""

    tally: Tally
    at: int
    duration: float
    first: float | None
    usage: Usage | None
    amount: float | None
    trace_id: bytes

    def tokens(self) -> tuple[int, int, int]:
        """Input, output and all tokens."""
        usage = self.usage
        if usage is None:
            return 0, 0, 0
        prompt, output = usage.prompt, usage.output
        return prompt, output, usage.total if usage.total is not None else prompt + output


class Tally:
    """Calls with the same label values. `labels`: service, provider, model, operation and the user's further ones.

    `source` says where the amounts come from, `reason` why there are none or why they are incomplete, `name` is the model as its
    emitter wrote it, `limited` that a rate limit refused the calls.
    """

    __slots__ = (
        "amounts", "cache_read", "cache_write", "calls", "firsts", "labels", "latencies", "limited", "name", "output", "reason",
        "source", "status", "told", "uncached", "unpriced", "unsplit", "whole",
    )  # fmt: skip

    def __init__(
        self, labels: tuple[str, ...], status: str, source: str = "", reason: str = "", name: str = "", limited: bool = False
    ) -> None:
        self.labels, self.status, self.source, self.reason, self.name = labels, status, source, reason, name
        self.limited = limited
        self.calls: list[Call] = []

    def sum_up(self) -> None:
        """Add the calls up; the sums exist from now on."""
        calls = self.calls
        self.latencies = [call.duration for call in calls]
        self.firsts = [call.first for call in calls if call.first is not None]
        self.amounts = [call.amount for call in calls if call.amount is not None]
        usages = [call.usage for call in calls if call.usage is not None]
        self.told = bool(usages)
        self.uncached = sum([usage.uncached for usage in usages])
        self.cache_read = sum([usage.cache_read for usage in usages])
        self.cache_write = sum([usage.write_5m + usage.write_1h for usage in usages])
        self.output = sum([usage.output for usage in usages])
        totals = [usage.total for usage in usages if usage.total is not None]
        self.whole, self.unsplit = bool(totals), sum(totals)
        self.unpriced = 0
        if len(self.amounts) < len(calls):
            self.unpriced = sum(c.amount is None and (self.status == "success" or c.tokens()[2] > 0) for c in calls)

    @property
    def prompt(self) -> int:
        """All input tokens."""
        return self.uncached + self.cache_read + self.cache_write

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt + self.output + self.unsplit

    def forget(self) -> None:
        """Let go of what was booked; labels and status stay for the history."""
        del self.calls, self.latencies, self.firsts, self.amounts
