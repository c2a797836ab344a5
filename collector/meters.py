"""Counters, gauges and histograms that components raise; get-or-create, so that values survive a reload.

Two registries: `own` (port 8888 only: otelcol_*, collector_*) and `derived` (counted from telemetry: llm_*, pii_*; shown on
port 8888 and beside the received metrics on the prometheus exporter's endpoint). Label values are capped per family and label:
98 keep their name, later ones share `__overflow__` (R-504); sums stay exact.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import fsum
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.samples import Exemplar

OVERFLOW = "__overflow__"
Bucket = Any
"""One bucket of one histogram series, as `observe_many` gives it and `show_exemplar` takes it."""
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 2.5, 5, 10, 30, 60)

_log = logging.getLogger("collector.meters")
disable_created_metrics()  # type: ignore[no-untyped-call]


class Instrument:
    """One metric family. Label values are given in the order of its label names."""

    def __init__(
        self, family: Any, labels: Sequence[str], cap: int, overflow: Instrument | None, settle: Callable[[], None] = lambda: None
    ) -> None:
        self._family = family
        self._settle = settle
        self.labels = tuple(labels)
        self._cap = cap
        self._overflow = overflow
        self._seen: tuple[set[str], ...] = tuple(set() for _ in labels)
        self._children: dict[tuple[str, ...], Any] = {} if labels else {(): family}

    def _child(self, values: tuple[str, ...]) -> Any:
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self.labels):
                raise ValueError(f"{len(values)} label values for labels {self.labels}")
            capped = tuple(self._capped(i, value) for i, value in enumerate(values))
            child = self._children.get(capped)
            if child is None:
                child = self._children[capped] = self._family.labels(*capped)
        return child

    def _capped(self, index: int, value: str) -> str:
        seen = self._seen[index]
        if value in seen:
            return value
        if len(seen) < self._cap - 1:
            seen.add(value)
            return value
        if self._overflow is not None:
            self._overflow.add(1, self.labels[index])
        return OVERFLOW

    def add(self, amount: float, *labels: str) -> None:
        """Raise a counter or gauge."""
        child = self._children.get(labels)
        if child is None or amount < 0:
            self._child(labels).inc(amount)
        else:
            child._value.inc(amount)  # the checks of the child's own inc() cost three times as much

    def set(self, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._child(labels).set(value)

    def observe(self, value: float, *labels: str, exemplar: Mapping[str, str] | None = None) -> None:
        """Put one value into a histogram."""
        self._child(labels).observe(value, exemplar)

    def observe_many(self, values: Sequence[float], *labels: str) -> list[tuple[Bucket, float]]:
        """Put several finite values into a histogram at once; their sum is rounded once.

        Returns the buckets they fell into, each with the largest value in it.
        """
        child = self._child(labels)
        child._sum.inc(fsum(values))
        ordered, bounds, below, touched = sorted(values), child._upper_bounds, 0, []
        while below < len(ordered):
            place = bisect_left(bounds, ordered[below])
            upto = bisect_right(ordered, bounds[place], below)
            bucket = child._buckets[place]
            bucket.inc(upto - below)
            touched.append((bucket, ordered[upto - 1]))
            below = upto
        return touched

    def touch(self, *labels: str) -> None:
        """Show the series with its start value, so that alerts see it before the first event."""
        self._child(labels)

    def value(self, *labels: str) -> float:
        """The present value of one counter or gauge series, 0 if there is none."""
        self._settle()
        child = self._children.get(labels)
        return float(child._value.get()) if child is not None else 0.0

    def series(self) -> dict[tuple[str, ...], float]:
        """All series of a counter or gauge."""
        self._settle()
        return {labels: float(child._value.get()) for labels, child in list(self._children.items())}


def show_exemplar(bucket: Bucket, trace_id: bytes, value: float, at: float) -> None:
    """Let a bucket lead to a trace, under OpenMetrics only; `at`: seconds since 1970.

    One older than what is shown changes nothing: Prometheus refuses exemplars that go back in time.
    """
    shown = bucket.get_exemplar()
    if shown is None or shown.timestamp <= at:
        bucket.set_exemplar(Exemplar({"trace_id": trace_id.hex()}, value, at))


class _Registry(CollectorRegistry):
    """Has everything booked before anybody reads."""

    def __init__(self, settle: Callable[[], None]) -> None:
        super().__init__()
        self._settle = settle

    def collect(self) -> Iterable[Metric]:
        self._settle()
        return super().collect()


class Meters:
    """Where a component gets its instruments. The same name twice is the same instrument.

    A component that counts much may add it up first and raise its instruments later: it says so with `owe`. Whoever reads in the
    thread that counts sees exact values; who reads in another one first calls `settle` in that thread.
    """

    def __init__(self, cap: int = 99) -> None:
        self._owed: dict[int, list[Callable[[], None]]] = {}
        self.own = _Registry(self.settle)
        self.derived = _Registry(self.settle)
        self._made: dict[str, Instrument] = {}
        self._lock = threading.Lock()
        self._cap = cap
        self._overflow = self.counter("label_overflow", "Label values beyond the cap of a family.", ("label",), cap=0)

    def counter(
        self, name: str, text: str, labels: Sequence[str] = (), *, derived: bool = False, cap: int | None = None
    ) -> Instrument:
        """A counter; `name` without `_total`, which the exposition adds. `cap=0`: labels from a closed set, no cap."""
        return self._make(Counter, name, text, labels, derived, cap)

    def gauge(
        self, name: str, text: str, labels: Sequence[str] = (), *, derived: bool = False, cap: int | None = None
    ) -> Instrument:
        """A gauge."""
        return self._make(Gauge, name, text, labels, derived, cap)

    def histogram(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        derived: bool = False,
        cap: int | None = None,
    ) -> Instrument:
        """A histogram with the given upper bounds."""
        return self._make(Histogram, name, text, labels, derived, cap, buckets=buckets)

    def owe(self, book: Callable[[], None]) -> None:
        """Have `book` called before anybody reads, once, in the thread that calls this: another one would meet it counting."""
        self._owed.setdefault(threading.get_ident(), []).append(book)

    def settle(self) -> None:
        """Have everything booked that this thread owes; what fails is logged, and costs neither the reader nor others."""
        if self._owed:
            for book in self._owed.pop(threading.get_ident(), ()):
                try:
                    book()
                except Exception as error:
                    _log.error("booking failed", extra={"owed_by": book.__qualname__, "error": type(error).__name__})

    def find(self, name: str) -> Instrument | None:
        """The instrument of that name, None when nobody made it."""
        return self._made.get(name)

    def _make(
        self, kind: Any, name: str, text: str, labels: Sequence[str], derived: bool, cap: int | None, **options: Any
    ) -> Instrument:
        with self._lock:
            found = self._made.get(name)
            if found is None:
                registry = self.derived if derived else self.own
                family = kind(name, text, labelnames=tuple(labels), registry=registry, **options)
                limit = self._cap if cap is None else cap or 1_000_000_000
                found = self._made[name] = Instrument(family, labels, limit, getattr(self, "_overflow", None), self.settle)
            return found
