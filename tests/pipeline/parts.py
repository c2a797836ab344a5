"""Parts that tests of the pipeline put together: exporters and processors that do as they are told."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from collector.component import Exporter, Processor, Settings
from collector.fields import Push
from collector.meters import Meters
from collector.model import Batch, Payload, Signal
from collector.pipeline.chain import Chain
from collector.pipeline.destination import Destination
from collector.pipeline.graph import Pipeline
from collector.pipeline.ledger import Ledger
from tests.support import FakeHost, settings, span, traces


class Scripted(Exporter):
    """Answers sends by script: None or a number = accepted with so many rejected, an exception = raised; then accepts all."""

    def __init__(self, *script: Any, push: dict[str, Any] | None = None, name: str = "out") -> None:
        super().__init__(Push.model_validate(push or {}), settings(name))
        self.script = list(script)
        self.sent: list[Payload] = []
        self.gate: asyncio.Event | None = None
        self.most_at_once = self._now = 0

    async def send(self, payload: Payload) -> int:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.gate is not None:
                await self.gate.wait()
            answer = self.script.pop(0) if self.script else None
            if isinstance(answer, Exception):
                raise answer
            self.sent.append(payload)
            return answer or 0
        finally:
            self._now -= 1

    @property
    def items(self) -> int:
        """Items accepted so far."""
        return sum(payload.items for payload in self.sent)


class Books:
    """A ledger with what is needed to check its identity."""

    def __init__(self) -> None:
        self.meters = Meters()
        self.ledger = Ledger(self.meters)
        self.destinations: list[Destination] = []
        self.pipelines: list[Pipeline] = []

    def destination(self, exporter: Exporter, name: str = "out", share: int = 1 << 20) -> Destination:
        """A destination, started."""
        log = logging.getLogger("collector.test")
        loop = asyncio.get_running_loop()
        made = Destination(name, exporter, self.ledger, self.meters, log, share=share, clock=loop.time)
        self.destinations.append(made)
        made.start()
        return made

    def pipeline(self, *destinations: Destination, processors: tuple[Any, ...] = ()) -> Pipeline:
        """A traces pipeline. `processors`: functions (config ignored) or classes that take settings."""
        owners: list[Pipeline] = []

        def drop(signal: Signal, count: int, reason: str) -> None:
            owners[0].dropped(signal, count, reason)

        made = [cls(None, Settings(cls.__name__.lower(), self.meters, logging.getLogger("collector.test"), FakeHost(), drop))
                for cls in processors]  # fmt: skip
        chain = Chain(Signal.TRACES, made, self.meters, logging.getLogger("collector.test"))
        clock = asyncio.get_running_loop().time
        pipeline = Pipeline("traces", Signal.TRACES, chain, destinations, self.ledger, clock=clock, wall=clock)
        owners.append(pipeline)
        self.pipelines.append(pipeline)
        return pipeline

    def terms(self, name: str = "out") -> dict[str, int]:
        """All terms of one destination; the identity is checked on the way."""
        queued = [(Signal.TRACES, d.name, d.queue.items[Signal.TRACES]) for d in self.destinations]
        for pipeline in self.pipelines:
            queued += [(Signal.TRACES, d.name, pipeline.chain.held()) for d in pipeline.destinations]
        row = self.ledger.balance(queued)["traces"][name]
        assert row["balance"] == 0, row
        return {key: value for key, value in row.items() if value}


def payload(count: int = 1, born: float = 0.0, size: int = 0) -> Payload:
    """A traces payload of `count` spans, with about `size` bytes of text each."""
    request = traces(*(span("s", {"text": "x" * size} if size else None) for _ in range(count)))
    return Payload(Signal.TRACES, request.SerializeToString(), count, born)


class Holding(Processor):
    """Keeps everything until it is drained or `release` is set."""

    def __init__(self, config: Any, given: Settings) -> None:
        super().__init__(config, given)
        self.batches: list[Batch] = []
        self.release = False

    def process(self, batch: Batch, now: float) -> Batch | None:
        self.batches.append(batch)
        return None

    def tick(self, now: float) -> Batch | None:
        return self.drain() if self.release else None

    def drain(self) -> Batch | None:
        if not self.batches:
            return None
        groups = [group for batch in self.batches for group in batch.groups]
        self.batches.clear()
        return Batch(Signal.TRACES, groups)

    def held(self) -> int:
        return sum(batch.count() for batch in self.batches)


class Failing(Processor):
    """Raises on every batch."""

    def process(self, batch: Batch, now: float) -> Batch | None:
        raise RuntimeError("secret 4111 1111 1111 1111")


class Halving(Processor):
    """Drops every second item."""

    samples = True

    def process(self, batch: Batch, now: float) -> Batch | None:
        before = batch.count()
        for scope in batch.scopes():
            scope.items = scope.items[::2]
        after = batch.replace(batch.groups)
        self.settings.drop(batch.signal, before - after.count(), "sampled")
        return after


class Counting(Processor):
    """Sees everything."""

    counts = True

    def process(self, batch: Batch, now: float) -> Batch | None:
        return batch
