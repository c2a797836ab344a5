"""Answers to probes in every state."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError

from bench.ports import free_port
from collector.extensions.health_check import HealthCheck, go_duration
from tests.support import FakeHost, build

STATES = ("starting", "running", "draining", "failed")
SHOWN = {
    "config_hash": "abc",
    "pipelines": {
        "traces": {"receivers": ["otlp"], "processors": ["redaction"], "exporters": ["otlp_grpc/a", "otlp_grpc/b"]},
        "logs": {"receivers": ["otlp"], "processors": [], "exporters": ["loki"]},
    },
    "exporters": {"otlp_grpc/a": {"down": False}, "otlp_grpc/b": {"down": False}, "loki": {"down": False}},
}


def shown(*down: str) -> dict[str, Any]:
    """A host's status with some backends away."""
    exporters = {name: {"down": name in down, "last_error": "refused" if name in down else ""} for name in SHOWN["exporters"]}
    return {**SHOWN, "exporters": exporters}


class Probe:
    """A running extension, its host, and a way to ask."""

    def __init__(self, extension: HealthCheck, host: FakeHost, url: str, session: aiohttp.ClientSession) -> None:
        self.extension, self.host, self.url, self.session = extension, host, url, session

    async def code(self, path: str) -> int:
        async with self.session.get(self.url + path) as response:
            return response.status

    async def json(self, path: str) -> Any:
        async with self.session.get(self.url + path) as response:
            return await response.json()


@asynccontextmanager
async def probing(config: dict[str, Any] | None = None) -> AsyncIterator[Probe]:
    """An extension on a free port."""
    host, port = FakeHost(), free_port()
    host.shown = shown()
    extension = build(HealthCheck, {"endpoint": f"localhost:{port}", **(config or {})}, host=host)
    await extension.start()
    await extension.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Probe(extension, host, f"http://127.0.0.1:{port}", session)
    finally:
        await extension.stop()
        await extension.stop()


@pytest.mark.parametrize(
    ("path", "codes"),
    [
        ("/", (503, 200, 200, 503)),
        ("/livez", (200, 200, 200, 500)),
        ("/startupz", (503, 200, 200, 503)),
        ("/readyz", (503, 200, 503, 503)),
        ("/status", (503, 200, 503, 500)),
    ],
)
async def test_each_probe_answers_by_the_state_of_the_service(path: str, codes: tuple[int, ...]) -> None:
    """R-1101, R-1102, R-1103."""
    async with probing() as probe:
        for state, code in zip(STATES, codes, strict=True):
            probe.host.now_state = state
            assert await probe.code(path) == code, state


async def test_a_dead_backend_changes_no_probe_and_is_named_on_the_status_page() -> None:
    """R-1104."""
    async with probing() as probe:
        probe.host.shown = shown("otlp_grpc/b")
        for path in ("/", "/livez", "/readyz", "/startupz", "/status"):
            assert await probe.code(path) == 200
        body = await probe.json("/status?verbose")
        assert (body["healthy"], body["status"]) == (True, "StatusRecoverableError")
        traces = body["components"]["pipeline:traces"]
        assert (traces["healthy"], traces["status"]) == (True, "StatusRecoverableError")
        assert traces["components"]["exporter:otlp_grpc/b"]["status"] == "StatusRecoverableError"
        assert traces["components"]["exporter:otlp_grpc/b"]["error"] == "refused"
        assert traces["components"]["exporter:otlp_grpc/a"]["status"] == "StatusOK"
        assert traces["components"]["receiver:otlp"]["status"] == "StatusOK"
        assert traces["components"]["processor:redaction"]["status"] == "StatusOK"
        assert body["components"]["pipeline:logs"]["status"] == "StatusOK"
        assert body["sidecar"]["config_hash"] == "abc"


async def test_the_status_page_shows_one_pipeline_on_request() -> None:
    """R-1104."""
    async with probing() as probe:
        probe.host.shown = shown("loki")
        assert (await probe.json("/status?pipeline=traces"))["status"] == "StatusOK"
        assert (await probe.json("/status?pipeline=logs"))["status"] == "StatusRecoverableError"
        assert set(await probe.json("/status?pipeline=logs&verbose")) >= {"components", "sidecar"}
        assert "components" not in await probe.json("/status")
        assert await probe.code("/status?pipeline=metrics") == 404


async def test_a_backend_that_stays_away_is_an_error_only_where_the_user_asked_for_it() -> None:
    async with probing({"component_health": {"include_recoverable_errors": True, "recovery_duration": "10s"}}) as probe:
        now = 100.0
        probe.extension.clock = lambda: now
        probe.host.shown = shown("loki")
        assert await probe.code("/status") == 200
        now = 109.0
        assert await probe.code("/status") == 200
        now = 110.0
        assert await probe.code("/status") == 500
        assert await probe.code("/status?pipeline=traces") == 200
        body = await probe.json("/status?verbose")
        assert (body["healthy"], body["components"]["pipeline:logs"]["healthy"]) == (False, False)
        assert await probe.code("/readyz") == 200
        probe.host.shown = shown()
        assert await probe.code("/status") == 200
        probe.host.shown = shown("loki")
        assert await probe.code("/status") == 200  # it has been back in between


async def test_states_have_otelcols_words() -> None:
    async with probing() as probe:
        for state, word in zip(STATES, ("StatusStarting", "StatusOK", "StatusStopping", "StatusFatalError"), strict=True):
            probe.host.now_state = state
            body = await probe.json("/status")
            assert (body["status"], body["healthy"]) == (word, state == "running")
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", body["start_time"])


async def test_the_plain_page_answers_as_otelcol_does() -> None:
    async with probing() as probe:
        body = await probe.json("/")
        assert (body["status"], set(body)) == ("Server available", {"status", "upSince", "uptime"})
        assert re.fullmatch(r"[\d.]+s", body["uptime"])
        probe.host.now_state = "starting"
        assert await probe.json("/") == {"status": "Server not available", "upSince": "0001-01-01T00:00:00Z", "uptime": ""}


async def test_the_users_texts_replace_the_json() -> None:
    async with probing({"response_body": {"healthy": "fine", "unhealthy": "not yet"}}) as probe:
        for state, code, text in (("running", 200, "fine"), ("starting", 503, "not yet")):
            probe.host.now_state = state
            async with probe.session.get(probe.url + "/") as response:
                assert (response.status, await response.text()) == (code, text)


async def test_path_moves_the_plain_page_and_the_root_answers_every_other_path() -> None:
    async with probing() as probe:
        assert await probe.code("/anything") == 200
    async with probing({"path": "/health"}) as probe:
        assert await probe.code("/health") == 200
        assert await probe.code("/anything") == 404
        assert await probe.code("/livez") == 200
    async with probing({"path": "/readyz"}) as probe:
        probe.host.now_state = "draining"
        assert await probe.code("/readyz") == 200


async def test_the_second_generations_options_are_understood() -> None:
    port = free_port()
    http = {"endpoint": f"localhost:{port}", "status": {"path": "/health/status"}, "config": {"enabled": False}}
    async with probing({"use_v2": True, "http": http}) as probe:
        probe.url = f"http://127.0.0.1:{port}"
        assert (await probe.json("/health/status"))["status"] == "StatusOK"
    async with probing({"http": {"status": {"enabled": False}}}) as probe:
        assert (await probe.json("/status"))["status"] == "Server available"


async def test_a_taken_address_is_an_error_at_start() -> None:
    async with probing() as probe:
        second = build(HealthCheck, {"endpoint": probe.extension.config.endpoint})
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        await second.stop()


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"grpc": {}}, "grpc"),
        ({"checks": []}, "checks"),
        ({"readiness": "strict"}, "readiness"),
        ({"cors": {}}, "cors"),
        ({"http": {"config": {"enabled": True}}}, "config"),
        ({"endpoint": "13133"}, "address"),
        ({"path": "health"}, "path"),
        ({"other": 1}, "other"),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(config: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        HealthCheck.Config.model_validate(config)


def test_otelcols_options_without_effect_are_accepted() -> None:
    given = {"check_collector_pipeline": {"enabled": True}, "component_health": {"include_permanent_errors": True}}
    assert HealthCheck.Config.model_validate(given).endpoint == "localhost:13133"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (1.5, "1.5s"), (60, "1m0s"), (3725.25, "1h2m5.25s"), (7200, "2h0m0s"), (59.9999, "1m0s")]
)
def test_uptime_is_written_as_go_does(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
