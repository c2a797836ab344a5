"""The exporter as a whole, over real HTTP."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from pydantic import ValidationError

from bench.ports import free_port
from collector.component import Settings
from collector.errors import Permanent
from collector.exporters import prometheus as module
from collector.exporters.prometheus import Prometheus
from collector.model import Payload, Signal
from tests.exporters.prometheus.build import (
    Under,
    bucket_point,
    exponential,
    exponential_point,
    gauge,
    histogram,
    payload,
    point,
    total,
)
from tests.exporters.prometheus.build import request as message
from tests.support import Drops, FakeHost


async def fetch(url: str, **headers: str) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status, response.headers["Content-Type"], await response.read()


def run(command: list[str], text: str = "") -> str:
    """What a command that succeeds prints."""
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def listening(**config: Any) -> tuple[Under, str]:
    """An exporter on a free port and its address."""
    port = free_port()
    return Under(endpoint=f"localhost:{port}", **config), f"http://127.0.0.1:{port}"


async def test_a_scrape_shows_received_and_derived_metrics_in_the_format_asked_for() -> None:
    """R-501."""
    under, url = listening()
    under.meters.counter("llm_cost_usd", "Cost.", ("model",), derived=True).add(1.25, "m")
    under.meters.counter("otelcol_receiver_accepted_spans", "Own.").add(1)
    await under.exporter.start()
    try:
        assert await under.send(total("calls", point(3))) == 0
        status, kind, body = await fetch(f"{url}/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b'calls_total{instance="i-1",job="api"} 3.0\n' in body
        assert b'llm_cost_usd_total{model="m"} 1.25\n' in body
        assert b"otelcol_" not in body
        status, kind, body = await fetch(f"{url}/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert (status, kind) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        assert body.endswith(b"# EOF\n")
        assert (await fetch(f"{url}/other"))[0] == 404
        async with aiohttp.ClientSession() as session, session.post(f"{url}/metrics") as response:
            assert response.status == 405
    finally:
        await under.exporter.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await fetch(f"{url}/metrics")


async def test_the_age_of_the_last_scrape_is_known() -> None:
    """R-1105 (partly)."""
    under, url = listening()
    await under.exporter.start()
    try:
        assert under.exporter._scraped.value("test") == 0
        before = time.time()
        await fetch(f"{url}/metrics")
        assert before <= under.exporter._scraped.value("test") <= time.time()
    finally:
        await under.exporter.stop()


async def test_path_and_port_are_settings() -> None:
    """R-501."""
    under, url = listening(path="/app", enable_open_metrics=False)
    await under.exporter.start()
    try:
        status, kind, _ = await fetch(f"{url}/app", Accept="application/openmetrics-text")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    finally:
        await under.exporter.stop()


async def test_many_series_are_written_beside_the_loop() -> None:
    under, url = listening(max_label_values=0)
    await under.exporter.start()
    try:
        await under.send(gauge("load", *(point(n, {"n": str(n)}) for n in range(module.BIG + 1))))
        _, _, body = await fetch(f"{url}/metrics")
        assert body.count(b"load{") == module.BIG + 1
    finally:
        await under.exporter.stop()


@pytest.mark.parametrize(
    "metrics",
    [[gauge("load", *(point(n, {"n": str(n)}) for n in range(module.SLICE * 5)))], [gauge("load")] * module.SLICE * 5],
    ids=["many points", "many metrics without any"],
)
async def test_a_large_request_leaves_the_loop_free_in_between(metrics: list[Metric]) -> None:
    under = Under(max_label_values=0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    await under.send(*metrics)
    task.cancel()
    assert turns >= 5


async def test_the_payload_is_left_as_it_is_and_empty_ones_are_fine() -> None:
    under = Under()
    sent = payload(message(gauge("load", point(1))))
    before = bytes(sent.data)
    assert await under.exporter.send(sent) == 0
    assert sent.data == before
    assert await under.exporter.send(Payload(Signal.METRICS, b"", 0)) == 0


async def test_bytes_that_are_no_request_are_refused_for_good() -> None:
    with pytest.raises(Permanent):
        await Under().exporter.send(Payload(Signal.METRICS, b"\xff\xff", 1))


async def test_series_expire_at_a_scrape_and_while_nobody_scrapes() -> None:
    """R-509."""
    under, url = listening(metric_expiration="10s")
    await under.exporter.start()
    try:
        await under.send(gauge("load", point(1)))
        under.now += 11
        assert b"load" not in (await fetch(f"{url}/metrics"))[2]
    finally:
        await under.exporter.stop()
    await under.send(gauge("load", point(1)))
    under.now += module.SWEEP + 1
    await under.send(gauge("other", point(1)))
    assert set(under.exporter.store.families) == {"other"}


async def test_a_derived_family_gives_way_to_one_that_an_application_sends_and_the_conflict_is_counted() -> None:
    """R-505."""
    under = Under()
    derived = under.meters.counter("llm_requests", "Derived.", ("model",), derived=True)
    derived.add(5, "m")
    under.meters.counter("llm_empty", "Nothing yet.", ("model",), derived=True)
    assert under.values("llm_requests_total") == [5.0]
    await under.send(total("llm.requests", point(7)))
    for _ in range(2):
        assert under.values("llm_requests_total") == [7.0]
    assert under.exporter._conflicts.value("llm_requests") == 1
    under.now += 1000
    under.exporter.store.expire(under.now - 1)
    assert under.values("llm_requests_total") == [5.0]


async def test_derived_series_of_a_service_carry_its_job_as_received_ones_do() -> None:
    """R-506."""
    under = Under()
    under.meters.counter("llm_requests", "Calls.", ("service", "model"), derived=True).add(2, "shop", "m")
    under.meters.counter("llm_named", "Calls.", ("service", "job"), derived=True).add(3, "shop", "nightly")
    under.meters.counter("pii_detections", "Findings.", ("pii_type",), derived=True).add(1, "email")
    shown = under.text()
    assert 'llm_requests_total{job="shop",model="m",service="shop"} 2.0' in shown
    assert 'llm_named_total{job="nightly",service="shop"} 3.0' in shown
    assert 'pii_detections_total{pii_type="email"} 1.0' in shown


async def test_derived_metrics_can_be_switched_off() -> None:
    under = Under(derived_metrics=False)
    under.meters.counter("llm_requests", "Derived.", derived=True).add(1)
    assert under.text() == ""


async def test_counters_survive_a_reload_that_keeps_their_names() -> None:
    under = Under()
    await under.send(total("calls", point(3, time=1), temporality=1))

    def successor(**config: Any) -> Prometheus:
        settings = under.exporter.settings
        made = Settings(settings.id, settings.meters, settings.log, FakeHost(), Drops())
        out = Prometheus(Prometheus.Config.model_validate({"endpoint": "localhost:0", **config}), made)
        out.clock = lambda: under.now
        return out

    under.exporter = successor(metric_expiration="1m")
    await under.send(total("calls", point(4, time=2), temporality=1))
    assert under.values("calls_total") == [7.0]
    under.exporter = successor(namespace="other")
    assert under.text() == ""


async def test_a_successor_takes_the_port_over_and_gives_it_back_when_it_goes_first() -> None:
    under, url = listening()
    settings = under.exporter.settings
    successor = Prometheus(under.exporter.config.model_copy(update={"path": "/new"}), settings)
    await under.exporter.start()
    await under.exporter.start()
    await successor.start()
    assert (await fetch(f"{url}/metrics"))[0] == 404
    assert (await fetch(f"{url}/new"))[0] == 200
    await successor.stop()
    assert (await fetch(f"{url}/metrics"))[0] == 200
    await successor.start()
    await under.exporter.stop()
    assert (await fetch(f"{url}/new"))[0] == 200
    await successor.stop()
    await successor.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await fetch(f"{url}/new")


async def test_a_taken_address_is_an_error_at_start() -> None:
    first, _ = listening()
    second = Under(endpoint=first.exporter.config.endpoint)
    await first.exporter.start()
    try:
        with pytest.raises(OSError, match="address already in use"):
            await second.exporter.start()
    finally:
        await first.exporter.stop()
    await second.exporter.stop()


async def test_points_that_cannot_be_shown_are_named_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    under = Under()
    for _ in range(3):
        assert await under.send(total("calls", point(1), temporality=0)) == 1
    assert len(caplog.records) == 1
    assert (caplog.records[0].reason, caplog.records[0].metric) == ("no_temporality", "calls_total")  # type: ignore[attr-defined]


async def test_the_overflow_counter_stays_bounded_when_labels_are_many() -> None:
    """R-504."""
    under = Under(max_label_values=1)
    await under.send(gauge("load", *(point(1, {f"k{n}": "x"}) for n in range(150))))
    series = under.meters.counter("label_overflow", "", ("label",)).series()
    assert len(series) == 99
    assert sum(series.values()) == 150


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"endpoint": "nowhere"},
        {"endpoint": "localhost:1", "path": "metrics"},
        {"endpoint": "localhost:1", "translation_strategy": "Other"},
        {"endpoint": "localhost:1", "metric_expiration": "0s"},
        {"endpoint": "localhost:1", "sending_queue": {}},
        {"endpoint": "localhost:1", "cors": {}},
    ],
)
def test_a_setting_that_cannot_be_used_is_an_error(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Prometheus.Config.model_validate(config)


async def test_the_page_is_served_over_tls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    run([*command, "-keyout", str(key), "-out", str(cert)])
    under, url = listening(tls={"cert_file": str(cert), "key_file": str(key)})
    await under.exporter.start()
    try:
        address = url.replace("http", "https")
        async with aiohttp.ClientSession() as session, session.get(f"{address}/metrics", ssl=False) as response:
            assert response.status == 200
    finally:
        await under.exporter.stop()
    broken, _ = listening(tls={"cert_file": str(tmp_path / "none"), "key_file": str(key)})
    with pytest.raises(OSError, match="none"):
        await broken.exporter.start()


async def test_promtool_finds_nothing_to_say_about_the_page() -> None:
    """R-501."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool")
    under = Under()
    await under.send(
        total("calls", point(3, {"a.b": 'quote " slash \\ line \n end'}), unit="1"),
        gauge("memory.usage", point(1.5), unit="By"),
        histogram("request.duration", bucket_point([0.5, 10], [1, 2, 3], total=9.5), unit="s"),
        exponential("request.size", exponential_point(2, {-3: 1, 5: 2}, {1: 1}, zero=1)),
        resource={"service.name": "api", "host.name": "h"},
        scope="lib",
    )
    under.meters.histogram("llm_latency_seconds", "Latency.", ("model",), derived=True).observe(1.0, "m")
    assert run([promtool, "check", "metrics"], under.text()) == ""
