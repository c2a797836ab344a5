from __future__ import annotations

import pytest

from collector.config.telemetry import TelemetryConfig
from tests.config.conftest import BASE, Load, lines


def place(data: dict[str, object]) -> tuple[str, int, bool] | None:
    found = TelemetryConfig.model_validate({"metrics": data}).self_metrics()
    return (found.host, found.port, found.without_type_suffix) if found else None


def reader(**options: object) -> dict[str, object]:
    return {"pull": {"exporter": {"prometheus": options}}}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({}, ("localhost", 8888, False)),
        ({"level": "none"}, None),
        ({"level": "none", "address": ":8888"}, None),
        ({"address": ":9999"}, ("0.0.0.0", 9999, False)),
        ({"address": "[::1]:9999"}, ("::1", 9999, False)),
        ({"readers": [reader(host="10.0.0.1", port=8000, without_type_suffix=True)]}, ("10.0.0.1", 8000, True)),
        ({"readers": [{"pull": {"exporter": {}}}]}, ("localhost", 8888, False)),
    ],
)
def test_own_metrics_are_offered_where_otelcol_would(metrics: dict[str, object], expected: object) -> None:
    assert place(metrics) == expected


@pytest.mark.parametrize(
    ("telemetry", "error"),
    [
        ("metrics: {readers: [{periodic: {}}]}", "periodic is not supported"),
        ("metrics: {address: here}", "address needs a port"),
        ("metrics: {address: ':1', readers: [{pull: {}}]}", "readers takes one endpoint"),
        ("logs: {processors: [{batch: {}}]}", "processors is not supported"),
        ("logs: {output_paths: [/var/log/x]}", "output_paths takes stdout and stderr"),
        ("logs: {level: loud}", "is not one of debug"),
        ("metrics: {lvl: none}", "'service::telemetry::metrics' has invalid keys: lvl"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(load_text: Load, telemetry: str, error: str) -> None:
    (problem,) = lines(load_text(BASE.replace("telemetry: {metrics: {level: none}}", f"telemetry: {{{telemetry}}}")).errors)
    assert error in problem
    assert problem.startswith("5:")


def test_a_resource_attribute_is_taken_away_by_null(load_text: Load) -> None:
    text = BASE.replace(
        "telemetry: {metrics: {level: none}}", "telemetry: {resource: {service.name: api, host: , n: '7'}, traces: {level: none}}"
    )
    resolved = load_text(text).resolved
    assert resolved is not None
    assert resolved.telemetry.resource == {"service.name": "api", "host": None, "n": "7"}
