"""Builds components and pipelines from checked settings; a reload keeps every component whose settings are unchanged."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from collector.component import Component, Exporter, Extension, Processor, Receiver, Settings
from collector.config.load import Declared, PipelineSpec, Resolved
from collector.errors import SidecarError
from collector.model import Signal
from collector.pipeline.chain import Chain
from collector.pipeline.destination import Destination
from collector.pipeline.graph import Intake, Pipeline
from collector.service.host import ServiceHost

Kind = TypeVar("Kind", bound=Component)


@contextmanager
def naming(name: str, kind: str, step: str) -> Iterator[None]:
    """Give an error inside the component's name. Raises SidecarError; the text of a bug may hold secrets and is left out."""
    try:
        yield
    except SidecarError:
        raise
    except OSError as error:
        raise SidecarError(f'failed to {step} "{name}" {kind}: {error.strerror or error}') from error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}"
        raise SidecarError(f'failed to {step} "{name}" {kind}: {type(error).__name__} at {where}') from error


class Bookings:
    """Where a processor's drops are booked: in every pipeline it works in, also after a reload."""

    def __init__(self) -> None:
        self.pipelines: list[Pipeline] = []

    def __call__(self, signal: Signal, count: int, reason: str) -> None:
        running = Pipeline.current
        for pipeline in self.pipelines if running is None else [running]:
            if pipeline.signal is signal:
                pipeline.dropped(signal, count, reason)


@dataclass(slots=True)
class Graph:
    """Everything that runs. Keys are ids as the user wrote them; processors: (pipeline id or "" when shared, id)."""

    resolved: Resolved
    receivers: dict[str, Receiver] = field(default_factory=dict)
    processors: dict[tuple[str, str], Processor] = field(default_factory=dict)
    exporters: dict[str, Exporter] = field(default_factory=dict)
    extensions: dict[str, Extension] = field(default_factory=dict)
    destinations: dict[str, Destination] = field(default_factory=dict)
    pipelines: dict[str, Pipeline] = field(default_factory=dict)
    intakes: dict[tuple[str, Signal], Intake] = field(default_factory=dict)
    bookings: dict[tuple[str, str], Bookings] = field(default_factory=dict)

    def accepts(self, receiver: str) -> dict[Signal, Intake]:
        """The ways into the pipelines for one receiver."""
        return {signal: intake for (name, signal), intake in self.intakes.items() if name == receiver}

    def queued(self) -> list[tuple[Signal, str, int]]:
        """(signal, exporter, items) inside queues and processors."""
        return self._inside(set())

    def leftovers(self, leaving: Iterable[Graph]) -> list[tuple[Signal, str, int]]:
        """The same of what earlier configurations have not yet got rid of."""
        seen: set[object] = {*self.destinations.values(), *self.processors.values()}
        return [row for old in leaving for row in old._inside(seen)]

    def _inside(self, seen: set[object]) -> list[tuple[Signal, str, int]]:
        queues = [d for d in self.destinations.values() if d not in seen]
        rows = [(signal, d.name, count) for d in queues for signal, count in d.queue.items.items() if count]
        for pipeline in self.pipelines.values():
            held = sum(processor.held() for processor in pipeline.chain.processors if processor not in seen)
            rows += [(pipeline.signal, d.name, held) for d in pipeline.destinations if held]
        seen.update(queues, self.processors.values())
        return rows

    def refresh(self) -> None:
        """Bring the gauges of all destinations up to date before they are read."""
        held: dict[tuple[str, Signal], int] = defaultdict(int)
        for pipeline in self.pipelines.values():
            for destination in pipeline.destinations:
                held[destination.name, pipeline.signal] += pipeline.chain.held()
        for (name, signal), count in held.items():
            self.destinations[name].refresh(signal, count)

    def describe(self) -> dict[str, Any]:
        """Pipelines as lists of ids in the order they run, for /status."""
        return {
            name: {
                "receivers": list(self.resolved.pipelines[name].receivers),
                "processors": [p.settings.id for p in pipeline.chain.processors],
                "exporters": [d.name for d in pipeline.destinations],
                "held_items": pipeline.chain.held(),
            }
            for name, pipeline in self.pipelines.items()
        }


class Builder:
    """Builds a Graph; `previous` lends its unchanged components and is not changed itself."""

    def __init__(self, resolved: Resolved, host: ServiceHost, previous: Graph | None) -> None:
        self._resolved, self._host, self._previous = resolved, host, previous
        self._graph = Graph(resolved)

    def build(self) -> Graph:
        """The graph, nothing started. Raises what a component's constructor raises."""
        graph, resolved = self._graph, self._resolved
        used = {name for spec in resolved.pipelines.values() for name in spec.exporters}
        for name in resolved.exporters:
            if name in used:
                graph.exporters[name] = self._component("exporters", resolved.exporters, name, Bookings())
        share = self._host.budget.queue_room // max(len(graph.exporters), 1)
        for name, exporter in graph.exporters.items():
            graph.destinations[name] = self._destination(name, exporter, share)
        for spec in resolved.pipelines.values():
            self._pipeline(spec)
        taking = {name for spec in resolved.pipelines.values() for name in spec.receivers}
        for name in resolved.receivers:
            if name in taking:
                graph.receivers[name] = self._component("receivers", resolved.receivers, name, Bookings())
                self._intakes(name)
        for name in resolved.extensions_on:
            graph.extensions[name] = self._component("extensions", resolved.extensions, name, Bookings())
        return graph

    def _component(self, kind: str, declared: Mapping[str, Declared], name: str, drop: Bookings) -> Any:
        entry = declared[name]
        if self._previous is not None:
            old = getattr(self._previous, kind).get(name)
            if _same(old, entry):
                return old
        return self._make(entry, drop)

    def _make(self, entry: Declared, drop: Bookings) -> Component:
        log = logging.getLogger(f"collector.{entry.kind}.{entry.id}")
        with naming(entry.id, entry.kind, "build"):
            made: Component = entry.cls(entry.config, Settings(entry.id, self._host.meters, log, self._host, drop))
        return made

    def _destination(self, name: str, exporter: Exporter, share: int) -> Destination:
        if self._previous is not None and self._previous.exporters.get(name) is exporter:
            return self._previous.destinations[name]
        log = logging.getLogger(f"collector.exporters.{name}")
        host = self._host
        return Destination(name, exporter, host.ledger, host.meters, log, share=share, clock=host.clock.monotonic)

    def _pipeline(self, spec: PipelineSpec) -> None:
        graph, host = self._graph, self._host
        chain = Chain(spec.signal, [self._processor(spec, name) for name in spec.processors], host.meters, host.log)
        if (running := [p.settings.id for p in chain.processors]) != list(spec.processors):
            host.log.info("processors that count everything run before sampling", extra={"pipeline": spec.id, "order": running})
        destinations = [graph.destinations[name] for name in spec.exporters]
        pipeline = Pipeline(
            spec.id, spec.signal, chain, destinations, host.ledger, clock=host.clock.monotonic, wall=host.clock.wall
        )
        graph.pipelines[spec.id] = pipeline
        for name in spec.processors:
            key = (spec.id, name) if (spec.id, name) in graph.processors else ("", name)
            graph.bookings[key].pipelines.append(pipeline)

    def _processor(self, spec: PipelineSpec, name: str) -> Processor:
        graph, entry = self._graph, self._resolved.processors[name]
        key = ("" if cast("type[Processor]", entry.cls).shared else spec.id, name)
        if key not in graph.processors:
            old = self._previous.processors.get(key) if self._previous else None
            if old is not None and _same(old, entry) and (not key[0] or self._same_ends(spec)):
                graph.processors[key] = old
                graph.bookings[key] = Bookings()
            else:
                graph.bookings[key] = Bookings()
                graph.processors[key] = cast("Processor", self._make(entry, graph.bookings[key]))
        return graph.processors[key]

    def _same_ends(self, spec: PipelineSpec) -> bool:
        """Whether the pipeline leads where it led: what a processor holds was accepted for those exporters, and no others."""
        before = self._previous.pipelines.get(spec.id) if self._previous else None
        return before is not None and {d.name for d in before.destinations} == set(spec.exporters)

    def _intakes(self, receiver: str) -> None:
        for signal in Signal:
            pipelines = [
                self._graph.pipelines[spec.id]
                for spec in self._resolved.pipelines.values()
                if spec.signal is signal and receiver in spec.receivers
            ]
            if pipelines:
                self._graph.intakes[receiver, signal] = Intake(pipelines)


def _same(component: Component | None, entry: Declared) -> bool:
    return component is not None and type(component) is entry.cls and component.config == entry.config


def adopt(graph: Graph, previous: Graph) -> None:
    """Point what both graphs share at the new one, in one step: bookings of kept processors, intakes of kept receivers."""
    for key, processor in graph.processors.items():
        if previous.processors.get(key) is processor:
            old = previous.bookings[key]
            old.pipelines = graph.bookings[key].pipelines
            graph.bookings[key] = old
    for key, intake in list(graph.intakes.items()):
        name = key[0]
        if previous.receivers.get(name) is not graph.receivers[name]:
            continue
        if set(graph.accepts(name)) == set(previous.accepts(name)):  # else it was started again, with the new intakes
            kept = previous.intakes[key]
            kept.pipelines = intake.pipelines
            graph.intakes[key] = kept
