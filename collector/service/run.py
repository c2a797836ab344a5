"""Runs the service: start, ticks, reload, drain. The order of each is the list of steps in its function."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collector.catalog import Catalog
from collector.config.load import Loaded, Resolved, config_error, load
from collector.config.telemetry import Logs
from collector.errors import ConfigError, SidecarError
from collector.pipeline.admission import cgroup_limit, limits, resident_bytes, trim
from collector.pipeline.graph import Intake
from collector.service.banner import banner
from collector.service.graph import Builder, Graph, naming
from collector.service.host import ServiceHost
from collector.service.logs import OwnLog
from collector.service.ports import in_use
from collector.service.swap import LAST_MOMENT, Swap, release, start_each, stop_each

if TYPE_CHECKING:
    from collector.service.telemetry import SelfMetrics

EX_CONFIG = 78
TICK = 0.1
MOST_TOLD = 10  # problems of one reload in the log; /status has all
QUIET = 2.0  # an application's last flush often comes after our SIGTERM: keep accepting until that long nothing came


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


def main(options: RunOptions) -> int:
    """Run until a signal ends it; returns the exit code: 0 after a drain, 78 for an unusable configuration."""
    _tune_memory()
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
    log = service.own_log = _own_log(options, loaded.resolved.telemetry.logs)
    if options.dev or sys.stdout.isatty():
        terminal = sys.stdout if sys.stdout.isatty() else sys.stderr
        text = banner(loaded.resolved, dev=options.dev)
        service.greet = lambda: print(text, file=terminal, flush=True)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes plain lines to standard error, beside our log
    log.start()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(service.run(loaded.resolved))
    finally:
        log.stop()


def _own_log(options: RunOptions, settings: Logs) -> OwnLog:
    level = (options.log_level or settings.level).upper()
    style = options.log_format or {"console": "text", "json": "json"}.get(settings.encoding, "auto")
    stream = sys.stderr if settings.output_paths[:1] == ["stderr"] else sys.stdout
    return OwnLog("WARNING" if level == "WARN" else level, style, stream)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _tune_memory() -> None:
    # Two arenas instead of 8 per core: threads of grpc and the scanner would each keep freed memory of their own.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-8, 2)
    gc.set_threshold(20_000, 20, 20)


class Service:
    """One running sidecar."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self.catalog = Catalog(options.components)
        self.host = ServiceHost()
        self.host.reload = self.request_reload
        self.own_log: OwnLog | None = None
        self.greet: Callable[[], None] = lambda: None  # when it listens: addresses of what could not start would mislead
        self._log = logging.getLogger("collector.service")
        self._telemetry: SelfMetrics | None = None
        self._stopping = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._again = False
        self._reload_ok = self.host.meters.gauge("config_last_reload_successful", "1 when the last load worked, else 0.")
        self._info = self.host.meters.gauge("config_info", "The configuration in force.", ("hash",))

    # ---- configuration --------------------------------------------------------------------------------------------

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
        self._reload_ok.set(1)
        self.host.reload_error = ""

    def _clean_own_log(self, graph: Graph) -> None:
        """Own log lines pass the redactor that the configuration has (R-306)."""
        found = (getattr(processor, "redactor", None) for processor in graph.processors.values())
        redactor = next((r for r in found if r is not None), None)
        if self.own_log is not None:
            self.own_log.clean = redactor.text if redactor is not None else str

    # ---- life -----------------------------------------------------------------------------------------------------

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
            self._log.critical("cannot start", extra={"error": _said(error)} | in_use(error, resolved))
            await self._stop()
            stopping.cancel()
            return 1
        self._ready(resolved)
        ticking = asyncio.create_task(self._tick())
        warming = asyncio.create_task(self._warm_up())
        await stopping
        await self._drain()
        ticking.cancel()
        warming.cancel()
        await self._stop()
        return 0

    def _ready(self, resolved: Resolved) -> None:
        self.host.enter("running")
        budget = self.host.budget
        budget.settle(resident_bytes())
        if budget.line > budget.limit - budget.spike:
            self._log.warning(
                "the memory limit is below what the program itself needs: it is not kept",
                extra={"limit_bytes": budget.limit, "refusing_above_bytes": budget.line},
            )
        self.greet()
        self._log.info("ready", extra={"config_hash": resolved.digest, "pid": os.getpid()})
        if self._again:
            self._again = False
            self.request_reload()

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
        gc.collect()
        gc.freeze()  # not on a reload: the old graph would never be collected
        trim()

    def _signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, self.request_reload)

    def _signalled(self) -> None:
        if self._stopping.is_set():
            os._exit(1)  # the second signal ends it at once, in any phase
        self._stopping.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._safely(lambda: self.host.budget.sample(resident_bytes()))
            for pipeline in list(self.host.graph.pipelines.values()) if self.host.graph else ():
                self._safely(pipeline.tick)
                await asyncio.sleep(0)

    def _safely(self, step: Callable[[], None]) -> None:
        # Without ticks nothing held would ever be let go and memory never be watched: no error may end them.
        try:
            step()
        except Exception as error:
            self._log.error("tick failed", extra={"error": type(error).__name__})

    async def _drain(self) -> None:
        """Take the last flush, decide what is held, send. Deadlines are seconds of the loop's clock."""
        host, now = self.host, asyncio.get_running_loop().time
        host.enter("draining")
        started, patience = now(), self._options.drain_timeout
        deadline = started + patience
        self._log.info("draining", extra={"queued": _sum(host), "hint": "a second signal ends it at once"})
        await self._settle_reload(patience / 4)
        graph = host.graph
        assert graph is not None
        graphs = [*host.leaving, graph]
        destinations = {d: None for g in graphs for d in g.destinations.values()}
        for destination in destinations:
            destination.flush()
        await quiet(list(graph.intakes.values()), started, started + patience / 2)
        closing = asyncio.create_task(stop_each(graph.receivers.values()))
        await asyncio.wait({closing}, timeout=max(deadline - now(), 0) / 2)  # a slow client must not take all of the time
        for leaving in host.leaving:
            release(leaving, graph)
        for pipeline in graph.pipelines.values():
            pipeline.drain()
        draining = asyncio.gather(*(d.drain(deadline - now()) for d in destinations))
        while not draining.done():
            done, _ = await asyncio.wait([draining], timeout=1.0)
            if not done:
                left = f"{deadline - now():.0f} s of {patience:g} left"
                self._log.info("draining", extra={"queued": _sum(host), "time": left})
        await asyncio.gather(*(destination.stop() for destination in destinations))
        self._log.info("drained", extra={"seconds": round(now() - started, 1)})

    async def _settle_reload(self, patience: float) -> None:
        """Let a reload that has begun come to its end, so that there is one graph to drain."""
        if self._reloading is not None and not self._reloading.done():
            await asyncio.wait({self._reloading}, timeout=patience)
        for task in self._retiring:
            task.cancel()
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=LAST_MOMENT)

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

    # ---- reload ---------------------------------------------------------------------------------------------------

    def request_reload(self) -> None:
        """Load the configuration again; requests that come meanwhile, or during the start, merge into one more."""
        if self.host.state() == "starting" or (self._reloading is not None and not self._reloading.done()):
            self._again = True
        elif not self._stopping.is_set():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        try:
            loaded = await asyncio.to_thread(self.load)
            assert loaded.resolved is not None
            if self._stopping.is_set():
                return
            await self._swap(loaded.resolved)
        except Exception as error:
            self.host.reload_error = "\n".join(_problems(error))
            self._reload_ok.set(0)
            self._tell_unusable(error)
        else:
            self._log.info("reloaded", extra={"config_hash": self.host.digest})
        if self._again and not self._stopping.is_set():
            self._again = False
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    def _tell_unusable(self, error: Exception) -> None:
        problems = _problems(error)
        self._log.error("reload failed: the old configuration stays", extra={"error": problems[-1]})
        for problem in problems[:-1][:MOST_TOLD]:
            self._log.error("reload: %s", problem)

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
        retiring = asyncio.create_task(swap.retire())
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        if before is not None and before is not page:
            await before.stop()


def _problems(error: Exception) -> list[str]:
    """Line by line, without the excerpts of the file: pages and logs must not show what is written there (a key, perhaps)."""
    return [line for line in _said(error).splitlines() if line[:1].strip()] or [type(error).__name__]


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, SidecarError | OSError) else type(error).__name__


async def quiet(intakes: list[Intake], since: float, until: float) -> None:
    """Return when 2 s have passed since the last data (and since `since`), at the latest at `until`; monotonic seconds."""
    now = asyncio.get_running_loop().time
    while True:
        left = min(max([since, *(intake.last for intake in intakes)]) + QUIET, until) - now()
        if left <= 0:
            return
        await asyncio.sleep(left)


def _sum(host: ServiceHost) -> int:
    return sum(count for _, _, count in host.queued())
