"""A service on a made-up configuration, running in the loop of the test."""

import asyncio
from pathlib import Path

from collector.model import Signal
from collector.service.run import RunOptions, Service
from tests.support import batch, eventually, span, traces

COMPONENTS = Path(__file__).parent / "components"
BASE = """
receivers: {feeder: {}}
processors: {batch: {}}
exporters: {sink: {sending_queue: {batch: {flush_timeout: 1ms}}}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [feeder], processors: [batch], exporters: [sink]}}
"""
TWO = """
receivers: {feeder: {}}
processors: {holder: {}}
exporters:
  sink: {sending_queue: {batch: {flush_timeout: 1ms}}}
  sink/b: {sending_queue: {batch: {flush_timeout: 1ms}}}
  sink/c: {sending_queue: {batch: {flush_timeout: 1ms}}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [feeder], processors: [], exporters: [sink, sink/b]}}
"""


class Sidecar:
    """A service that runs in this loop."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "config.yaml"
        self.service: Service
        self.task: asyncio.Task[int]

    async def start(self, text: str = BASE, drain: float = 0.2) -> None:
        self.file.write_text(text)
        self.service = Service(RunOptions(sources=(str(self.file),), components=(COMPONENTS,), drain_timeout=drain))
        resolved = self.service.load().resolved
        assert resolved is not None
        self.task = asyncio.create_task(self.service.run(resolved))
        await eventually(lambda: self.service.host.state() == "running" or self.task.done())

    @property
    def graph(self):
        return self.service.host.graph

    async def reload(self, text: str) -> None:
        self.file.write_text(text)
        self.service.reloads.request()
        await self.service.reloads.task

    async def feed(self, count: int = 1) -> None:
        await self.graph.receivers["feeder"].accept[Signal.TRACES](batch(traces(*(span() for _ in range(count)))))

    async def stop(self) -> int:
        self.service._signalled()
        return await self.task

    def terms(self, name: str = "sink") -> dict[str, int]:
        row = self.service.host.status()["accounting"]["traces"][name]
        assert row["balance"] == 0
        return row


def books(sidecar: Sidecar) -> dict[str, dict[str, int]]:
    """Every row, none of which may be off."""
    shown = sidecar.service.host.status()["accounting"].get("traces", {})
    assert all(row["balance"] == 0 for row in shown.values()), shown
    return shown
