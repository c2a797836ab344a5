"""The books: accepted = delivered + dropped{reason} + queued, for every signal and destination, exactly.

Everything is booked in one synchronous step with the event it counts, so that no reader ever sees half of it. Names:
`collector_items_total{signal,exporter,state,reason}` and otelcol's exporter counters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from collector.meters import Instrument, Meters
from collector.model import Signal


class Ledger:
    """The accounts of all destinations of the process; they outlive a reload."""

    def __init__(self, meters: Meters) -> None:
        labels = ("signal", "exporter", "state", "reason")
        self._items = meters.counter("collector_items", "Items by where they ended, for each destination.", labels, cap=0)
        self._meters = meters
        self.totals: dict[tuple[Signal, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def accepted(self, signal: Signal, exporter: str, count: int) -> None:
        """The sidecar has taken responsibility for `count` items towards `exporter`."""
        self._book(signal, exporter, "accepted", "", count)

    def delivered(self, signal: Signal, exporter: str, count: int) -> None:
        """The backend has them."""
        self._book(signal, exporter, "delivered", "", count)
        self._exporter(signal, "sent", "Items successfully sent to the destination.").add(count, exporter)

    def dropped(self, signal: Signal, exporter: str, reason: str, count: int) -> None:
        """They will never reach `exporter`, for a reason of reliability's closed list."""
        self._book(signal, exporter, "dropped", reason, count)
        if reason in _FAILED:
            self._exporter(signal, "send_failed", "Items that could not be sent to the destination.").add(count, exporter)
        elif reason == "queue_full":
            self._exporter(signal, "enqueue_failed", "Items that did not fit into the queue.").add(count, exporter)

    def show(self, signal: Signal, exporter: str) -> None:
        """Show the series of a destination with 0, so that alerts see them before the first event."""
        for state, reason in (("accepted", ""), ("delivered", "")):
            self._items.touch(signal.value, exporter, state, reason)
        self._exporter(signal, "sent", "Items successfully sent to the destination.").touch(exporter)
        self._exporter(signal, "send_failed", "Items that could not be sent to the destination.").touch(exporter)
        self._exporter(signal, "enqueue_failed", "Items that did not fit into the queue.").touch(exporter)

    def balance(self, queued: Iterable[tuple[Signal, str, int]]) -> dict[str, dict[str, dict[str, int]]]:
        """signal -> exporter -> every term, with `balance` (0 unless the books are wrong). `queued`: items inside now."""
        inside: dict[tuple[Signal, str], int] = defaultdict(int)
        for signal, exporter, count in queued:
            inside[signal, exporter] += count
        out: dict[str, dict[str, dict[str, int]]] = {}
        for (signal, exporter), terms in sorted({**{key: {} for key in inside}, **self.totals}.items()):
            row = dict(terms, queued=inside[signal, exporter])
            gone = sum(count for name, count in row.items() if name != "accepted")
            out.setdefault(signal.value, {})[exporter] = {**row, "balance": row.get("accepted", 0) - gone}
        return out

    def _book(self, signal: Signal, exporter: str, state: str, reason: str, count: int) -> None:
        if count:
            self.totals[signal, exporter][f"{state}_{reason}" if reason else state] += count
            self._items.add(count, signal._value_, exporter, state, reason)

    def _exporter(self, signal: Signal, what: str, text: str) -> Instrument:
        return self._meters.counter(f"otelcol_exporter_{what}_{signal.noun}", text, ("exporter",), cap=0)


_FAILED = frozenset({"rejected", "partial_rejected", "too_large", "retry_exhausted", "shutdown", "withdrawn"})
