"""Own metrics on port 8888: `otelcol_*` as otelcol names them, ours beside them, and those derived from telemetry.

Counters carry `_total`; `without_type_suffix` takes it away from our own (otelcol-contract.md section 8), never both at once.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

from collector import __version__
from collector.fields import listen_address
from collector.meters import Meters
from collector.service.process import WALKER, import_aiohttp

if TYPE_CHECKING:
    from aiohttp import web

    from collector.service.host import ServiceHost

_LOADED = time.monotonic()
_STATM, _STAT = Path("/proc/self/statm"), Path("/proc/self/stat")


class SelfMetrics:
    """Serves `GET /metrics` on one address. Raises OSError in `start` when the address is taken."""

    def __init__(self, source: ServiceHost, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._source = source
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen."""
        if self._runner is not None:
            return
        import_aiohttp()
        from aiohttp import web

        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, *listen_address(f"[{self.host}]:{self.port}")).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Close the port."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        from aiohttp import web

        body, content_type = self._source.exposition(request.headers.get("Accept", ""), own=True)
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response


def exposition(meters: Meters, accept: str, *, own: bool, without_type_suffix: bool = False) -> tuple[bytes, str]:
    """Metrics text and its content type: `own` = all for port 8888, else the derived families only.

    `accept`: the scraper's header; OpenMetrics when it asks for it, text 0.0.4 otherwise.
    """
    encoder, content_type = choose_encoder(accept)
    return encoder(_Families(meters, own, without_type_suffix)), content_type


class _Families:
    """What prometheus_client's writers read from."""

    def __init__(self, meters: Meters, own: bool, bare: bool) -> None:
        self._meters, self._own, self._bare = meters, own, bare

    def collect(self) -> Iterable[Metric]:
        if self._own:
            for metric in (*process_metrics(), *_collect(self._meters.own)):
                yield without_suffix(metric) if self._bare and metric.type == "counter" else metric
        yield from _collect(self._meters.derived)


def _collect(registry: CollectorRegistry) -> Iterator[Metric]:
    """Families that have samples: a family of labels without any is only noise to a reader."""
    return (metric for metric in registry.collect() if metric.samples)


def without_suffix(counter: Metric) -> Metric:
    """The counter under its bare name, as an untyped family: the text formats know no counter without `_total`."""
    bare = Metric(counter.name, counter.documentation, "unknown")
    bare.samples = [sample._replace(name=counter.name, exemplar=None) for sample in counter.samples]
    return bare


def process_metrics() -> Iterator[Metric]:
    """Uptime, CPU and memory of this process, and what was built."""
    yield _one("otelcol_process_uptime", "Uptime of the process in seconds.", "counter", _uptime())
    yield _one("otelcol_process_cpu_seconds", "Total CPU user and system time in seconds.", "counter", time.process_time())
    if (resident := _resident()) is not None:
        yield _one("otelcol_process_memory_rss", "Total physical memory (resident set size) in bytes.", "gauge", resident)
    build = {"version": __version__, "python": platform.python_version(), "walker": WALKER}
    yield _one("collector_build_info", "What is running.", "gauge", 1, build)
    target = Metric("target", "Target metadata", "info")
    target.add_sample("target_info", {"service_name": "otel-sidecar", "service_version": __version__}, 1)
    yield target


def _one(name: str, text: str, kind: str, value: float, labels: dict[str, str] | None = None) -> Metric:
    metric = Metric(name, text, kind)
    metric.add_sample(f"{name}_total" if kind == "counter" else name, labels or {}, value)
    return metric


def _uptime() -> float:
    try:
        started = int(_STAT.read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _LOADED


def _resident() -> int | None:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None  # no /proc on this system: the metric is left out rather than guessed
