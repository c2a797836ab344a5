"""The demo application and the configuration of the compose stack, run together without containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import Start
from tests.e2e.stack import LOOPBACK, Jaeger, Loki, Sidecar, wait_for

ROOT = Path(__file__).parents[2]
SERVICE, REQUESTS = "demo", 60


@pytest.fixture(scope="module")
def sidecar(start_sidecar: Start, jaeger: Jaeger, loki: Loki) -> Sidecar:
    """The stack's own configuration; only ports and addresses are those of this machine."""
    config = yaml.safe_load((ROOT / "deploy" / "compose" / "collector.yaml").read_text())
    for key in ("receivers", "extensions"):
        del config[key]
    del config["service"]["telemetry"]
    config["exporters"]["otlp_grpc/jaeger"]["endpoint"] = f"{LOOPBACK}:{jaeger.grpc}"
    config["exporters"]["loki"]["endpoint"] = f"http://{LOOPBACK}:{loki.http}/loki/api/v1/push"
    config["exporters"]["prometheus"] = {}
    sidecar = start_sidecar(config)
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:{sidecar.http}",
        "OTEL_SERVICE_NAME": SERVICE,
        "OTEL_RESOURCE_ATTRIBUTES": "service.version=1.0.0,deployment.environment=production",
    }
    command = [sys.executable, "deploy/demo/app.py", "--requests", str(REQUESTS), "--rate", "100", "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr, done.stderr
    return sidecar


def test_every_failed_request_of_the_demo_is_in_jaeger_with_all_its_spans(sidecar: Sidecar, jaeger: Jaeger, loki: Loki) -> None:
    """R-110 (partly), R-201, R-203, R-705 (partly), R-1302."""
    failed = wait_for(lambda: loki.lines(f'{{service="{SERVICE}",level="error"}}'), 20, "errors in Loki")
    for line in failed:
        trace = wait_for(lambda line=line: jaeger.trace(line["metadata"]["trace_id"]), 20, "the trace of a failed request")
        names = sorted(span["operationName"] for span in trace["spans"])
        assert names == ["GET", "POST /chat", "SELECT orders", "agent.supervisor", "chat boom", "send answers", "tool.search"]
    tags = jaeger.spans(SERVICE)[0]["process"]
    assert (tags["service.version"], tags["deployment.environment"]) == ("1.0.0", "production")


def test_the_demo_shows_cost_tokens_and_its_own_metrics(sidecar: Sidecar) -> None:
    """R-549, R-1304 (partly)."""
    assert sidecar.total("llm_cost_usd_total") > 0
    assert sidecar.total("llm_requests_total") == REQUESTS
    assert sidecar.total("demo_requests_total") == REQUESTS
    assert sidecar.total("demo_request_duration_seconds_count") == REQUESTS


def test_the_customer_of_the_demo_is_nowhere(sidecar: Sidecar, jaeger: Jaeger, loki: Loki) -> None:
    """R-301."""
    lines = wait_for(lambda: found if len(found := loki.lines(f'{{service="{SERVICE}"}}')) >= REQUESTS else None, 20, "all lines")
    text = json.dumps([lines, jaeger.traces(SERVICE)]) + sidecar.log.read_text() + sidecar.exposition()
    for secret in ("jo.demo", "4111 1111 1111 1111", "4111111111111111"):
        assert secret not in text
    assert "where is my parcel" in text


def test_streams_of_the_demo_are_labelled_by_service_environment_and_level(sidecar: Sidecar, loki: Loki) -> None:
    """R-605."""
    # Loki itself adds service_name.
    labels = {frozenset(line["labels"]) - {"service_name"} for line in loki.lines(f'{{service="{SERVICE}"}}')}
    assert labels == {frozenset({"service", "environment", "level"})}
