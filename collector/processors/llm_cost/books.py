"""Where counted calls go: counters, older names, spend and complaints, raised at the end of a batch."""

from __future__ import annotations

import logging

from collector.component import Settings
from collector.processors.llm_cost.call import Seen
from collector.processors.llm_cost.counters import Aliases, Counters
from collector.processors.llm_cost.options import LABELS, Options, label_name
from collector.processors.llm_cost.prices import Resolved
from collector.processors.llm_cost.spend import Record, Spend
from collector.processors.llm_cost.tally import Tally
from collector.processors.llm_cost.unpriced import Complaints
from collector.processors.llm_cost.usage import Usage

FIELDS_AS_LABELS = ("user", "team", "agent")


class Books:
    """All numbers that one `llm_cost` shows."""

    def __init__(self, options: Options, settings: Settings) -> None:
        self._log: logging.Logger = settings.log
        cap = options.limits.label_values
        self.counters = Counters(settings.meters, [label_name(label) for label in options.labels], cap)
        self._aliases = [Aliases(name, settings.meters, cap) for name in options.compat]
        self._high = options.high_cost_usd
        self.spend = Spend()
        self.complaints = Complaints(settings.log)
        self._open: dict[object, Tally] = {}
        further = options.labels[len(LABELS) :]
        self.label_fields = {label: label if label in FIELDS_AS_LABELS else f"label:{label}" for label in further}
        """Further label -> the field that holds its value."""

    def labels(self, seen: Seen, resolved: Resolved) -> tuple[str, ...]:
        """The label values of a call."""
        further = []
        for label, field in self.label_fields.items():
            value = seen.found.pick(field, _as_label)
            further.append(value or dict(seen.origin.resource).get(label, "")[:128])
        return (seen.origin.service, resolved.provider[:64], resolved.model, seen.operation, *further)

    def tally(self, key: object) -> Tally | None:
        """The tally that was opened under that key in this batch."""
        return self._open.get(key)

    def open(self, key: object, tally: Tally) -> Tally:
        """Begin a tally."""
        self._open[key] = tally
        return tally

    def add(
        self, tally: Tally, start: int, duration: float, first: float | None, usage: Usage | None, amount: float | None,
        trace_id: bytes,
    ) -> None:  # fmt: skip
        """Count one call. `start`: ns."""
        prompt, output, total = tally.add(duration, first, usage, amount)
        self.spend.add(Record(tally, start, prompt, output, total, duration, amount, trace_id))
        if amount is not None and amount > self._high:
            self.counters.high_cost.add(1, *tally.labels)
            self._log.warning(
                "LLM call cost more than %g USD: model %s, cost %.6f USD, %d tokens, service %s",
                self._high, tally.labels[2], amount, total, tally.labels[0],
            )  # fmt: skip

    def close(self, now: float) -> None:
        """Book what the batch's tallies hold."""
        for tally in self._open.values():
            self.counters.count(tally)
            self.spend.book(tally)
            for alias in self._aliases:
                alias.count(tally)
            if tally.reason in ("unknown_model", "no_unit_price"):
                self.complaints.note(tally.labels[1], tally.name, tally.labels[0], tally.reason, now, len(tally.latencies))
            tally.forget()
        self._open.clear()


def _as_label(value: object) -> str | None:
    return str(value)[:128] if isinstance(value, str | int | float) and value != "" else None
