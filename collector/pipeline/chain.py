"""Runs a batch through the processors of one pipeline. A processor that raises fails closed: its batch goes no further."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence

from collector.component import Processor
from collector.errors import Refused, Rejected
from collector.meters import Meters
from collector.model import Batch, Signal


class Chain:
    """The processors of one pipeline in the order they run.

    `drop(signal, count, reason)` books what a failing processor takes along; its pipeline sets it.
    """

    drop: Callable[[Signal, int, str], None] | None = None

    def __init__(self, signal: Signal, processors: Sequence[Processor], meters: Meters, log: logging.Logger) -> None:
        self.signal, self.processors, self._log = signal, tuple(order(processors)), log
        self._at = self._given = 0
        self._holders = [p for p in self.processors if type(p).held is not Processor.held]
        self._ticking = [(at, p) for at, p in enumerate(self.processors) if type(p).tick is not Processor.tick]
        self._observers = [p for p in self.processors if type(p).kept is not Processor.kept]
        self._labels = [(processor.settings.id, signal.value) for processor in self.processors]
        labels = ("processor", "otel_signal")
        self._incoming = meters.counter("otelcol_processor_incoming_items", "Items given to a processor.", labels, cap=0)
        self._outgoing = meters.counter("otelcol_processor_outgoing_items", "Items that left a processor.", labels, cap=0)
        self._passed = [(0, 0)] * len(self.processors)
        """Items given to each processor and items that left it, as far as they are not in the counters yet."""
        self._owe, self._owing = meters.owe, False

    def run(self, batch: Batch, count: int, now: float, start: int = 0) -> tuple[Batch | None, int]:
        """What is left of a batch of `count` items, and how many items. Raises Refused and Rejected of a processor."""
        current: Batch | None = batch
        for position in range(start, len(self.processors)):
            processor = self.processors[position]
            self._at, self._given = position, count
            self._pass(position, count, 0)
            before = current
            current = self._one(processor, current, count, now)
            if current is None:
                return None, 0
            if current is not before:
                count = current.count()
            self._pass(position, 0, count)
            if not count:
                return None, 0
        assert current is not None
        for observer in self._observers:
            self._tell(observer, current)
        return current, count

    def _pass(self, position: int, given: int, left: int) -> None:
        incoming, outgoing = self._passed[position]
        self._passed[position] = incoming + given, outgoing + left
        if not self._owing:
            self._owing = True
            self._owe(self._book)

    def _book(self) -> None:
        """Raise the counters by what has passed."""
        self._owing = False
        for (given, left), labels in zip(self._passed, self._labels, strict=True):
            if given:
                self._incoming.add(given, *labels)
            if left:
                self._outgoing.add(left, *labels)
        self._passed = [(0, 0)] * len(self.processors)

    def _tell(self, observer: Processor, batch: Batch) -> None:
        try:
            observer.kept(batch)
        except Exception as error:  # every processor has done its work on the batch, so it may go on
            self._broken(observer, error, "processor failed on what was kept")

    def _one(self, processor: Processor, batch: Batch | None, count: int, now: float) -> Batch | None:
        assert batch is not None
        try:
            return processor.process(batch, now)
        except (Refused, Rejected):
            raise
        except Exception as error:
            self._broken(processor, error)
            self._drop(processor, count)
            return None

    def released(self, now: float, *, drain: bool = False, keep: Collection[Processor] = ()) -> Iterator[tuple[Batch, int]]:
        """What processors that hold data let go, already through the rest of the chain.

        By time, or with `drain` all of it, except of the processors in `keep`, which go on working elsewhere.
        """
        for position, processor in enumerate(self.processors) if drain else self._ticking:
            if drain and processor in keep:
                continue
            held = processor.held()
            try:
                out = processor.drain() if drain else processor.tick(now)
            except Exception as error:
                self._broken(processor, error)
                self._drop(processor, held - processor.held())
                continue
            if out is not None:
                count = out.count()
                self._pass(position, 0, count)
                try:
                    rest, left = self.run(out, count, now, position + 1)
                except (Refused, Rejected) as error:  # its client was answered long ago: there is nobody left to refuse
                    self._broken(self.processors[self._at], error)
                    self._drop(processor, self._given)
                    continue
                if rest is not None:
                    yield rest, left

    @property
    def ticks(self) -> bool:
        """True when `released` has anything to ask without `drain`."""
        return bool(self._ticking)

    def _drop(self, processor: Processor, count: int) -> None:
        (self.drop or processor.settings.drop)(self.signal, count, "processor_error")

    def held(self) -> int:
        """Items inside processors."""
        items = 0
        for processor in self._holders:
            items += processor.held()
        return items

    def unusable(self, error: Exception) -> None:
        """What came out of the chain cannot be encoded: say which processor ran last."""
        if self.processors:
            self._broken(self.processors[self._at], error)

    def _broken(self, processor: Processor, error: Exception, event: str = "processor failed: batch dropped") -> None:
        # Type and place only: an exception's text may quote the data it choked on.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}"
        self._log.error(
            event,
            extra={"processor": processor.settings.id, "error": type(error).__name__, "place": where},
        )


def order(processors: Sequence[Processor]) -> list[Processor]:
    """Processors that count everything move in front of the first one that samples (R-206); the rest keeps its order."""
    first = next((i for i, p in enumerate(processors) if p.samples), len(processors))
    late = [p for p in processors[first:] if p.counts]
    return [*processors[:first], *late, *(p for p in processors[first:] if p not in late)]
