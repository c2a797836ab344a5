"""What the calls of one kind add up to, so that counters are raised once for many calls and not once per call."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from collector.processors.llm_cost.usage import Usage

Call = tuple["Tally", int, float, float | None, Usage | None, float | None, bytes]
"""One counted call: start (ns), duration and time to the first token (seconds), usage, amount (USD), trace id."""
LATENCY, FIRST, AMOUNT = 2, 3, 5
"""Places of a call's values that histograms take."""


def tokens(usage: Usage | None) -> tuple[int, int, int]:
    """Input, output and all tokens of a call."""
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
        "amounts", "cache_read", "cache_write", "calls", "cost", "duration", "firsts", "labels", "latencies", "limited", "name",
        "output", "prompt", "reason", "source", "starts", "status", "tokens", "told", "uncached", "unpriced", "unsplit", "whole",
    )  # fmt: skip

    def __init__(
        self, labels: tuple[str, ...], status: str, source: str = "", reason: str = "", name: str = "", limited: bool = False
    ) -> None:
        self.labels, self.status, self.source, self.reason, self.name = labels, status, source, reason, name
        self.limited = limited
        self.calls: list[Call] = []

    def sum_up(self) -> None:
        """Add the calls up; the sums exist from now on."""
        _, self.starts, self.latencies, firsts, usages, amounts, _ = zip(*self.calls, strict=True)
        self.firsts = [first for first in firsts if first is not None]
        self.amounts = [amount for amount in amounts if amount is not None]
        self.duration, self.cost = fsum(self.latencies), fsum(self.amounts)
        self._count_tokens([usage for usage in usages if usage is not None])
        self.unpriced = 0
        if len(self.amounts) < len(amounts):
            free = [usage for usage, amount in zip(usages, amounts, strict=True) if amount is None]
            self.unpriced = len(free) if self.status == "success" else sum(tokens(usage)[2] > 0 for usage in free)

    def _count_tokens(self, usages: Sequence[Usage]) -> None:
        self.told = bool(usages)
        self.uncached = self.cache_read = self.cache_write = self.output = 0
        totals: Sequence[int] = ()
        if usages:
            uncached, cached, five, hour, output, _, _, _, _, _, _, _, total, _, _ = zip(*usages, strict=True)
            self.uncached, self.cache_read, self.output = sum(uncached), sum(cached), sum(output)
            self.cache_write = sum(five) + sum(hour)
            totals = [whole for whole in total if whole is not None]
        self.whole, self.unsplit = bool(totals), sum(totals)
        self.prompt = self.uncached + self.cache_read + self.cache_write
        self.tokens = self.prompt + self.output + self.unsplit

    def forget(self) -> None:
        """Let go of what was booked; labels and status stay for the history."""
        del self.calls, self.starts, self.latencies, self.firsts, self.amounts
