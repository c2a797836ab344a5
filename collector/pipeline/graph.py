"""Pipelines and the way into them: admission first, then the chain, then one shared payload into every destination."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from collector.component import Accept, Processor
from collector.errors import Refused, Rejected
from collector.model import Batch, Group, Payload, Scope, Signal
from collector.pipeline.chain import Chain
from collector.pipeline.destination import Destination
from collector.pipeline.ledger import Ledger
from collector.pipeline.queue import LARGEST_SEND, Outcome
from collector.pipeline.split import slices
from collector.turns import turn

SLICE = 768 << 10  # larger requests are worked on in slices with the event loop free in between
ITEM = 400  # bytes that take as long as what an item costs beside its own bytes
LONGEST_WAIT = 10.0  # seconds a client waits for room under block_on_overflow


class Pipeline:
    """One pipeline of the configuration. `clock` gives monotonic seconds, `wall` seconds since 1970 that never go back."""

    current: ClassVar[Pipeline | None] = None
    """The pipeline whose processors run at this moment: what they drop is booked there, whoever else uses them too."""

    def __init__(
        self,
        name: str,
        signal: Signal,
        chain: Chain,
        destinations: Sequence[Destination],
        ledger: Ledger,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.name, self.signal, self.chain, self.destinations = name, signal, chain, tuple(destinations)
        self._ledger, self._clock, self._wall = ledger, clock, wall
        self._dropping = 0
        self.busy = 0
        chain.drop = self.dropped
        for destination in self.destinations:
            ledger.show(signal, destination.name)

    def admits(self, size: int) -> bool:
        """True when `size` bytes can be taken without waiting."""
        full = 0
        for destination in self.destinations:
            if not destination.queue.room(size):
                if destination.settings.on_full == "backpressure":
                    return False
                full += destination.settings.on_full == "auto"
        return not full or full < len(self.destinations)

    async def admit(self, size: int) -> None:
        """Make sure that `size` bytes can be taken. Raises Refused; then nothing was taken anywhere."""
        if self.admits(size):
            return
        for destination in self.destinations:
            if destination.settings.on_full == "backpressure" and not destination.queue.room(size):
                await self._wait(destination, size)
        full = [d for d in self.destinations if d.settings.on_full == "auto" and not d.queue.room(size)]
        if full and len(full) == len(self.destinations):
            await self._wait(full[0], size)

    async def _wait(self, destination: Destination, size: int) -> None:
        deadline = self._clock() + (LONGEST_WAIT if destination.settings.block_on_overflow else 0.0)
        while not destination.queue.room(size):
            if (left := deadline - self._clock()) <= 0:
                raise Refused("sending queue is full", after=1, reason="queue_full")
            await destination.space(left)

    async def feed(self, batch: Batch, count: int, size: int = 0) -> list[Outcome]:
        """Run an admitted batch of `size` bytes through the chain into the queues; returns what the client must wait for."""
        if self.slices(size, count):
            return await self._feed_slices(batch)
        return self.take(batch, count)

    def slices(self, size: int, count: int) -> bool:
        """True when `count` items of `size` bytes are worked on in slices, with the event loop free in between.

        Without processors only what is cut for sending anyway: all else leaves as it came.
        """
        return size + count * ITEM > SLICE if self.chain.processors else size > LARGEST_SEND

    def take(self, batch: Batch, count: int) -> list[Outcome]:
        """`feed` for what is small enough to be done at once."""
        before, Pipeline.current = Pipeline.current, self
        try:
            born, self._dropping, held = self._clock(), 0, self.chain.held()
            try:
                out, left = self.chain.run(batch, count, self._wall())
            except (Refused, Rejected):
                self._book_refusal(self._dropping + self.chain.held() - held)
                raise
            return self._put(out, left, born, taken=count)
        finally:
            Pipeline.current = before

    def _book_refusal(self, taken: int) -> None:
        """What processors in front of the refusing one dropped or hold was taken all the same: the books stay exact.

        Less than nothing was taken when they let go of older items, which went down with the refused ones.
        """
        if taken < 0:
            self.dropped(self.signal, -taken, "processor_error")
        self._accepted(max(taken, 0))

    async def _feed_slices(self, batch: Batch) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for part in slices(batch, SLICE, ITEM):
            outcomes += self.take(part, part.count())
            await turn()
        return outcomes

    def answers_at_once(self) -> bool:
        """True when no destination lets the client wait."""
        return all(destination.answers_at_once for destination in self.destinations)

    def _accepted(self, count: int) -> None:
        for destination in self.destinations:
            self._ledger.accepted(self.signal, destination.name, count)

    def _put(self, batch: Batch | None, left: int, born: float, *, taken: int = 0) -> list[Outcome]:
        """Book `taken` items as accepted and queue what the chain let through."""
        self._accepted(taken)
        if batch is None:
            return []
        try:
            payload = Payload(self.signal, batch.encode(), left, born, batch.metadata)
        except Exception as error:  # a processor made something that is no message: fail closed like one that raises
            self.chain.unusable(error)
            self.dropped(self.signal, left, "processor_error")
            return []
        size, accepting = len(payload.data), False
        for destination in self.destinations:
            accepting = accepting or destination.accepts(size)
        outcomes = [destination.put(payload, give_up=accepting) for destination in self.destinations]
        return [outcome for outcome in outcomes if outcome is not None]

    def dropped(self, signal: Signal, count: int, reason: str) -> None:
        """Book items that a processor of this pipeline dropped, for every destination they would have reached."""
        self._dropping += count
        for destination in self.destinations:
            self._ledger.dropped(signal, destination.name, reason, count)

    def tick(self) -> None:
        """Let go what has waited long enough inside processors; call it every 100 to 500 ms."""
        if self.chain.ticks:
            self._queue(drain=False)

    def drain(self, keep: Collection[Processor] = ()) -> None:
        """Let go everything inside processors, except of those in `keep`."""
        self._queue(drain=True, keep=keep)

    def _queue(self, *, drain: bool, keep: Collection[Processor] = ()) -> None:
        before, Pipeline.current = Pipeline.current, self
        try:
            born = self._clock()
            for batch, count in self.chain.released(self._wall(), drain=drain, keep=keep):
                self._put(batch, count, born)
        finally:
            Pipeline.current = before


class Intake(Accept):
    """Where one receiver hands in one signal: all pipelines that name it. `pipelines` is swapped by a reload."""

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self.pipelines = tuple(pipelines)
        self.last = 0.0

    def ready(self, size: int, count: int) -> bool:
        """True when `at_once` takes `count` items of `size` bytes: nobody has to be waited for, now or later."""
        for pipeline in self.pipelines:
            if pipeline.slices(size, count) or not pipeline.admits(size) or not pipeline.answers_at_once():
                return False
        return True

    def at_once(self, batch: Batch, count: int) -> None:
        """Take a batch of `count` items that it is `ready` for."""
        pipelines = self.pipelines
        try:
            for pipeline in pipelines:
                pipeline.take(batch if pipeline is pipelines[-1] else own_copy(batch), count)
        finally:
            self.last = time.monotonic()

    async def __call__(self, batch: Batch) -> None:
        """Take a batch; returns at the ack point. Raises Refused before anything was taken."""
        count = batch.count()
        if not count:
            return
        pipelines = self.pipelines
        size = len(batch.raw) if batch.raw is not None else sum(map(len, batch.items()))
        try:
            await _decided(await self._hand_in(pipelines, batch, count, size))
        finally:
            self.last = time.monotonic()

    async def _hand_in(self, pipelines: Sequence[Pipeline], batch: Batch, count: int, size: int) -> list[Outcome]:
        for pipeline in pipelines:
            pipeline.busy += 1
        try:
            for pipeline in pipelines:
                await pipeline.admit(size)
            outcomes: list[Outcome] = []
            for pipeline in pipelines:
                outcomes += await pipeline.feed(batch if pipeline is pipelines[-1] else own_copy(batch), count, size)
            return outcomes
        finally:
            for pipeline in pipelines:
                pipeline.busy -= 1


async def _decided(outcomes: Sequence[Outcome]) -> None:
    """Wait for every destination. Raises Refused if one may take the data later, else what one said for good."""
    if not outcomes:
        return
    results = await asyncio.gather(*(outcome.future for outcome in outcomes), return_exceptions=True)
    errors = sorted((r for r in results if isinstance(r, BaseException)), key=lambda error: not isinstance(error, Refused))
    if errors:
        raise errors[0]


def own_copy(batch: Batch) -> Batch:
    """The same batch with lists of its own, for a pipeline beside another one; the bytes are shared."""
    groups = [
        Group(g.header, [Scope(s.header, list(s.items), s.heads and list(s.heads), s.trace_ids, s.points) for s in g.scopes])
        for g in batch.groups
    ]
    return Batch(batch.signal, groups, batch.raw, batch.metadata)
