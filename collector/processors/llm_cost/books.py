"""Where counted calls go: counters, older names, spend and complaints. They are raised for the calls of many batches at once.

Raising a family of counters costs as much as pricing several calls, so what was counted waits up to a second: until somebody
reads (`Meters.owe`), or there is much of it.
"""

from __future__ import annotations

import logging

from collector.component import Settings
from collector.processors.llm_cost.call import Seen
from collector.processors.llm_cost.counters import Aliases, Counters
from collector.processors.llm_cost.options import LABELS, Options, label_name
from collector.processors.llm_cost.plans import Plan
from collector.processors.llm_cost.prices import Resolved
from collector.processors.llm_cost.spend import Spend
from collector.processors.llm_cost.tally import Call, Tally, tokens
from collector.processors.llm_cost.unpriced import Complaints

FIELDS_AS_LABELS = ("user", "team", "agent")
_WORTH_A_WORD = ("unknown_model", "no_unit_price")
_LONGEST, _CALLS, _TALLIES = 1.0, 1024, 128
"""Seconds that calls wait to be booked; how many calls, and how many kinds of them, may wait: 2 ms of work."""


class Books:
    """All numbers that one `llm_cost` shows."""

    def __init__(self, options: Options, settings: Settings) -> None:
        self._log: logging.Logger = settings.log
        cap = options.limits.label_values
        self.counters = Counters(settings.meters, [label_name(label) for label in options.labels], cap)
        self._aliases = [Aliases(name, settings.meters, cap) for name in options.compat]
        self.high = options.high_cost_usd
        """USD; a dearer call is worth a warning."""
        self.spend = Spend()
        self.complaints = Complaints(settings.log)
        self.keep = self.spend.keep
        self.fresh = self.counters.exemplars.fresh
        self._meters = settings.meters
        self._owing = False
        self._since = self._now = 0.0
        self._waiting, self._urgent = 0, False
        self._open: dict[object, Tally] = {}
        self.tally = self._open.get
        """The open tally of a key."""
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

    def open(self, key: object, tally: Tally) -> Tally:
        """Begin a tally, to be found under that key until it is booked."""
        if not self._open:
            self._since = self._now
            if not self._owing:
                self._owing = True
                self._meters.owe(self._settle)
        self._urgent = self._urgent or tally.reason in _WORTH_A_WORD
        self._open[key] = tally
        return tally

    def tally_of(self, plan: Plan, priced: bool = True) -> Tally:
        """Where calls of a plan are counted: those that have an amount, and those that have none."""
        tally = self.tally((plan, priced))
        if tally is None:
            source, reason = ("computed", "") if priced else ("", plan.reason)
            tally = self.open((plan, priced), Tally(plan.labels, plan.status, source, reason, plan.name, plan.limited))
        return tally

    def add(self, call: Call) -> None:
        """Count one call."""
        tally, _, _, _, usage, amount, trace_id = call
        tally.calls.append(call)
        self._waiting += 1
        self.keep(call)
        self.fresh.add(trace_id)
        if amount is not None and amount > self.high:
            self.counters.high_cost.add(1, *tally.labels)
            self._log.warning(
                "LLM call cost more than %g USD: model %s, cost %.6f USD, %d tokens, service %s",
                self.high, tally.labels[2], amount, tokens(usage)[2], tally.labels[0],
            )  # fmt: skip

    def add_all(self, calls: list[Call], dearest: float) -> None:
        """Count several priced calls, the dearest of which cost that much."""
        if dearest > self.high:
            for call in calls:
                self.add(call)
            return
        for call in calls:
            call[0].calls.append(call)
        self._waiting += len(calls)
        self.spend.keep_all(calls)
        self.fresh.update([call[6] for call in calls])

    def counted(self, calls: int) -> None:
        """That many calls were counted without `add`."""
        self._waiting += calls

    def begin(self, now: float) -> None:
        """A batch begins."""
        if now - self._since >= _LONGEST and self._open:
            self.close()
        self._now = now

    def end(self) -> None:
        """A batch was counted."""
        if self._waiting >= _CALLS or len(self._open) >= _TALLIES:
            self.close()

    def tick(self, now: float) -> None:
        """Book what has waited long enough, or is worth a word to the user."""
        if self._open and (self._urgent or now - self._since >= _LONGEST):
            self.close()

    def _settle(self) -> None:
        self._owing = False
        self.close()

    def close(self) -> None:
        """Book what the tallies hold."""
        tallies = list(self._open.values())
        self._open.clear()  # whatever happens: a tally that stays would meet every later batch
        self._waiting, self._urgent = 0, False
        for tally in tallies:
            try:
                self._book(tally)
            except Exception as error:  # nor may one tally cost the others their numbers
                self.counters.errors.add(len(tally.calls))
                self.complaints.defect(type(error).__name__)
                tally.calls.clear()  # they lead back to it
        self.counters.exemplars.booked()

    def _book(self, tally: Tally) -> None:
        since, now = self._since, self._now
        tally.sum_up()
        self.counters.count(tally, since, now)
        self.spend.book(tally)
        for alias in self._aliases:
            alias.count(tally)
        if tally.reason in _WORTH_A_WORD:
            self.complaints.note(tally.labels[1], tally.name, tally.labels[0], tally.reason, since, len(tally.latencies))
        tally.forget()


def _as_label(value: object) -> str | None:
    return str(value)[:128] if isinstance(value, str | int | float) and value != "" else None
