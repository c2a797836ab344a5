"""service.run: start, work, reload, drain."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from collector.errors import ConfigError
from collector.model import Signal
from collector.service import run as running
from collector.service.run import RunOptions, Service, main, quiet
from tests.support import batch, eventually, free_port, span, traces

COMPONENTS = Path(__file__).parent / "components"
BASE = """
receivers: {feeder: {}}
processors: {batch: {}}
exporters: {sink: {sending_queue: {batch: {flush_timeout: 1ms}}}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [feeder], processors: [batch], exporters: [sink]}}
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
        self.service.request_reload()
        await self.service._reloading

    async def feed(self, count: int = 1) -> None:
        await self.graph.receivers["feeder"].accept[Signal.TRACES](batch(traces(*(span() for _ in range(count)))))

    async def stop(self) -> int:
        self.service._signalled()
        return await self.task

    def terms(self, name: str = "sink") -> dict[str, int]:
        row = self.service.host.status()["accounting"]["traces"][name]
        assert row["balance"] == 0
        return row


@pytest.fixture
async def sidecar(tmp_path):
    made = Sidecar(tmp_path)
    yield made
    if not made.task.done():
        await made.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(running, "QUIET", 0.05)


async def test_a_request_goes_through_and_the_status_tells_it(sidecar):
    """R-103."""
    await sidecar.start()
    await sidecar.feed(3)
    await eventually(lambda: sidecar.graph.exporters["sink"].items == 3)
    status = sidecar.service.host.status()
    assert status["state"] == "running"
    assert status["pipelines"]["traces"]["processors"] == ["batch"]
    assert sidecar.terms()["delivered"] == 3
    assert await sidecar.stop() == 0
    assert sidecar.graph.exporters["sink"].stopped
    assert not sidecar.graph.receivers["feeder"].running


async def test_after_sigterm_the_applications_last_flush_is_still_taken(sidecar):
    await sidecar.start(drain=5)
    feeder = sidecar.graph.receivers["feeder"]
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: sidecar.service.host.state() == "draining")
    assert feeder.running
    await sidecar.feed(2)
    assert await sidecar.task == 0
    assert sidecar.graph.exporters["sink"].items == 2


async def test_a_drain_ends_at_its_deadline_and_counts_what_is_left(sidecar):
    await sidecar.start(BASE.replace("{sink: {", "{sink: {down: true, "))
    await sidecar.feed(4)
    assert await sidecar.stop() == 0
    assert sidecar.terms()["dropped_shutdown"] == 4


async def test_a_second_signal_exits_at_once(sidecar, monkeypatch):
    exits = []
    monkeypatch.setattr(running.os, "_exit", exits.append)
    await sidecar.start()
    sidecar.service._signalled()
    sidecar.service._signalled()
    assert exits == [1]
    await sidecar.task


async def test_a_port_in_use_ends_the_start_with_the_components_name(sidecar, caplog):
    await sidecar.start(BASE.replace("feeder: {}", "feeder: {fail: true}"))
    assert await sidecar.task == 1
    assert 'failed to start "feeder" receiver: address in use' in [getattr(r, "error", "") for r in caplog.records]
    assert sidecar.service.host.state() == "failed"


async def test_a_reload_keeps_unchanged_components_their_counters_and_their_queues(sidecar):
    """R-103."""
    await sidecar.start()
    await sidecar.feed(2)
    sink, feeder = sidecar.graph.exporters["sink"], sidecar.graph.receivers["feeder"]
    await sidecar.reload(BASE.replace("processors: [batch]", "processors: []"))
    assert sidecar.graph.exporters["sink"] is sink
    assert sidecar.graph.receivers["feeder"] is feeder
    await sidecar.feed(3)
    await eventually(lambda: sink.items == 5)
    assert sidecar.terms()["accepted"] == 5
    assert sidecar.service.host.status()["pipelines"]["traces"]["processors"] == []


async def test_a_reload_replaces_what_changed_and_empties_the_old_queue(sidecar):
    await sidecar.start()
    old_sink, old_feeder = sidecar.graph.exporters["sink"], sidecar.graph.receivers["feeder"]
    await sidecar.feed(2)
    await sidecar.reload(BASE.replace("{sink: {", "{sink: {mark: 1, ").replace("feeder: {}", "feeder: {mark: 1}"))
    await eventually(lambda: old_sink.stopped)
    assert (old_sink.items, old_feeder.running) == (2, False)
    await sidecar.feed(1)
    await eventually(lambda: sidecar.graph.exporters["sink"].items == 1)
    assert sidecar.terms()["accepted"] == 3


@pytest.mark.parametrize("broken", ["receivers: {feeder: {typo: 1}}", BASE.replace("feeder: {}", "feeder: {fail: true}")])
async def test_a_reload_that_fails_keeps_the_old_configuration_running(sidecar, broken, caplog):
    """R-103."""
    await sidecar.start()
    before = sidecar.service.host.digest
    await sidecar.reload(broken)
    host = sidecar.service.host
    assert host.digest == before
    assert host.status()["last_reload_error"]
    assert host.meters.gauge("config_last_reload_successful", "").value() == 0
    assert sidecar.graph.receivers["feeder"].running
    await sidecar.feed(1)
    await eventually(lambda: sidecar.graph.exporters["sink"].items == 1)
    await sidecar.reload(BASE.replace("1ms", "2ms"))
    assert host.meters.gauge("config_last_reload_successful", "").value() == 1
    assert host.status()["last_reload_error"] == ""


async def test_a_receiver_that_gets_another_signal_starts_again(sidecar):
    await sidecar.start()
    await sidecar.reload(BASE.replace("pipelines: {", "pipelines: {logs: {receivers: [feeder], exporters: [sink]}, "))
    assert set(sidecar.graph.receivers["feeder"].accept) == {Signal.TRACES, Signal.LOGS}
    await sidecar.feed(1)
    await eventually(lambda: sidecar.graph.exporters["sink"].items == 1)


async def test_requests_to_reload_that_come_meanwhile_merge_into_one_more(sidecar):
    await sidecar.start()
    sidecar.file.write_text(BASE.replace("1ms", "2ms"))
    for _ in range(5):
        sidecar.service.request_reload()
    first = sidecar.service._reloading
    await first
    await eventually(lambda: sidecar.service._reloading is not first and sidecar.service._reloading.done())
    assert sidecar.service.host.reload_error == ""


async def test_own_metrics_show_the_books(sidecar):
    """R-564."""
    import aiohttp

    port = free_port()
    text = BASE.replace("level: none", f"readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]")
    await sidecar.start(text)
    await sidecar.feed(3)
    await eventually(lambda: sidecar.graph.exporters["sink"].items == 3)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        shown = await answer.text()
    assert 'otelcol_exporter_sent_spans_total{exporter="sink"} 3.0' in shown
    assert 'collector_items_total{exporter="sink",reason="",signal="traces",state="accepted"} 3.0' in shown
    assert 'collector_queued_items{exporter="sink",signal="traces"} 0.0' in shown


async def test_quiet_waits_for_the_last_data_but_not_past_its_end():
    class Busy:
        last = float("inf")

    loop = asyncio.get_running_loop()
    start = loop.time()
    await quiet([Busy()], start, start + 0.1)
    assert 0.09 < loop.time() - start < 1


def test_an_unusable_configuration_ends_with_78_and_says_where(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text("receivers: {feeder: {typo: 1}}\nexporters: {sink: {}}\nservice: {pipelines: {}}\n")
    assert main(RunOptions(sources=(str(file),), components=(COMPONENTS,))) == 78
    assert f"{file}:1:22" in capsys.readouterr().err


def test_a_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        Service(RunOptions(sources=(str(tmp_path / "nothing.yaml"),))).load()


async def test_processors_are_warmed_after_the_start_and_before_a_reload_uses_them(sidecar):
    text = BASE.replace("batch: {}}", "kettle: {}}").replace("[batch]", "[kettle]")
    await sidecar.start(text)
    (first,) = sidecar.graph.processors.values()
    await eventually(lambda: first.hot)
    await sidecar.reload(text.replace("kettle: {}", "kettle: {broken: true}"))
    (second,) = sidecar.graph.processors.values()
    assert second is not first
    assert second.hot
    await sidecar.feed()


def test_a_signal_before_the_loop_runs_ends_it_too(tmp_path, monkeypatch):
    """As process 1 of a container a program without handlers ignores SIGTERM."""
    exits = []
    monkeypatch.setattr(running.os, "_exit", exits.append)
    monkeypatch.setattr(running.Service, "load", lambda self: os.kill(os.getpid(), signal.SIGTERM) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(RunOptions())
    assert exits == [0]
