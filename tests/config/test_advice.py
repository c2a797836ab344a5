from __future__ import annotations

import pytest

from tests.config.conftest import BASE, Load, codes, lines

LISTEN = BASE.replace("intake: {}", "intake: {protocols: {grpc: GRPC, http: HTTP}}").replace(
    "service:", "extensions: {lamp: }\nservice:\n  extensions: [lamp]"
)


def listening(grpc: str, http: str) -> str:
    return LISTEN.replace("GRPC", grpc).replace("HTTP", http)


@pytest.mark.parametrize(
    ("grpc", "http", "errors"),
    [
        ('{endpoint: "localhost:4317"}', '{endpoint: "localhost:4318"}', []),
        (
            '{endpoint: "localhost:4317"}',
            '{endpoint: "0.0.0.0:4317"}',
            [
                "1:87 C021 'receivers::intake::protocols::http::endpoint' listens on port 4317, "
                "which 'receivers::intake::protocols::grpc::endpoint' already uses"
            ],
        ),
        ('{endpoint: "127.0.0.1:4317"}', '{endpoint: "127.0.0.2:4317"}', []),
        ('{endpoint: "localhost:0"}', '{endpoint: "localhost:0"}', []),
        (
            "{}",
            '{endpoint: "localhost:13133"}',
            [
                "4:14 C021 'extensions::lamp::endpoint' listens on port 13133, "
                "which 'receivers::intake::protocols::http::endpoint' already uses"
            ],
        ),
        (
            '{endpoint: "localhost"}',
            "null",
            [
                "1:51 C020 'receivers::intake::protocols::grpc::endpoint' 'localhost' is not an address to listen on"
            ],
        ),
    ],
)  # fmt: skip
def test_two_listeners_on_one_port_and_listeners_without_port_are_errors(
    load_text: Load, grpc: str, http: str, errors: list[str]
) -> None:
    assert lines(load_text(listening(grpc, http)).errors) == errors


def test_a_listener_on_the_port_of_our_own_metrics_is_an_error(load_text: Load) -> None:
    text = listening('{endpoint: "localhost:8888"}', "null")
    assert not load_text(text).errors
    (problem,) = load_text(text.replace("level: none", "level: basic")).errors
    assert problem.message.endswith("listens on port 8888, which service::telemetry::metrics (own metrics) already uses")


def test_a_component_that_is_not_used_opens_no_port(load_text: Load) -> None:
    loaded = load_text(listening("{}", "null"), "receivers: {intake/b: {protocols: {grpc: {}}}}")
    assert not loaded.errors
    assert lines(loaded.warnings) == ['1:13 W101 receiver "intake/b" is not used']


def sending(endpoint: str) -> str:
    return BASE.replace('"localhost:4317"', f'"{endpoint}"')


@pytest.mark.parametrize(
    ("endpoint", "errors", "warnings"),
    [
        ("jaeger:4317", [], []),
        ("https://api.example.com", [], []),
        ("dns:///jaeger:4317", [], []),
        ("unix:///run/x.sock", [], []),
        ("[::1]:4317", [], []),
        ("jaeger", ["3:32 C020 'exporters::outlet::endpoint' has no port"], []),
        ("0.0.0.0:4317", [], ["3:32 W109 'exporters::outlet::endpoint' sends to 0.0.0.0, an address to listen on"]),
        ("[::]:4317", [], ["3:32 W109 'exporters::outlet::endpoint' sends to ::, an address to listen on"]),
    ],
)
def test_destinations_are_looked_at(load_text: Load, endpoint: str, errors: list[str], warnings: list[str]) -> None:
    loaded = load_text(sending(endpoint))
    assert (lines(loaded.errors), lines(loaded.warnings)) == (errors, warnings)


def exporting(exporter: str, settings: str) -> str:
    return BASE.replace('outlet: {endpoint: "localhost:4317"}', f"{exporter}: {settings}").replace("[outlet]", f"[{exporter}]")


@pytest.mark.parametrize("port", [6831, 14250, 14268])
def test_a_jaeger_port_of_older_protocols_is_a_warning(load_text: Load, port: int) -> None:
    loaded = load_text(exporting("otlp_grpc", f'{{endpoint: "jaeger:{port}"}}'))
    assert [p.text().split(": ", 1)[1] for p in loaded.warnings] == [
        f"'exporters::otlp_grpc::endpoint' sends OTLP to port {port} - Jaeger 2 takes OTLP on 4317/4318 [W105]"
    ]


def test_loki_without_its_otlp_path_is_a_warning(load_text: Load) -> None:
    (problem,) = load_text(exporting("otlp_http", '{endpoint: "http://loki:3100"}')).warnings
    assert (problem.code, problem.hint) == ("W108", "write http://loki:3100/otlp")
    assert not load_text(exporting("otlp_http", '{endpoint: "http://loki:3100/otlp"}')).warnings
    assert not load_text(exporting("otlp_http", '{endpoint: "http://tempo:4318"}')).warnings


@pytest.mark.parametrize(("value", "warned"), [("0.1", True), ("0.5", True), ("1", False), ("10", False), ("0", False)])
def test_a_percentage_below_one_is_a_warning(load_text: Load, value: str, warned: bool) -> None:
    loaded = load_text(BASE.replace("shape: {}", f"shape: {{policies: [{{name: x, sampling_percentage: {value}}}]}}"))
    assert not loaded.errors
    assert codes(loaded.warnings) == (["W104"] if warned else [])
    if warned:
        assert loaded.warnings[0].hint == f"did you mean {float(value) * 100:g}?"


def test_a_pipeline_without_redaction_is_a_warning(load_text: Load) -> None:
    loaded = load_text(BASE.replace("[redaction, shape]", "[shape]").replace("{redaction: {}, ", "{"))
    assert lines(loaded.warnings) == ["6:15 W102 service::pipelines::traces: personal data and secrets are not removed"]


def test_a_memory_limiter_behind_another_processor_is_a_warning(load_text: Load) -> None:
    text = BASE.replace("shape: {}", "memory_limiter: {check_interval: 1s}").replace("shape]", "memory_limiter]")
    assert lines(load_text(text).warnings) == ["6:69 W103 service::pipelines::traces: memory_limiter is not the first processor"]
    assert not load_text(text.replace("[redaction, memory_limiter]", "[memory_limiter, redaction]")).warnings


def test_a_secret_in_clear_text_is_a_warning_and_one_from_a_variable_is_not(load_text: Load) -> None:
    written = load_text(
        BASE.replace("shape: {}", "shape: {key: hunter2}").replace(
            '4317"}', '4317", headers: {authorization: Basic abc, x-id: a}}'
        )
    )
    assert [(p.code, p.path) for p in written.warnings] == [
        ("W106", ("processors", "shape", "key")),
        ("W106", ("exporters", "outlet", "headers", "authorization")),
    ]
    assert not any("hunter2" in p.message + p.hint for p in written.warnings)
    variable = BASE.replace("shape: {}", 'shape: {key: "${env:K}"}').replace(
        '4317"}', '4317", headers: {authorization: "Basic ${K}"}}'
    )
    assert not load_text(variable, env={"K": "hunter2"}).warnings
