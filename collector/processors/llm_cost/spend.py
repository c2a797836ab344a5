"""What was spent so far, in memory and bounded: totals, by model, by hour, and the last calls. Numbers and names only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from collector.processors.llm_cost.tally import Call, Tally, tokens

_MODELS, _HOURS = 500, 24 * 7
_HOUR = 3600 * 10**9


@dataclass(slots=True)
class Sum:
    """A running total."""

    calls: int = 0
    failed: int = 0
    timeouts: int = 0
    prompt: int = 0
    completion: int = 0
    tokens: int = 0
    cost: float = 0.0
    duration: float = 0.0
    unpriced: int = 0

    def add(self, tally: Tally) -> None:
        """Count the calls of one tally."""
        calls = len(tally.latencies)
        self.calls += calls
        self.failed += calls if tally.status != "success" else 0
        self.timeouts += calls if tally.status == "timeout" else 0
        self.prompt += tally.prompt
        self.completion += tally.output
        self.tokens += tally.tokens
        self.duration += tally.duration
        self.cost += tally.cost
        self.unpriced += tally.unpriced


class Spend:
    """The ledger of one processor."""

    def __init__(self, most: int = 1000) -> None:
        self._all = Sum()
        self._models: dict[str, Sum] = {}
        self._hours: dict[int, list[int]] = {}
        self._last: deque[Call] = deque(maxlen=most)
        self.keep = self._last.append
        """Keep one call for the history; its sums come with its tally."""
        self.keep_all = self._last.extend

    def book(self, tally: Tally) -> None:
        """Add the sums of a batch's calls of one kind."""
        self._all.add(tally)
        model = tally.labels[2]
        if model not in self._models and len(self._models) >= _MODELS:
            model = "other"
        self._models.setdefault(model, Sum()).add(tally)
        hour = tally.earliest // _HOUR
        if hour == tally.latest // _HOUR:
            self._book_hour(hour, tally.prompt, tally.output, tally.tokens)
        else:
            for _, at, _, _, usage, _, _ in tally.calls:
                self._book_hour(at // _HOUR, *tokens(usage))

    def _book_hour(self, hour: int, prompt: int, output: int, total: int) -> None:
        sums = self._hours.setdefault(hour, [0, 0, 0])
        sums[0] += prompt
        sums[1] += output
        sums[2] += total
        if len(self._hours) > _HOURS:
            del self._hours[min(self._hours)]

    def summary(self) -> dict[str, Any]:
        """Totals and averages; zeros and empty lists before the first call (R-415, R-416)."""
        total = self._all
        calls = total.calls or 1
        return {
            "total_calls": total.calls,
            "successful_calls": total.calls - total.failed,
            "failed_calls": total.failed,
            "timeouts": total.timeouts,
            "unpriced_calls": total.unpriced,
            "total_cost": total.cost,
            "total_tokens": total.tokens,
            "average_cost_per_call": total.cost / calls,
            "average_tokens_per_call": total.tokens / calls,
            "average_duration": total.duration / calls,
            "models_used": sorted(self._models),
            "by_model": [
                {"model": name, "calls": s.calls, "failed": s.failed, "prompt_tokens": s.prompt,
                 "completion_tokens": s.completion, "total_tokens": s.tokens, "cost": s.cost, "unpriced": s.unpriced}
                for name, s in sorted(self._models.items(), key=lambda pair: -pair[1].cost)
            ],
        }  # fmt: skip

    def history(self) -> list[dict[str, Any]]:
        """The last calls, oldest first, ready for JSON (R-417)."""
        return [_shown(call) for call in self._last]

    def hours(self, now: float, last: int = 24) -> list[dict[str, Any]]:
        """Tokens of each of the last hours that had calls, sorted; hours are UTC (R-418)."""
        first = int(now // 3600) - last
        return [
            {
                "hour": datetime.fromtimestamp(hour * 3600, UTC).isoformat(),
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": total,
            }
            for hour, (prompt, completion, total) in sorted(self._hours.items())
            if hour > first
        ]


def _shown(call: Call) -> dict[str, Any]:
    tally, at, duration, _, usage, amount, trace_id = call
    prompt, output, total = tokens(usage)
    service, provider, model = tally.labels[:3]
    return {
        "timestamp": datetime.fromtimestamp(at / 1e9, UTC).isoformat(),
        "model": model,
        "provider": provider,
        "service": service,
        "tokens": {"prompt": prompt, "completion": output, "total": total},
        "duration_seconds": duration,
        "cost_dollars": amount,
        "status": tally.status,
        "trace_id": trace_id.hex(),
    }
