"""The whole program as a process, a backend that does as it is told, and a client: what the scenarios play with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.ports import free_port
from tests.support import eventually, span, traces

PROTOBUF = {"Content-Type": "application/x-protobuf"}


class Backend:
    """An OTLP HTTP backend; `status` is its answer, `delay` how long it takes."""

    def __init__(self) -> None:
        self.spans: Counter[bytes] = Counter()
        self.status, self.delay = 200, 0.0
        self.port = free_port()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(self.delay)
        if self.status == 200:
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.spans.update(s.span_id for scope in group.scope_spans for s in scope.spans)
        return web.Response(status=self.status, headers={"Content-Type": "application/x-protobuf"})


@asynccontextmanager
async def backend() -> AsyncIterator[Backend]:
    """A backend that listens."""
    made = Backend()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    try:
        yield made
    finally:
        await runner.cleanup()


class Program:
    """A sidecar with an HTTP receiver and a health page."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.file, self.log = folder / "config.yaml", folder / "log"
        self.session = session
        self.http, self.health = free_port(), free_port()
        self.process: Any = None
        self.accepted: set[bytes] = set()

    def configuration(self, *backends: Backend, **changes: Any) -> dict[str, Any]:
        """Traces to all backends, each with settings of its own in `changes["b0"]`, `changes["b1"]`."""
        exporters = {
            f"otlp_http/b{i}": {"endpoint": f"http://127.0.0.1:{b.port}", "compression": "none", **changes.get(f"b{i}", {})}
            for i, b in enumerate(backends)
        }
        return {
            "receivers": {
                "otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{self.http}"}, **changes.get("protocols", {})}}
            },
            "processors": changes.get("processors", {}),
            "exporters": exporters,
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{self.health}"}},
            "service": {
                "extensions": ["health_check"],
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {
                    "traces": {
                        "receivers": ["otlp"],
                        "processors": list(changes.get("processors", {})),
                        "exporters": list(exporters),
                    }
                },
            },
        }

    def write(self, configuration: dict[str, Any]) -> None:
        """Put the configuration in place, in one step."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(configuration))
        fresh.replace(self.file)

    async def start(self, configuration: dict[str, Any], *arguments: str) -> None:
        """Start and wait until it is ready or has ended."""
        self.write(configuration)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "collector", "--config", str(self.file), *arguments, stdout=log, stderr=log
            )
        await self.until(lambda shown: shown["state"] == "running")

    async def until(self, condition: Any, timeout: float = 20) -> dict[str, Any]:
        """The status page of the sidecar once `condition` holds for it."""
        shown: dict[str, Any] = {}

        async def look() -> bool:
            try:
                shown.update((await self.status())["sidecar"])
            except (aiohttp.ClientError, OSError):
                return self.process.returncode is not None
            return bool(condition(shown))

        async with asyncio.timeout(timeout):
            while not await look():  # noqa: ASYNC110 - another process is asked
                await asyncio.sleep(0.02)
        return shown

    async def status(self) -> dict[str, Any]:
        """The status page."""
        async with self.session.get(f"http://127.0.0.1:{self.health}/status?verbose") as answer:
            return dict(json.loads(await answer.read()))

    async def probe(self, path: str) -> int:
        """Code of a probe."""
        async with self.session.get(f"http://127.0.0.1:{self.health}{path}") as answer:
            return answer.status

    async def send(self, count: int = 5) -> int:
        """Send spans; remembers those that were accepted. 0 when nobody answers."""
        made = [span() for _ in range(count)]
        body = traces(*made).SerializeToString()
        try:
            async with self.session.post(f"http://127.0.0.1:{self.http}/v1/traces", data=body, headers=PROTOBUF) as answer:
                if answer.status == 200:
                    self.accepted.update(s.span_id for s in made)
                return answer.status
        except (aiohttp.ClientError, OSError):
            return 0

    def descriptors(self) -> int:
        """Open file descriptors of the process."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def end(self, timeout: float = 20) -> int:
        """Exit code after SIGTERM."""
        if self.process.returncode is None:
            self.signal(signal.SIGTERM)
        async with asyncio.timeout(timeout):
            code = int(await self.process.wait())
        print(self.log.read_text()[-4000:])  # shown when the test fails
        return code


@asynccontextmanager
async def program(folder: Path) -> AsyncIterator[Program]:
    """A sidecar, not yet started, that is gone at the end."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        made = Program(folder, session)
        try:
            yield made
        finally:
            if made.process is not None and made.process.returncode is None:
                made.process.kill()
                await made.process.wait()


async def delivered(backend: Backend, wanted: set[bytes], timeout: float = 20) -> None:
    """Wait until the backend has all of them."""
    await eventually(lambda: wanted <= backend.spans.keys(), timeout, "everything delivered")
