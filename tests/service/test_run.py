"""service.run: start, work, stop."""

import asyncio
import os
import signal

import pytest

from bench.ports import free_port
from collector.errors import ConfigError, Refused
from collector.pipeline.admission import MUCH
from collector.service import run as running
from collector.service.process import WALKER
from collector.service.run import RunOptions, Service, main
from tests.service.sidecar import BASE, COMPONENTS, books
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("quick")


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


async def test_the_log_says_when_it_is_ready_and_by_which_walker_it_reads(sidecar, caplog):
    caplog.set_level("INFO")
    await sidecar.start()
    (ready,) = [record for record in caplog.records if record.message == "ready"]
    assert (ready.pid, ready.walker) == (os.getpid(), WALKER)
    await sidecar.stop()


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


def test_an_unusable_configuration_ends_with_78_and_says_where(tmp_path, capsys):
    file = tmp_path / "config.yaml"
    file.write_text("receivers: {feeder: {typo: 1}}\nexporters: {sink: {}}\nservice: {pipelines: {}}\n")
    assert main(RunOptions(sources=(str(file),), components=(COMPONENTS,))) == 78
    assert f"{file}:1:22" in capsys.readouterr().err


def test_who_waits_for_the_start_is_told_where_otlp_comes_in(tmp_path):
    port = free_port()
    file = tmp_path / "config.yaml"
    file.write_text(
        BASE.replace("{feeder: {}}", f"{{feeder: {{}}, otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}")
    )
    told = []

    def ready(place):
        told.append(place)
        os.kill(os.getpid(), signal.SIGTERM)

    assert main(RunOptions(sources=(str(file),), components=(COMPONENTS,), drain_timeout=0.1, on_ready=ready)) == 0
    assert told == [f"127.0.0.1:{port}"]


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


async def test_while_large_requests_come_memory_is_looked_at_between_quiet_ticks_too_but_not_for_each(sidecar, monkeypatch):
    monkeypatch.setattr(running, "QUIET_TICK", 60.0)
    await sidecar.start()
    monkeypatch.setattr(running, "TICK", 60.0)
    budget, samples = sidecar.service.host.budget, []
    monkeypatch.setattr(running, "resident_bytes", lambda: samples.append(1) or budget.line + 1)
    with budget.hold(MUCH - 1):
        assert samples == []
    with budget.hold(MUCH), pytest.raises(Refused):
        budget.hold(1)
    budget.sample(1)
    with budget.hold(MUCH):
        assert samples == [1]


async def test_an_error_in_one_tick_ends_none_of_the_next(sidecar, monkeypatch):
    calls = []

    def sized():
        calls.append(1)
        raise OSError(24, "too many open files")

    monkeypatch.setattr(running, "resident_bytes", lambda: 1)
    await sidecar.start()
    monkeypatch.setattr(running, "resident_bytes", sized)
    await eventually(lambda: len(calls) > 3)
    monkeypatch.setattr(sidecar.graph.pipelines["traces"], "tick", lambda: calls.append(2) or 1 / 0)
    await eventually(lambda: calls.count(2) > 3)


async def test_a_signal_ends_a_start_that_hangs(sidecar):
    sidecar.file.write_text(BASE.replace("{sink: {", "{sink: {hang: start, "))
    service = sidecar.service = Service(RunOptions(sources=(str(sidecar.file),), components=(COMPONENTS,)))
    sidecar.task = asyncio.create_task(service.run(service.load().resolved))
    await eventually(lambda: service.host.graph is not None)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(sidecar.task, 5) == 0
    assert service.host.graph.exporters["sink"].stopped


async def test_an_error_nobody_foresaw_ends_the_start_with_the_components_name(sidecar, caplog):
    await sidecar.start(BASE.replace("{sink: {", "{sink: {fail: true, "))
    assert await sidecar.task == 1
    assert 'failed to start "sink" exporter: RuntimeError' in " ".join(getattr(r, "error", "") for r in caplog.records)
    assert sidecar.graph.exporters["sink"].stopped


async def test_an_exporter_that_hangs_at_the_end_does_not_keep_the_process(sidecar):
    await sidecar.start(BASE.replace("{sink: {", "{sink: {hang: stop, "))
    await sidecar.feed(1)
    assert await asyncio.wait_for(sidecar.stop(), 5) == 0
    assert books(sidecar)["sink"]["delivered"] == 1
