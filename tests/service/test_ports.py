"""service.ports: what is said when a port is taken."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.catalog import Catalog
from collector.config.load import Resolved, load
from collector.errors import SidecarError
from collector.service.ports import in_use, listeners, settings_at
from collector.service.run import RunOptions, Service
from tests.support import eventually

CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{debug: {{}}}}
service:
  telemetry: {{metrics: {{address: "127.0.0.1:{own}"}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"""


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def resolved(port: int, own: int = 8888) -> Resolved:
    found = load([f"yaml:{CONFIG.format(port=port, own=own)}"], catalog=Catalog()).resolved
    assert found is not None
    return found


def failed(cause: OSError) -> SidecarError:
    error = SidecarError(f'failed to start "otlp" receiver: {cause}')
    error.__cause__ = cause
    return error


def bound(port: int) -> OSError:
    try:
        with socket.socket() as second:
            second.bind(("127.0.0.1", port))
    except OSError as error:
        return OSError(error.errno, f"error while attempting to bind on address ('127.0.0.1', {port}): address already in use")
    raise AssertionError("the port is free")


def test_a_taken_port_is_named_with_its_owner_and_the_setting_that_moves_it(taken: int) -> None:
    said = in_use(failed(bound(taken)), resolved(taken))
    name = Path("/proc/self/comm").read_text().strip()
    assert said["error"] == f'failed to start "otlp" receiver: 127.0.0.1:{taken} is already in use by {name} (pid {os.getpid()})'
    assert said["hint"].endswith("--set=receivers.otlp.protocols.http.endpoint=HOST:PORT")


def test_grpc_that_does_not_say_why_is_asked_again(taken: int) -> None:
    text = "cannot listen on 127.0.0.1:{0}: Failed to bind to address 127.0.0.1:{0}; set GRPC_VERBOSITY=debug"
    assert f"127.0.0.1:{taken} is already in use" in in_use(failed(OSError(text.format(taken))), resolved(taken))["error"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert in_use(failed(OSError(text.format(port))), resolved(taken)) == {}


def test_other_errors_are_left_as_they_are(taken: int) -> None:
    assert in_use(failed(PermissionError(13, "permission denied")), resolved(taken)) == {}
    assert in_use(RuntimeError("bug"), resolved(taken)) == {}


def test_own_metrics_are_moved_by_their_address(taken: int) -> None:
    assert list(settings_at(taken, resolved(4318, own=taken))) == ["service.telemetry.metrics.address"]
    assert list(settings_at(1, resolved(4318))) == []


def test_without_proc_nobody_is_named(tmp_path: Path, taken: int) -> None:
    assert list(listeners(taken, tmp_path)) == []


async def test_a_sidecar_that_cannot_listen_says_so_and_never_greets(tmp_path, taken, caplog):
    (tmp_path / "config.yaml").write_text(CONFIG.format(port=taken, own=0))
    service = Service(RunOptions(sources=(str(tmp_path / "config.yaml"),)))
    service.greet.append(lambda: pytest.fail("it greeted although it does not listen"))
    found = service.load().resolved
    assert found is not None
    assert await service.run(found) == 1
    said = next(record for record in caplog.records if record.message == "cannot start")
    assert f"127.0.0.1:{taken} is already in use" in vars(said)["error"]
    assert "receivers.otlp.protocols.http.endpoint" in vars(said)["hint"]


async def test_every_problem_of_a_reload_is_a_line_of_the_log(tmp_path, caplog):
    path = tmp_path / "config.yaml"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = CONFIG.format(port=port, own=0)
    path.write_text(text)
    greeted: list[bool] = []
    service = Service(RunOptions(sources=(str(path),), drain_timeout=0.1))
    service.greet.append(lambda: greeted.append(service.host.state() == "running"))
    found = service.load().resolved
    assert found is not None
    running = asyncio.create_task(service.run(found))
    await eventually(lambda: service.host.state() == "running")
    assert greeted == [True]
    path.write_text(text.replace("debug: {}", "debug: {verbosity: loud, sampling: 1}"))
    service.reloads.request()
    await eventually(lambda: service.host.reload_error)
    service._signalled()
    assert await running == 0
    told = [
        record.getMessage() for record in caplog.records if record.name == "collector.service" and record.levelname == "ERROR"
    ]
    assert told[0] == "reload failed: the old configuration stays"
    assert len(told) == 3
    assert all("config.yaml:3:" in line for line in told[1:])
    assert len(service.host.reload_error.splitlines()) == 3
    assert "sampling: 1" not in service.host.reload_error, "a page would show what is written in the file"
