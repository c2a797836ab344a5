"""Runs the service: start, ticks, swap, stop. The order of each is the list of steps in its function.

A little longer than most files: these steps share one state and are read together.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from collector.catalog import Catalog
from collector.config.load import Loaded, Resolved, config_error, load
from collector.errors import ConfigError
from collector.pipeline.admission import cgroup_limit, limits, resident_bytes
from collector.service.banner import banner, otlp_http
from collector.service.drain import drain
from collector.service.graph import Builder, Graph, naming
from collector.service.host import ServiceHost
from collector.service.logs import OwnLog, own_log
from collector.service.ports import in_use
from collector.service.process import WALKER, loop_factory, release_code, settle_memory, tune_memory
from collector.service.reload import Reloads, said
from collector.service.swap import LAST_MOMENT, Swap, start_each, stop_each

if TYPE_CHECKING:
    from collector.service.telemetry import SelfMetrics

EX_CONFIG = 78
TICK, QUIET_TICK = 0.1, 0.5  # the second while little comes in: each tick wakes an idle process


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says; `drain_timeout` in seconds."""

    sources: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    components: tuple[Path, ...] = ()
    dev: bool = False
    log_level: str | None = None
    log_format: str | None = None
    drain_timeout: float = 10.0
    relax_unset_env: bool = False
    on_ready: Callable[[str], None] | None = None
    """Called once it listens, with the address of the first OTLP/HTTP receiver, empty for none."""


def main(options: RunOptions) -> int:
    """Run until a signal ends it; returns the exit code: 0 after a drain, 78 for an unusable configuration."""
    tune_memory()
    # As process 1 of a container it would ignore these signals until the loop handles them; nothing is taken before that.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    try:
        return _run(options)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(options: RunOptions) -> int:
    service = Service(options)
    try:
        loaded = service.load()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EX_CONFIG
    for warning in loaded.warnings:
        print(f"warning: {warning.render()}", file=sys.stderr)
    assert loaded.resolved is not None
    log = service.own_log = own_log(loaded.resolved.telemetry.logs, options.log_level, options.log_format)
    if options.dev or sys.stdout.isatty():
        terminal = sys.stdout if sys.stdout.isatty() else sys.stderr
        text = banner(loaded.resolved, dev=options.dev)
        service.greet.append(lambda: print(text, file=terminal, flush=True))
    if options.on_ready is not None:
        service.greet.append(partial(options.on_ready, otlp_http(loaded.resolved)))
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes plain lines to standard error, beside our log
    log.start()
    gc.freeze()  # what was imported stays: `settle_memory` need not look at it while the loop waits, 0.04 s
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(service.run(loaded.resolved))
    finally:
        log.stop()


class Service:
    """One running sidecar."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self.catalog = Catalog(options.components)
        self.host = ServiceHost()
        self.own_log: OwnLog | None = None
        self.greet: list[Callable[[], object]] = []  # when it listens: addresses of what could not start would mislead
        self._log = logging.getLogger("collector.service")
        self._telemetry: SelfMetrics | None = None
        self._stopping = asyncio.Event()
        self._watched = -math.inf
        self.reloads = Reloads(self.host, self.load, self._swap, self._stopping)
        self.host.reload = self.reloads.request
        self._info = self.host.meters.gauge("config_info", "The configuration in force.", ("hash",))

    def load(self) -> Loaded:
        """The checked configuration. Raises ConfigError with every problem."""
        options = self._options
        loaded = load(options.sources, options.sets, catalog=self.catalog, relax_unset_env=options.relax_unset_env)
        if loaded.resolved is None:
            raise config_error(loaded)
        return loaded

    def _apply(self, resolved: Resolved) -> None:
        cgroup = cgroup_limit()
        limiter = next((d.config for d in resolved.processors.values() if d.type == "memory_limiter"), None)
        names = ("limit_mib", "limit_percentage", "spike_limit_mib", "spike_limit_percentage")
        mib, percentage, spike, spike_percentage = (getattr(limiter, name, 0) for name in names)
        self.host.budget.configure(*limits(mib, percentage, spike, spike_percentage, cgroup))
        if self.host.digest:
            self._info.set(0, self.host.digest)
        self.host.digest = resolved.digest
        self._info.set(1, resolved.digest)
        place = resolved.telemetry.self_metrics()
        self.host.without_type_suffix = place is not None and place.without_type_suffix
        self.reloads.worked()

    def _clean_own_log(self, graph: Graph) -> None:
        """Own log lines pass the redactor that the configuration has (R-306)."""
        found = (getattr(processor, "redactor", None) for processor in graph.processors.values())
        redactor = next((r for r in found if r is not None), None)
        if self.own_log is not None:
            self.own_log.clean = redactor.text if redactor is not None else str

    async def run(self, resolved: Resolved) -> int:
        """Start, work until a signal, drain; returns the exit code."""
        self._signals()
        starting = asyncio.create_task(self._start(resolved))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=LAST_MOMENT)
            await self._stop()
            return 0
        if (error := starting.exception()) is not None:
            self.host.enter("failed")
            self._log.critical("cannot start", extra={"error": said(error)} | in_use(error, resolved))
            await self._stop()
            stopping.cancel()
            return 1
        self._ready(resolved)
        beside = [asyncio.create_task(task) for task in (self._tick(), self._warm_up())]
        await stopping
        await drain(self.host, self._options.drain_timeout, self.reloads.settle)
        for task in beside:
            task.cancel()
        await self._stop()
        return 0

    def _ready(self, resolved: Resolved) -> None:
        self.host.enter("running")
        budget = self.host.budget
        budget.settle(resident_bytes())
        budget.on_large = self._large_comes
        if budget.line > budget.limit - budget.spike:
            self._log.warning(
                "the memory limit is below what the program itself needs: it is not kept",
                extra={"limit_bytes": budget.limit, "refusing_above_bytes": budget.line},
            )
        for greet in self.greet:
            greet()
        self._log.info("ready", extra={"config_hash": resolved.digest, "pid": os.getpid(), "walker": WALKER})
        self.reloads.catch_up()

    async def _start(self, resolved: Resolved) -> None:
        self._apply(resolved)
        graph = self.host.graph = Builder(resolved, self.host, None).build()
        self._clean_own_log(graph)
        self._telemetry = await self._self_metrics(resolved)
        await start_each(graph.extensions.items(), "extension", lambda e: e.start())
        await start_each(graph.exporters.items(), "exporter", lambda e: e.start())
        for destination in graph.destinations.values():
            destination.start()
        await start_each(graph.receivers.items(), "receiver", lambda r: r.start(graph.accepts(r.settings.id)))

    async def _self_metrics(self, resolved: Resolved) -> SelfMetrics | None:
        """The page of own metrics, listening; the present one when its address stays."""
        from collector.service.telemetry import SelfMetrics

        place = resolved.telemetry.self_metrics()
        if place is None:
            return None
        if self._telemetry is not None and (self._telemetry.host, self._telemetry.port) == (place.host, place.port):
            return self._telemetry
        page = SelfMetrics(self.host, place.host, place.port)
        with naming("own metrics", "page", "start"):
            await page.start()
        return page

    async def _warm(self, graph: Graph | None) -> None:
        """Compile patterns and load prices beside the loop, so that no batch waits for it."""
        for processor in list(graph.processors.values()) if graph else ():
            try:
                await asyncio.to_thread(processor.warm)
            except Exception as error:
                extra = {"processor": processor.settings.id, "error": type(error).__name__}
                self._log.error("processor not ready for its first batch", extra=extra)

    async def _warm_up(self) -> None:
        """After the start: warm the processors, then give back the memory that all this needed."""
        await self._warm(self.host.graph)
        settle_memory()
        await asyncio.to_thread(release_code)

    def _signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, self.reloads.request)

    def _signalled(self) -> None:
        if self._stopping.is_set():
            os._exit(1)  # the second signal ends it at once, in any phase
        self._stopping.set()

    async def _tick(self) -> None:
        now = self.host.clock.monotonic
        while True:
            due = now() + (pause := TICK if self.host.budget.busy else QUIET_TICK)
            await asyncio.sleep(pause)
            self.host.stalls.look(now() - due)
            self._safely(self._watch)
            for pipeline in list(self.host.graph.pipelines.values()) if self.host.graph else ():
                self._safely(pipeline.tick)
                if pipeline.chain.ticks:
                    await asyncio.sleep(0)

    def _watch(self) -> None:
        """See how much memory is in use."""
        self._watched = self.host.clock.monotonic()
        self.host.budget.sample(resident_bytes())

    def _large_comes(self) -> None:
        """A quiet tick is too far away for what one large request after another may need."""
        self.host.stalls.closely()
        if self.host.clock.monotonic() - self._watched >= TICK:
            self._safely(self._watch)

    def _safely(self, step: Callable[[], None]) -> None:
        # Without ticks nothing held would ever be let go and memory never be watched: no error may end them.
        try:
            step()
        except Exception as error:
            self._log.error("tick failed", extra={"error": type(error).__name__})

    async def _stop(self) -> None:
        graph = self.host.graph
        graphs = [*self.host.leaving, graph] if graph is not None else []
        for each in graphs:
            await stop_each(each.receivers.values(), LAST_MOMENT)
        for destination in [d for each in graphs for d in each.destinations.values()]:
            await destination.stop()
        for each in graphs:
            await stop_each(each.exporters.values(), LAST_MOMENT)
            await stop_each(each.extensions.values(), LAST_MOMENT)
        if self._telemetry is not None:
            await stop_each([self._telemetry], LAST_MOMENT)

    async def _swap(self, resolved: Resolved) -> None:
        old = self.host.graph
        assert old is not None
        swap = Swap(self.host, old, Builder(resolved, self.host, old).build(), self._options.drain_timeout)
        await self._warm(swap.new)
        before, page = self._telemetry, await self._self_metrics(resolved)
        try:
            await swap.start()
        except BaseException:
            if page is not None and page is not before:
                await page.stop()
            raise
        swap.commit()
        self._telemetry = page
        self._apply(resolved)
        self._clean_own_log(swap.new)
        for processor in set(old.processors.values()) & set(swap.new.processors.values()):
            if (again := getattr(processor, "reload_prices", None)) is not None:
                again()  # the file it names may have changed while its settings have not
        self.reloads.retire(swap.retire())
        if before is not None and before is not page:
            await before.stop()
