"""Fixtures of the end-to-end suite: one Jaeger, Loki and Prometheus for the whole session, a fresh sidecar for each module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import BACKENDS, Jaeger, Loki, Prometheus, Sidecar


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these tests out unless they are asked for by marker or by path."""
    asked = config.option.markexpr == "e2e" or any("e2e" in argument for argument in config.args)
    return None if asked else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Jaeger, Loki, Prometheus]]:
    missing = [name for name in ("jaeger", "loki", "telemetrygen") if not (BACKENDS / name).exists()]
    assert not missing, f"{', '.join(missing)} not built: run tests/e2e/build_backends.sh"
    folder = tmp_path_factory.mktemp("backends")
    programs = Jaeger(folder), Loki(folder), Prometheus(folder)
    try:
        for program in programs:
            program.start()
        for program in programs:
            program.await_ready()
        yield programs
    finally:
        for program in programs:
            program.terminate()
        for program in programs:
            program.wait()


@pytest.fixture(scope="session")
def jaeger(backends: tuple[Jaeger, Loki, Prometheus]) -> Jaeger:
    return backends[0]


@pytest.fixture(scope="session")
def loki(backends: tuple[Jaeger, Loki, Prometheus]) -> Loki:
    return backends[1]


@pytest.fixture(scope="session")
def prometheus(backends: tuple[Jaeger, Loki, Prometheus]) -> Prometheus:
    return backends[2]


Start = Callable[[Mapping[str, Any]], Sidecar]


@pytest.fixture(scope="module")
def start_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts sidecars with a config; all are stopped when the module is done."""
    running: list[Sidecar] = []

    def start(config: Mapping[str, Any]) -> Sidecar:
        sidecar = Sidecar(tmp_path_factory.mktemp("sidecar"), config)
        running.append(sidecar)
        return sidecar.start().await_ready(20)

    yield start
    for sidecar in running:
        sidecar.terminate()
    for sidecar in running:
        sidecar.wait()
