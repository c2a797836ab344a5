"""What was spent so far, in memory and bounded: totals, by model, by hour, and the last calls. Numbers and names only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

_MODELS, _HOURS = 500, 24 * 7


class Record(NamedTuple):
    """One counted call. `start` is wall time in seconds; `cost` is None when it has no price."""

    start: float
    model: str
    provider: str
    service: str
    prompt: int
    completion: int
    duration: float
    cost: float | None
    status: str
    trace_id: str
    total: int = 0


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

    def add(self, record: Record) -> None:
        """Count one call."""
        self.calls += 1
        self.failed += record.status != "success"
        self.timeouts += record.status == "timeout"
        self.prompt += record.prompt
        self.completion += record.completion
        self.tokens += record.total
        self.duration += record.duration
        if record.cost is None:
            self.unpriced += record.status == "success" or record.total > 0
        else:
            self.cost += record.cost


class Spend:
    """The ledger of one processor."""

    def __init__(self, most: int = 1000) -> None:
        self._all = Sum()
        self._models: dict[str, Sum] = {}
        self._hours: dict[int, Sum] = {}
        self._last: deque[Record] = deque(maxlen=most)

    def add(self, record: Record) -> None:
        """Book one call."""
        self._all.add(record)
        self._last.append(record)
        model = record.model if record.model in self._models or len(self._models) < _MODELS else "other"
        self._models.setdefault(model, Sum()).add(record)
        hour = int(record.start // 3600)
        self._hours.setdefault(hour, Sum()).add(record)
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
        return [
            {
                "timestamp": datetime.fromtimestamp(r.start, UTC).isoformat(),
                "model": r.model,
                "provider": r.provider,
                "service": r.service,
                "tokens": {"prompt": r.prompt, "completion": r.completion, "total": r.total},
                "duration_seconds": r.duration,
                "cost_dollars": r.cost,
                "status": r.status,
                "trace_id": r.trace_id,
            }
            for r in self._last
        ]

    def hours(self, now: float, last: int = 24) -> list[dict[str, Any]]:
        """Tokens of each of the last hours that had calls, sorted; hours are UTC (R-418)."""
        first = int(now // 3600) - last
        return [
            {
                "hour": datetime.fromtimestamp(hour * 3600, UTC).isoformat(),
                "prompt_tokens": s.prompt,
                "completion_tokens": s.completion,
                "total_tokens": s.tokens,
            }
            for hour, s in sorted(self._hours.items())
            if hour > first
        ]
