"""Stream labels stay few and small; everything else is structured metadata or in the line."""

from __future__ import annotations

from typing import Any

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.exporters.loki.streams import Caps, Streams, Threshold, collect, label_name, shared_metadata
from tests.support import any_value, attributes

NOW = 1_790_000_000_000_000_000
RESOURCE = {"service.name": "api", "deployment.environment": "production", "service.version": "1.0.0", "host.name": "h"}


def logs(*bodies: object, resource: dict[str, Any] | None = None, scope: str = "app", **fields: Any) -> ExportLogsServiceRequest:
    """A request with one resource."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(attributes(RESOURCE if resource is None else resource))
    inner = group.scope_logs.add()
    inner.scope.name = scope
    for number, body in enumerate(bodies):
        inner.log_records.add(time_unix_nano=NOW + number, body=any_value(body), **fields)
    return request


def push(request: ExportLogsServiceRequest, levels: dict[str, str] | None = None, **options: Any) -> list[dict[str, Any]]:
    """The streams of the push body."""
    over: list[str] = options.pop("over", [])
    caps = options.pop("caps", None) or Caps(over.append)
    choice: dict[str, Any] = {"agent_type": False, "metadata": True, "level": True, "old": frozenset(), "longest": 0, **options}
    streams = Streams(caps, **choice)
    collect(request.SerializeToString(), streams, Threshold(levels or {}), NOW)
    found: list[dict[str, Any]] = orjson.loads(streams.body() or b'{"streams": []}')["streams"]
    return found


def test_labels_are_service_environment_and_level_only() -> None:
    """R-605, R-110 (partly)."""
    [stream] = push(logs({"message": "m", "agent_type": "planner", "user_id": "u"}, trace_id=b"\x01" * 16, severity_number=17))
    assert stream["stream"] == {"service": "api", "environment": "production", "level": "error"}
    [[time, line, metadata]] = stream["values"]
    assert time == str(NOW)
    assert orjson.loads(line)["agent_type"] == "planner"
    assert metadata == {"service_version": "1.0.0", "host_name": "h", "trace_id": "01" * 16, "user_id": "u"}


def test_the_newer_environment_attribute_wins_and_a_missing_service_is_named() -> None:
    """R-110 (partly)."""
    [stream] = push(logs("x", resource={"deployment.environment.name": "new", "deployment.environment": "old"}))
    assert stream["stream"] == {"service": "unknown_service", "environment": "new", "level": "info"}
    [stream] = push(logs("x", resource={}))
    assert stream["stream"] == {"service": "unknown_service", "level": "info"}
    assert len(stream["values"][0]) == 2


def test_every_level_and_resource_has_its_own_stream() -> None:
    request = logs({"level": "error"}, {"level": "info"}, {"level": "error"})
    request.MergeFrom(logs({"level": "error"}, resource={"service.name": "other"}))
    found = push(request)
    assert [(stream["stream"]["service"], stream["stream"]["level"], len(stream["values"])) for stream in found] == [
        ("api", "error", 2),
        ("api", "info", 1),
        ("other", "error", 1),
    ]


def test_agent_type_is_a_label_only_when_asked_for() -> None:
    """R-605."""
    found = push(logs({"agent_type": "planner"}, {"message": "m"}), agent_type=True)
    assert [stream["stream"].get("agent_type") for stream in found] == ["planner", None]


def test_a_label_keeps_98_values_and_then_overflows() -> None:
    """R-504 (partly), R-605."""
    over: list[str] = []
    request = logs(*[{"agent_type": f"a{number}"} for number in range(150)], {"agent_type": "a0"})
    found = push(request, agent_type=True, over=over)
    counts = {stream["stream"]["agent_type"]: len(stream["values"]) for stream in found}
    assert len(counts) == 99
    assert counts["__overflow__"] == 52
    assert counts["a0"] == 2
    assert over == ["agent_type"] * 52


def test_a_label_value_is_cut_between_characters() -> None:
    [stream] = push(logs("x", resource={"service.name": "a" + "ä" * 600}))
    assert stream["stream"]["service"] == "a" + "ä" * 255


def test_without_structured_metadata_everything_is_in_the_line() -> None:
    [stream] = push(logs("x", trace_id=b"\x01" * 16), metadata=False)
    [[_, line]] = stream["values"]
    found = orjson.loads(line)
    assert found["trace_id"] == "01" * 16
    assert found["resource"] == {"service.version": "1.0.0", "host.name": "h"}


def test_otelcols_old_labels_come_only_when_their_block_is_written() -> None:
    resource = {"service.name": "api", "service.namespace": "shop", "service.instance.id": "i-1"}
    [stream] = push(logs("x", resource=resource), old=frozenset(("exporter", "job", "instance")), level=False)
    assert stream["stream"] == {"service": "api", "exporter": "OTLP", "job": "shop/api", "instance": "i-1"}
    [stream] = push(logs("x", resource={"service.name": "api"}), old=frozenset(("job", "instance")))
    assert stream["stream"] == {"service": "api", "job": "api", "level": "info"}


def test_scope_attributes_are_metadata() -> None:
    request = logs("x", resource={"service.name": "api"})
    scope = request.resource_logs[0].scope_logs[0].scope
    scope.version = "2"
    scope.attributes.extend(attributes({"kind": "lib"}))
    [stream] = push(request)
    assert stream["values"][0][2] == {"scope_kind": "lib", "scope_version": "2"}


def test_metadata_beyond_lokis_limits_goes_into_the_line() -> None:
    many = {f"key{number}": "v" for number in range(80)}
    taken, rest = shared_metadata(many)
    assert len(taken) == 64
    assert {**taken, **rest} == many
    taken, rest = shared_metadata({"big": "x" * 20_000, "small": "y"})
    assert (taken, rest) == ({"small": "y"}, {"big": "x" * 20_000})
    taken, rest = shared_metadata({"a.b": 1, "a_b": 2})
    assert (taken, rest) == ({"a_b": "1"}, {"a_b": 2})
    [stream] = push(logs("x", resource=many))
    assert len(orjson.loads(stream["values"][0][1])["resource"]) == 16


def test_metadata_names_can_be_written_in_logql_and_never_hide_our_own() -> None:
    assert label_name("k8s.pod.name") == "k8s_pod_name"
    assert label_name("trace_id") == "resource_trace_id"
    assert label_name("1st") == "resource_1st"
    assert label_name("") == "resource_"


def test_levels_of_loggers_follow_the_longest_dotted_prefix() -> None:
    """R-607 (partly)."""
    levels = {"arc.agents": "INFO", "httpx": "WARNING", "arc.rl": "DEBUG", "": "ERROR"}

    def kept(logger: str, level: str) -> int:
        return len(push(logs({"logger": logger, "level": level}), levels))

    assert kept("arc.agents.planner", "info") == 1
    assert kept("arc.agents", "debug") == 0
    assert kept("httpx", "info") == 0
    assert kept("httpx._client", "warning") == 1
    assert kept("httpxyz", "warning") == 0
    assert kept("arc.rl", "debug") == 1
    assert kept("", "critical") == 1


def test_nothing_is_dropped_without_logger_levels() -> None:
    """R-607 (partly)."""
    assert len(push(logs({"level": "debug", "logger": "httpx"}))) == 1
    assert len(push(logs({"level": "debug", "logger": "x"}), {"httpx": "WARNING"})) == 1


def test_a_time_beyond_int64_does_not_spoil_the_request() -> None:
    request = logs("x")
    request.resource_logs[0].scope_logs[0].log_records[0].time_unix_nano = 2**64 - 1
    assert push(request)[0]["values"][0][0] == str(2**63 - 1)
