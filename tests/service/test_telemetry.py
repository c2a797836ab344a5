"""What port 8888 shows."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bench.ports import free_port
from collector.meters import Meters
from collector.service import telemetry
from collector.service.process import WALKER
from collector.service.telemetry import SelfMetrics, exposition
from tests.support import FakeHost

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def meters() -> Meters:
    """Some of everything."""
    out = Meters()
    out.counter("otelcol_receiver_accepted_spans", "Accepted.", ("receiver", "transport")).add(3, "otlp", "grpc")
    out.gauge("otelcol_exporter_queue_size", "Queue.", ("exporter",)).set(2, "otlp_grpc")
    out.histogram("collector_send_seconds", "Sends.").observe(0.3)
    out.counter("collector_unused", "Nothing yet.", ("x",))
    out.counter("llm_cost_usd", "Cost.", ("model",), derived=True).add(0.1, "m")
    out.counter("llm_cost_usd", "Cost.", ("model",), derived=True).add(0.2, "m")
    return out


def read(text: bytes, parse: Any = parse_text) -> dict[str, float]:
    """Sample name -> value of its last series."""
    return {sample.name: sample.value for metric in parse(text.decode()) for sample in metric.samples}


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_own_and_derived_families_are_shown_with_exact_values(accept: str, parse: Any) -> None:
    """R-564."""
    body, content_type = exposition(meters(), accept, own=True)
    found = read(body, parse)
    assert found["otelcol_receiver_accepted_spans_total"] == 3
    assert found["otelcol_exporter_queue_size"] == 2
    assert found["collector_send_seconds_count"] == 1
    assert found["llm_cost_usd_total"] == 0.1 + 0.2
    assert "collector_unused" not in body.decode()
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain; version=0.0.4")


def test_the_derived_families_alone_are_for_the_page_beside_received_metrics() -> None:
    found = read(exposition(meters(), "", own=False)[0])
    assert set(found) == {"llm_cost_usd_total"}


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_own_counters_lose_their_suffix_where_a_reader_asks_for_it(accept: str, parse: Any) -> None:
    """R-564."""
    found = read(exposition(meters(), accept, own=True, without_type_suffix=True)[0], parse)
    assert found["otelcol_receiver_accepted_spans"] == 3
    assert "otelcol_receiver_accepted_spans_total" not in found
    assert "otelcol_process_uptime" in found
    assert found["llm_cost_usd_total"] == 0.1 + 0.2


def test_the_process_and_what_was_built_are_shown() -> None:
    """R-556, R-565 (partly)."""
    found = read(exposition(Meters(), "", own=True)[0])
    assert found["otelcol_process_uptime_total"] > 0
    assert found["otelcol_process_cpu_seconds_total"] > 0
    assert found["otelcol_process_memory_rss"] > 1 << 20
    assert found["collector_build_info"] == 1
    assert found["target_info"] == 1
    (build,) = [metric for metric in telemetry.process_metrics() if metric.name == "collector_build_info"]
    assert build.samples[0].labels.keys() == {"version", "python", "walker"}
    assert build.samples[0].labels["walker"] == WALKER


def test_without_proc_memory_is_left_out_and_uptime_counts_from_the_first_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(telemetry, "_STATM", tmp_path / "none")
    monkeypatch.setattr(telemetry, "_STAT", tmp_path / "none")
    found = read(exposition(Meters(), "", own=True)[0])
    assert "otelcol_process_memory_rss" not in found
    assert found["otelcol_process_uptime_total"] > 0


class Host(FakeHost):
    """Shows real meters."""

    def exposition(self, accept: str, *, own: bool) -> tuple[bytes, str]:
        return exposition(meters(), accept, own=own)


async def test_the_page_answers_in_the_format_asked_for() -> None:
    """R-564."""
    page = SelfMetrics(Host(), "localhost", free_port())
    await page.start()
    await page.start()
    try:
        url = f"http://127.0.0.1:{page.port}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/metrics", headers={"Accept": OPENMETRICS}) as response:
                assert response.headers["Content-Type"].startswith("application/openmetrics-text")
                assert read(await response.read(), parse_openmetrics)["otelcol_receiver_accepted_spans_total"] == 3
            async with session.get(f"{url}/") as response:
                assert response.status == 404
        second = SelfMetrics(Host(), "localhost", page.port)
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
        await second.stop()
    finally:
        await page.stop()
        await page.stop()


@pytest.mark.parametrize("bare", [False, True])
def test_promtool_reads_the_page(bare: bool) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool")
    body = exposition(meters(), "", own=True, without_type_suffix=bare)[0]
    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
    assert b"error" not in done.stderr
    assert done.stdout == b""
