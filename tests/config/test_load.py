from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.catalog import Catalog
from collector.config.load import config_error, failure, load
from tests.config.conftest import BASE, COMPONENTS, Load, codes

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*(ROOT / "config").glob("*.yaml"), *(ROOT / "config" / "examples").glob("*.yaml")])
VARIABLES = {"LANGFUSE_AUTH": "cGs6c2s="}

EIGHT_MISTAKES = """\
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: localhost:4317
        max_recv_msg_size_mb: 8
processors:
  memory_limiter:
    check_interval: 5
    limit_mib: 017
  tail_sampling:
    policies:
      - {name: errors, type: status_code, status_code: {status_codes: [EROR]}}
exporters:
  otlp/jaeger:
    endpoint: ${env:JAEGER_HOST}:4317
    tls:
      insecure: yes
  promethus:
    endpoint: localhost:8889
service:
  pipelines:
    traces:
      receivers: [otlp]
      processors: [memory_limiter, tail_samplig]
      exporters: [otlp/jaeger]
"""


def test_eight_mistakes_give_eight_errors_with_their_places_in_one_run(tmp_path: Path) -> None:
    """R-103."""
    path = tmp_path / "c.yaml"
    path.write_text(EIGHT_MISTAKES)
    loaded = load([str(path)], catalog=Catalog(), environ={})
    assert loaded.resolved is None
    assert [(p.line, p.column, p.code) for p in loaded.errors] == [
        (6, 9, "C003"),
        (9, 21, "C022"),
        (10, 16, "C018"),
        (13, 72, "C004"),
        (16, 15, "C008"),
        (18, 17, "C004"),
        (19, 3, "C010"),
        (25, 36, "C011"),
    ]
    text = str(config_error(loaded))
    assert f"{path}:6:9: 'receivers::otlp::protocols::grpc' has invalid keys: max_recv_msg_size_mb - did you mean" in text
    assert "        max_recv_msg_size_mb: 8\n       |         ^" in text
    assert 'did you mean "tail_sampling"? (line 11) [C011]' in text
    assert 'did you mean "prometheus"? [C010]' in text
    assert text.endswith("8 errors in the configuration")


def test_a_configuration_of_the_opentelemetry_collector_runs_unchanged() -> None:
    loaded = load([str(ROOT / "config/examples/otelcol.yaml")], catalog=Catalog(), environ={"POD_IP": "10.1.2.3"})
    assert not loaded.errors, str(config_error(loaded))
    resolved = loaded.resolved
    assert resolved is not None
    assert resolved.pipelines["traces"].exporters == ("otlp/jaeger", "otlphttp/vendor")
    assert resolved.exporters["otlp/jaeger"].type == "otlp_grpc"
    assert resolved.exporters["otlp/jaeger"].config.retry_on_failure.initial_interval == 5.0  # type: ignore[attr-defined]
    assert resolved.processors["memory_limiter"].config.limit_mib == 400  # type: ignore[attr-defined]
    assert resolved.extensions["health_check"].config.endpoint == "10.1.2.3:13133"  # type: ignore[attr-defined]
    metrics = resolved.telemetry.self_metrics()
    assert metrics is not None
    assert (metrics.host, metrics.port) == ("0.0.0.0", 8888)
    assert codes(loaded.warnings) == ["W102", "W102", "W102"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_configuration_that_ships_is_valid(path: Path) -> None:
    """R-1202 (partly)."""
    loaded = load([str(path)], catalog=Catalog(), environ=VARIABLES)
    assert not loaded.errors, str(config_error(loaded))
    unexpected = [p.text() for p in loaded.warnings if path.name != "otelcol.yaml"]
    assert not unexpected


def test_the_development_configuration_listens_on_loopback_only_and_sends_nowhere() -> None:
    resolved = load([str(ROOT / "config/dev.yaml")], catalog=Catalog(), environ={}).resolved
    assert resolved is not None
    assert {d.type for d in resolved.exporters.values()} == {"peek", "prometheus"}
    assert "0.0.0.0" not in (ROOT / "config/dev.yaml").read_text()


def test_the_digest_changes_with_any_value_and_with_nothing_else(load_text: Load) -> None:
    def digest(text: str, **options: object) -> str:
        resolved = load_text(text, **options).resolved
        assert resolved is not None
        return resolved.digest

    same = digest(BASE)
    assert digest("# a comment\n" + BASE) == same
    assert digest(BASE, sets=["processors.shape.number=2"]) != same
    by_variable = BASE.replace("shape: {}", 'shape: {text: "${env:X}"}')
    assert digest(by_variable, env={"X": "a"}) != digest(by_variable, env={"X": "b"})


def test_a_broken_file_beside_a_good_one_is_told_with_the_rest(load_text: Load) -> None:
    loaded = load_text(BASE.replace("shape: {}", "shape: {numbr: 1}"), "a: [")
    assert codes(loaded.errors) == ["C003", "C001"]


def test_a_file_that_is_no_yaml_is_the_only_error(load_text: Load) -> None:
    assert codes(load_text("a: [").errors) == ["C001"]


def test_the_environment_is_that_of_the_process_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-1410."""
    path = tmp_path / "c.yaml"
    path.write_text("receivers: {otlp: }\nexporters: {otlp_grpc: {endpoint: '${env:OF_THIS_TEST}'}}\n")
    monkeypatch.setenv("OF_THIS_TEST", "h:4317")
    assert load([str(path)], catalog=Catalog()).merged["exporters"] == {"otlp_grpc": {"endpoint": "h:4317"}}


CATALOG = Catalog([COMPONENTS])
IDS = (
    "intake",
    "shape",
    "outlet",
    "lamp",
    "otlp",
    "otlp_http/x",
    "loki",
    "redaction",
    "tail_sampling",
    "prometheus",
    "/x",
    "",
    "a b",
)
WORDS = (*IDS, "receivers", "processors", "exporters", "extensions", "service", "pipelines", "traces", "logs", "telemetry", "metrics",
         "readers", "protocols", "grpc", "endpoint", "headers", "policies", "text", "inner", "tls", "sampling_percentage")  # fmt: skip
scalars = st.sampled_from([None, True, 0, -1, 0.5, "", "x", "localhost:1", ":4317", "${env:X}", "${env:NOPE}", "$$", "5s", *IDS])
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=25,
)
sections = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("receivers", "processors", "exporters", "extensions", "service", "x"), trees)
)


@settings(max_examples=100, deadline=None)
@given(sections)
def test_no_configuration_ever_raises(data: dict[str, object]) -> None:
    loaded = load(["yaml:" + json.dumps(data)], catalog=CATALOG, environ={"X": "[1, {a: b}]"})
    assert (loaded.resolved is None) == bool(loaded.errors)
    assert all(problem.render() and problem.to_json() for problem in (*loaded.errors, *loaded.warnings, *loaded.notes))


def test_an_error_before_any_source_is_shown_like_others() -> None:
    assert str(config_error(failure("--components x: not a directory"))) == (
        "command line: --components x: not a directory [C024]\n1 error in the configuration"
    )
