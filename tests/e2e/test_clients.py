"""Unmodified clients: what they sent is in Jaeger, Loki and Prometheus, priced and redacted.

Each client runs as its own process and is told nothing but OTEL_* variables.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.pipelines import standard
from tests.e2e.stack import BACKENDS, LOOPBACK, Jaeger, Loki, Prometheus, Sidecar, get_json, wait_for

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def environments() -> Path:
    """Folder of the clients that need an environment of their own."""
    built = subprocess.run([HERE / "build_clients.sh"], capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.split()[-1])


@pytest.fixture(scope="module")
def sidecar(start_sidecar: Start, jaeger: Jaeger, loki: Loki, prometheus: Prometheus) -> Sidecar:
    sidecar = start_sidecar(standard(jaeger, loki))
    prometheus.scrape(sidecar.metrics)
    return sidecar


def run(command: list[str | Path], env: Mapping[str, str]) -> str:
    """What a client that must succeed wrote."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run([str(part) for part in command], env={**clean, **env}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def sdk(command: list[str | Path], port: int, service: str, **env: str) -> dict[str, Any]:
    """What an SDK client says it sent."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{port}", "OTEL_SERVICE_NAME": service}
    output = run(command, {**endpoint, **env})
    assert "rror" not in output, output
    return json.loads(output.splitlines()[-1])


@pytest.fixture(scope="module", params=["grpc", "http"])
def python_client(request: pytest.FixtureRequest, sidecar: Sidecar) -> tuple[str, str, dict[str, Any]]:
    """Protocol, service name and truth of a run of the Python SDK."""
    protocol = request.param
    port = sidecar.grpc if protocol == "grpc" else sidecar.http
    service = f"python-{protocol}"
    return protocol, service, sdk([sys.executable, HERE / "clients" / "python_sdk.py", protocol], port, service)


Run = tuple[str, str, dict[str, Any]]


def arrived(jaeger: Jaeger, service: str, traces: list[str], spans: int) -> dict[str, list[dict[str, Any]]]:
    """Spans of these traces by trace id, once there are `spans` in each."""

    def complete() -> dict[str, list[dict[str, Any]]] | None:
        found: dict[str, list[dict[str, Any]]] = {}
        for each in jaeger.spans(service):
            found.setdefault(each["traceID"].zfill(32), []).append(each)
        whole = {key for key, value in found.items() if len(value) == spans}
        return found if set(traces) <= whole else None

    return wait_for(complete, 20, f"{len(traces)} traces of {service} with {spans} spans each")


def test_python_traces_are_in_jaeger_with_their_cost_and_without_the_email(python_client: Run, jaeger: Jaeger) -> None:
    """R-101, R-102, R-105 (partly), R-110 (partly), R-301 (partly), R-409, R-701, R-1301."""
    _, service, sent = python_client
    found = arrived(jaeger, service, sent["traces"], 2)
    calls = [each for spans in found.values() for each in spans if each["operationName"] == "chat gpt-4o"]
    assert math.fsum(each["tags"]["gen_ai.usage.cost"] for each in calls) == pytest.approx(sent["cost"], abs=1e-9)
    for each in calls:
        (parent,) = [other for other in found[each["traceID"].zfill(32)] if other is not each]
        assert each["references"][0]["spanID"] == parent["spanID"]
        assert "anna.python" not in json.dumps(each)
        assert each["process"]["telemetry.sdk.language"] == "python"


def test_python_log_lines_are_in_loki_and_lead_to_their_trace_in_jaeger(python_client: Run, jaeger: Jaeger, loki: Loki) -> None:
    """R-109 (partly), R-601, R-602 (partly), R-605, R-606 (partly), R-1114 (partly)."""
    _, service, sent = python_client
    arrived(jaeger, service, sent["traces"], 2)
    lines = wait_for(lambda: found if len(found := loki.lines(f'{{service="{service}"}}')) == 6 else None, 20, "six lines")
    assert {each["metadata"]["trace_id"] for each in lines} == set(sent["traces"])
    for each in lines:
        assert each["labels"]["level"] == "info"
        assert not {"trace_id", "span_id", "request_id", "user_id"} & each["labels"].keys()
        trace = jaeger.trace(each["metadata"]["trace_id"])
        assert trace is not None
        assert each["metadata"]["span_id"] in {span["spanID"] for span in trace["spans"]}
        line = json.loads(each["line"])
        assert line["tokens_used"] == 1200
        assert line["request_id"].startswith(f"req-{sent['pid']}-")
        (by_request,) = loki.lines(f'{{service="{service}"}} | request_id="{line["request_id"]}"')
        assert by_request["metadata"]["trace_id"] == each["metadata"]["trace_id"]


def test_python_counter_reads_back_exactly(python_client: Run, prometheus: Prometheus) -> None:
    """R-509 (partly)."""
    protocol, service, sent = python_client
    series = f'app_jobs_total{{job="{service}",route="/chat",via="{protocol}"}}'
    wait_for(lambda: prometheus.query(series), 20, series)
    assert prometheus.value(f"sum({series})") == sent["jobs"]


def test_python_histogram_reads_back_exactly(python_client: Run, prometheus: Prometheus) -> None:
    """R-509 (partly)."""
    _, service, sent = python_client
    name = "app_duration_seconds"
    wait_for(lambda: prometheus.query(f'{name}_count{{job="{service}"}}'), 20, name)
    assert prometheus.value(f'sum({name}_count{{job="{service}"}})') == len(sent["durations"])
    assert prometheus.value(f'sum({name}_sum{{job="{service}"}})') == pytest.approx(math.fsum(sent["durations"]), rel=1e-15)
    buckets = prometheus.query(f'{name}_bucket{{job="{service}"}}')
    assert len(buckets) == 16, "the SDK's fifteen bounds and +Inf"
    for each in buckets:
        bound = float(each["metric"]["le"])
        assert float(each["value"][1]) == sum(value <= bound for value in sent["durations"]), bound


def test_python_exponential_histogram_reads_back_exactly(python_client: Run, prometheus: Prometheus) -> None:
    """R-509 (partly)."""
    _, service, sent = python_client
    series = f'app_size_bytes{{job="{service}"}}'
    (found,) = wait_for(lambda: prometheus.query(series), 20, series)
    histogram = found["histogram"][1]
    assert int(histogram["count"]) == len(sent["sizes"])
    assert float(histogram["sum"]) == math.fsum(sent["sizes"])
    assert sum(float(count) for *_, count in histogram["buckets"]) == len(sent["sizes"])
    for _, low, high, count in histogram["buckets"]:
        lower, upper = float(low), float(high)
        inside = [value for value in sent["sizes"] if lower < value <= upper or (lower < 0 and value == 0)]
        assert len(inside) == float(count), (low, high)
        assert lower < 0 or upper / lower < 2 ** (1 / 8) + 1e-9, "buckets as fine as the SDK made them"


def test_an_exemplar_in_prometheus_leads_to_its_trace_in_jaeger(
    python_client: Run, prometheus: Prometheus, jaeger: Jaeger
) -> None:
    """R-109 (partly)."""
    _, service, sent = python_client
    arrived(jaeger, service, sent["traces"], 2)
    url = f"http://{LOOPBACK}:{prometheus.port}/api/v1/query_exemplars"
    asked = {"query": f'app_wait_seconds_bucket{{job="{service}"}}', "start": time.time() - 600, "end": time.time() + 60}
    (found, *_) = wait_for(lambda: get_json(url, asked)["data"], 20, "exemplars")
    labels = found["exemplars"][0]["labels"]
    assert labels["trace_id"] in sent["traces"]
    trace = jaeger.trace(labels["trace_id"])
    assert trace is not None
    assert labels["span_id"] in {span["spanID"] for span in trace["spans"]}


@pytest.mark.parametrize("protocol", ["http/json", "http/protobuf"])
def test_the_node_sdk_works(
    protocol: str, environments: Path, sidecar: Sidecar, jaeger: Jaeger, loki: Loki, prometheus: Prometheus
) -> None:
    """R-101, R-102, R-1301."""
    service = f"node-{protocol.rpartition('/')[2]}"
    signals = {f"OTEL_{name}_EXPORTER": "otlp" for name in ("TRACES", "METRICS", "LOGS")}
    client = ["node", environments / "node" / "client.mjs"]
    sent = sdk(client, sidecar.http, service, OTEL_EXPORTER_OTLP_PROTOCOL=protocol, **signals)
    found = arrived(jaeger, service, sent["traces"], 2)
    calls = [each for spans in found.values() for each in spans if each["operationName"] == "chat gpt-4o"]
    assert math.fsum(each["tags"]["gen_ai.usage.cost"] for each in calls) == pytest.approx(sent["cost"], abs=1e-9)
    assert "anna.node" not in json.dumps(calls)
    assert {each["tags"]["app.ratio"] for each in calls} == {0.5}
    series = f'node_jobs_total{{job="{service}",queue="fast"}}'
    wait_for(lambda: prometheus.query(series), 20, series)
    assert prometheus.value(f"sum({series})") == sent["jobs"]
    lines = wait_for(lambda: found if len(found := loki.lines(f'{{service="{service}"}}')) == 5 else None, 20, "five lines")
    assert {each["metadata"]["trace_id"] for each in lines} == set(sent["traces"])


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_telemetrygen_works(transport: str, sidecar: Sidecar, jaeger: Jaeger, loki: Loki, prometheus: Prometheus) -> None:
    """R-101."""
    service, port = f"telemetrygen-{transport}", sidecar.grpc if transport == "grpc" else sidecar.http
    common = ["--otlp-insecure", "--otlp-endpoint", f"{LOOPBACK}:{port}", "--service", service, "--rate", "0"]
    common += ["--otlp-http"] if transport == "http" else []
    run([BACKENDS / "telemetrygen", "traces", *common, "--traces", "50", "--child-spans", "3"], {})
    run([BACKENDS / "telemetrygen", "logs", *common, "--logs", "20"], {})
    run([BACKENDS / "telemetrygen", "metrics", *common, "--metrics", "5", "--metric-type", "Sum"], {})
    wait_for(lambda: len(jaeger.spans(service)) == 200, 20, "200 spans in Jaeger")
    wait_for(lambda: len(loki.lines(f'{{service="{service}"}}')) == 20, 20, "20 lines in Loki")
    wait_for(lambda: prometheus.query(f'{{job="{service}"}}'), 20, "its metric in Prometheus")


def test_openai_calls_through_their_real_instrumentation_are_priced_and_redacted(
    environments: Path, start_sidecar: Start, jaeger: Jaeger, loki: Loki, tmp_path: Path
) -> None:
    """R-407, R-410 (partly), R-421, R-424 (partly), R-1319 (partly)."""
    sidecar = start_sidecar(standard(jaeger, loki))
    fake = subprocess.Popen([sys.executable, "deploy/demo/fake_llm.py"], cwd=HERE.parents[1], stdout=subprocess.PIPE, text=True)
    try:
        assert fake.stdout is not None
        base = f"http://{LOOPBACK}:{fake.stdout.readline().strip()}/v1"
        command: list[str | Path] = [environments / "llm" / "bin" / "python", HERE / "clients" / "llm.py", base]
        content = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"}
        sent = sdk(command, sidecar.http, "openai-app", OTEL_SEMCONV_STABILITY_OPT_IN="gen_ai_latest_experimental", **content)
    finally:
        fake.terminate()
        fake.communicate()
    (spans,) = arrived(jaeger, "openai-app", [sent["trace"]], 6).values()
    priced = [each["tags"]["gen_ai.usage.cost"] for each in spans if "gen_ai.usage.cost" in each["tags"]]
    assert math.fsum(priced) == pytest.approx(sent["cost"], rel=0, abs=1e-9)
    assert sidecar.total("llm_cost_usd_total") == pytest.approx(sent["cost"], rel=0, abs=1e-9)
    assert sidecar.total("llm_cost_unpriced_total", reason="no_usage") == 1
    assert sidecar.total("llm_requests_total", status="error") == 1
    assert sidecar.total("llm_rate_limited_total", provider="openai") == 1
    prompts = [each["tags"]["gen_ai.input.messages"] for each in spans if "gen_ai.input.messages" in each["tags"]]
    assert len(prompts) == 4
    for prompt in prompts:
        assert "bert.llm" not in prompt
        assert json.loads(prompt)[0]["role"] == "user", "the redacted prompt is still valid JSON"
