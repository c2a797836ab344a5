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
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector.catalog import Catalog
from collector.component import Extension, Receiver
from collector.config.load import Loaded, Resolved, config_error, load
from collector.config.telemetry import Logs
from collector.errors import ConfigError, SidecarError
from collector.pipeline.admission import cgroup_limit, limits, resident_bytes
from collector.pipeline.graph import Intake
from collector.service.banner import banner
from collector.service.graph import Builder, Graph, adopt
from collector.service.host import ServiceHost
from collector.service.logs import OwnLog

EX_CONFIG = 78
TICK = 0.1
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
        print(banner(loaded.resolved, dev=options.dev), file=terminal, flush=True)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes plain lines to standard error, beside our log
    _tune_memory()
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
        self._log = logging.getLogger("collector.service")
        self._telemetry: Any = None
        self._stopping = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
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
        try:
            await self._start(resolved)
        except (SidecarError, OSError) as error:
            self.host.enter("failed")
            self._log.critical("cannot start", extra={"error": str(error)})
            await self._stop()
            return 1
        self.host.enter("running")
        gc.collect()
        gc.freeze()
        self._log.info("ready", extra={"config_hash": resolved.digest, "pid": os.getpid()})
        ticking = asyncio.create_task(self._tick())
        await self._stopping.wait()
        ticking.cancel()
        await self._drain()
        await self._stop()
        return 0

    async def _start(self, resolved: Resolved) -> None:
        self._apply(resolved)
        graph = self.host.graph = Builder(resolved, self.host, None).build()
        self._clean_own_log(graph)
        await self._self_metrics(resolved)
        await start_each(graph.extensions.items(), "extension", lambda e: e.start())
        await start_each(graph.exporters.items(), "exporter", lambda e: e.start())
        for destination in graph.destinations.values():
            destination.start()
        await start_each(graph.receivers.items(), "receiver", lambda r: r.start(graph.accepts(r.settings.id)))

    async def _self_metrics(self, resolved: Resolved) -> None:
        from collector.service.telemetry import SelfMetrics

        place = resolved.telemetry.self_metrics()
        self.host.without_type_suffix = place is not None and place.without_type_suffix
        wanted = (place.host, place.port) if place is not None else None
        if self._telemetry is not None and (self._telemetry.host, self._telemetry.port) == wanted:
            return
        old, self._telemetry = self._telemetry, None
        if old is not None:
            await old.stop()
        if place is not None:
            self._telemetry = SelfMetrics(self.host, place.host, place.port)
            await self._telemetry.start()

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
            self.host.budget.sample(resident_bytes())
            for pipeline in list(self.host.graph.pipelines.values()) if self.host.graph else ():
                pipeline.tick()
                await asyncio.sleep(0)

    async def _drain(self) -> None:
        host, graph = self.host, self.host.graph
        assert graph is not None
        host.enter("draining")
        now = asyncio.get_running_loop().time
        started = now()
        deadline = started + self._options.drain_timeout
        self._log.info("draining", extra={"queued": _sum(host)})
        await quiet(list(graph.intakes.values()), started, started + self._options.drain_timeout / 2)
        await stop_each(graph.receivers.values())
        for pipeline in graph.pipelines.values():
            pipeline.drain()
        draining = asyncio.gather(*(d.drain(deadline - now()) for d in graph.destinations.values()))
        while not draining.done():
            done, _ = await asyncio.wait([draining], timeout=1.0)
            if not done:
                left = f"{deadline - now():.0f} s of {self._options.drain_timeout:g} left"
                self._log.info("draining", extra={"queued": _sum(host), "time": left})
        for destination in graph.destinations.values():
            await destination.stop()
        self._log.info("drained", extra={"seconds": round(now() - started, 1)})

    async def _stop(self) -> None:
        graph = self.host.graph
        if graph is not None:
            await stop_each(graph.receivers.values())
            for destination in graph.destinations.values():
                await destination.stop()
            await stop_each(graph.exporters.values())
            await stop_each(graph.extensions.values())
        if self._telemetry is not None:
            await self._telemetry.stop()

    # ---- reload ---------------------------------------------------------------------------------------------------

    def request_reload(self) -> None:
        """Load the configuration again; requests that come meanwhile merge into one more."""
        if self._reloading is not None and not self._reloading.done():
            self._again = True
        elif not self._stopping.is_set():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        try:
            loaded = await asyncio.to_thread(self.load)
            assert loaded.resolved is not None
            await self._swap(loaded.resolved)
        except Exception as error:
            text = str(error) if isinstance(error, SidecarError | OSError) else type(error).__name__
            self.host.reload_error = text
            self._reload_ok.set(0)
            self._log.error("reload failed: the old configuration stays", extra={"error": text})
        else:
            self._log.info("reloaded", extra={"config_hash": self.host.digest})
        if self._again:
            self._again = False
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _swap(self, resolved: Resolved) -> None:
        old = self.host.graph
        assert old is not None
        graph = Builder(resolved, self.host, old).build()
        fresh = {
            kind: {name: c for name, c in getattr(graph, kind).items() if getattr(old, kind).get(name) is not c}
            for kind in ("exporters", "extensions", "receivers")
        }
        gone = {
            kind: {name: c for name, c in getattr(old, kind).items() if getattr(graph, kind).get(name) is not c}
            for kind in ("exporters", "extensions", "receivers")
        }
        await start_each(fresh["exporters"].items(), "exporter", lambda e: e.start())
        await self._move_listeners(graph, old, fresh, gone)
        for name in fresh["exporters"]:
            graph.destinations[name].start()
        adopt(graph, old)
        self.host.graph = graph
        self._clean_own_log(graph)
        self._apply(resolved)
        await self._self_metrics(resolved)
        await self._retire(graph, old, gone["exporters"])

    async def _move_listeners(self, graph: Graph, old: Graph, fresh: dict[str, Any], gone: dict[str, Any]) -> None:
        """Stop listeners that change and start their successors; on failure the old ones listen again."""
        kept = [name for name, r in graph.receivers.items() if old.receivers.get(name) is r]
        moved = {name: graph.receivers[name] for name in kept if set(graph.accepts(name)) != set(old.accepts(name))}
        leaving: dict[str, Receiver | Extension] = {**gone["receivers"], **gone["extensions"], **moved}
        await stop_each(leaving.values())
        try:
            await start_each(fresh["extensions"].items(), "extension", lambda e: e.start())
            for receivers in (fresh["receivers"], moved):
                await start_each(receivers.items(), "receiver", lambda r: r.start(graph.accepts(r.settings.id)))
        except Exception:
            await stop_each([*fresh["receivers"].values(), *moved.values(), *fresh["extensions"].values()])
            await stop_each(fresh["exporters"].values())
            await start_each(gone["extensions"].items(), "extension", lambda e: e.start())
            for receivers in (gone["receivers"], moved):
                await start_each(receivers.items(), "receiver", lambda r: r.start(old.accepts(r.settings.id)))
            raise

    async def _retire(self, graph: Graph, old: Graph, exporters: dict[str, Any]) -> None:
        """Empty what is no longer used: processors into the old chain, queues into their backends."""
        for pipeline in old.pipelines.values():
            pipeline.drain(keep=tuple(graph.processors.values()))
        for name, exporter in exporters.items():
            await old.destinations[name].drain(self._options.drain_timeout)
            await old.destinations[name].stop()
            await exporter.stop()


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


async def start_each(components: Iterable[tuple[str, Any]], kind: str, start: Callable[[Any], Awaitable[None]]) -> None:
    """Start components in order. Raises SidecarError with the component's name."""
    for name, component in components:
        try:
            await start(component)
        except SidecarError:
            raise
        except OSError as error:
            raise SidecarError(f'failed to start "{name}" {kind}: {error.strerror or error}') from error


async def stop_each(components: Iterable[Any]) -> None:
    """Stop components at the same time; a failure of one does not keep the others."""
    results = await asyncio.gather(*(component.stop() for component in components), return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            logging.getLogger("collector.service").error("stop failed", extra={"error": type(result).__name__})
