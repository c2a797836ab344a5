"""What the calls of one kind in one batch add up to, so that counters are raised once per batch and not once per call."""

from __future__ import annotations

from dataclasses import dataclass, field

from collector.processors.llm_cost.usage import Usage


@dataclass(slots=True, eq=False)
class Tally:
    """Calls with the same label values. `labels`: service, provider, model, operation and the user's further ones."""

    labels: tuple[str, ...]
    status: str
    source: str = ""
    """Where the amounts come from."""
    reason: str = ""
    """Why there are none, or why they are incomplete."""
    name: str = ""
    """The model as its emitter wrote it."""
    limited: bool = False
    """Refused by a rate limit."""
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    amounts: list[float] = field(default_factory=list)
    uncached: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    unsplit: int = 0
    """Tokens of calls of which only a total is known."""
    unpriced: int = 0
    told: bool = False
    """Some call told its usage; with `whole` only its total."""
    whole: bool = False

    def add(self, duration: float, first: float | None, usage: Usage | None, amount: float | None) -> tuple[int, int, int]:
        """Count one call; returns its tokens: input, output and all."""
        self.latencies.append(duration)
        if first is not None:
            self.firsts.append(first)
        if amount is not None:
            self.amounts.append(amount)
        prompt = output = total = 0
        if usage is not None:
            self.told = True
            written = usage.write_5m + usage.write_1h
            prompt, output = usage.uncached + usage.cache_read + written, usage.output
            total = prompt + output
            self.uncached += usage.uncached
            self.cache_read += usage.cache_read
            self.cache_write += written
            self.output += output
            if usage.total is not None:
                self.whole = True
                total = usage.total
                self.unsplit += total
        if amount is None and (total or self.status == "success"):
            self.unpriced += 1
        return prompt, output, total

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
        self.latencies, self.firsts, self.amounts = [], [], []
