"""What the calls of one kind add up to, so that counters are raised once for many calls and not once per call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import fsum

from collector.compiled import compiled_module
from collector.processors.llm_cost.usage import Usage

Call = tuple["Tally", int, float, float | None, Usage | None, float | None, bytes]
"""One counted call: start (ns), duration and time to the first token (seconds), usage, amount (USD), trace id."""
LATENCY, FIRST, AMOUNT = 2, 3, 5
"""Places of a call's values that histograms take."""
Sums = tuple[list[float], list[float], list[float], int, int, int, int, int, int, int, int, int]
"""Latencies, times to the first token, amounts; first and last start; tokens uncached, read from and written to a cache, of the
output, and not split; calls that told of tokens, and those that told of a total only."""
_compiled = compiled_module("processors.llm_cost._calls")


def tokens(usage: Usage | None) -> tuple[int, int, int]:
    """Input, output and all tokens of a call."""
    if usage is None:
        return 0, 0, 0
    prompt, output = usage.prompt, usage.output
    return prompt, output, usage.total if usage.total is not None else prompt + output


def add_up(calls: Sequence[Call]) -> Sums:
    """The sums over calls, of which there is one at least."""
    _, starts, latencies, firsts, usages, amounts, _ = zip(*calls, strict=True)
    told = [usage for usage in usages if usage is not None]
    uncached, cached, five, hour, output, _, _, _, _, _, _, _, totals, _, _ = zip(*told, strict=True) if told else [()] * 15
    whole = [total for total in totals if total is not None]
    return (
        list(latencies),
        [first for first in firsts if first is not None],
        [amount for amount in amounts if amount is not None],
        min(starts), max(starts),
        sum(uncached), sum(cached), sum(five) + sum(hour), sum(output), sum(whole), len(told), len(whole),
    )  # fmt: skip


_add_up: Callable[[list[Call]], Sums] = add_up if _compiled is None else _compiled.add_up


class Tally:
    """Calls with the same label values. `labels`: service, provider, model, operation and the user's further ones.

    `source` says where the amounts come from, `reason` why there are none or why they are incomplete, `name` is the model as its
    emitter wrote it, `limited` that a rate limit refused the calls.
    """

    __slots__ = (
        "amounts", "cache_read", "cache_write", "calls", "cost", "duration", "earliest", "firsts", "labels", "latencies",
        "latest", "limited", "name", "output", "prompt", "reason", "source", "status", "tokens", "told", "uncached", "unpriced",
        "unsplit", "whole",
    )  # fmt: skip

    def __init__(
        self, labels: tuple[str, ...], status: str, source: str = "", reason: str = "", name: str = "", limited: bool = False
    ) -> None:
        self.labels, self.status, self.source, self.reason, self.name = labels, status, source, reason, name
        self.limited = limited
        self.calls: list[Call] = []

    def sum_up(self) -> None:
        """Add the calls up; the sums exist from now on."""
        (
            self.latencies, self.firsts, self.amounts, self.earliest, self.latest,
            self.uncached, self.cache_read, self.cache_write, self.output, self.unsplit, self.told, self.whole,
        ) = _add_up(self.calls)  # fmt: skip
        self.duration, self.cost = fsum(self.latencies), fsum(self.amounts)
        self.prompt = self.uncached + self.cache_read + self.cache_write
        self.tokens = self.prompt + self.output + self.unsplit
        self.unpriced = 0
        if len(self.amounts) < len(self.calls):
            free = [call[4] for call in self.calls if call[AMOUNT] is None]
            self.unpriced = len(free) if self.status == "success" else sum(tokens(usage)[2] > 0 for usage in free)

    def forget(self) -> None:
        """Let go of what was booked; labels and status stay for the history."""
        del self.calls, self.latencies, self.firsts, self.amounts
