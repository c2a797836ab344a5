"""The gRPC exporter against real gRPC servers on loopback."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from pydantic import ValidationError

from bench.ports import free_port
from collector.errors import ConfigError, Oversized, Permanent, Retryable
from collector.exporters.otlp_grpc import METHODS, OtlpGrpc, unpacked
from collector.model import Signal
from tests.exporters.servers import Certificates, GrpcBackend, grpc_backend, payload
from tests.support import build, eventually

PLAIN = {"tls": {"insecure": True}}


async def sent(config: dict[str, Any], what: Any = None) -> int:
    """Start, send once, stop."""
    exporter = build(OtlpGrpc, config)
    await exporter.start()
    try:
        return int(await exporter.send(what or payload()))
    finally:
        await exporter.stop()


@pytest.mark.parametrize("signal", list(Signal))
async def test_every_signal_arrives_byte_for_byte_at_its_own_method(grpc_server: GrpcBackend, signal: Signal) -> None:
    """R-105, R-701."""
    what = payload(signal, 3)
    before = bytes(what.data)
    assert await sent({"endpoint": grpc_server.target, **PLAIN}, what) == 0
    assert grpc_server.seen == [(METHODS[signal], before)]
    assert what.data == before


async def test_joined_requests_arrive_as_one(grpc_server: GrpcBackend) -> None:
    first, second = payload(), payload()
    joined = type(first)(Signal.TRACES, first.data + second.data, 2)
    await sent({"endpoint": grpc_server.target, **PLAIN}, joined)
    assert grpc_server.seen[0][1] == joined.data


@pytest.mark.parametrize("compression", ["none", "", "gzip", "deflate"])
async def test_a_compressed_request_is_the_same_request(grpc_server: GrpcBackend, compression: str) -> None:
    what = payload(items=200)
    await sent({"endpoint": grpc_server.target, "compression": compression, **PLAIN}, what)
    assert grpc_server.seen[0][1] == what.data


async def test_headers_reach_the_backend_in_lower_case(grpc_server: GrpcBackend) -> None:
    headers = {"Authorization": "Bearer abc", "x-tenant": 7}
    await sent({"endpoint": grpc_server.target, "headers": headers, **PLAIN})
    assert grpc_server.metadata[0]["authorization"] == "Bearer abc"
    assert grpc_server.metadata[0]["x-tenant"] == "7"
    assert grpc_server.metadata[0]["user-agent"].startswith("otel-sidecar/")


async def test_the_deadline_is_told_to_the_backend_and_ends_the_call_retryable(grpc_server: GrpcBackend) -> None:
    grpc_server.gate = asyncio.Event()
    with pytest.raises(Retryable, match="DEADLINE_EXCEEDED"):
        await sent({"endpoint": grpc_server.target, "timeout": "100ms", **PLAIN})


RETRYABLE = ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"]
FATAL = [code.name for code in grpc.StatusCode if code.name not in [*RETRYABLE, "OK", "RESOURCE_EXHAUSTED"]]


@pytest.mark.parametrize("code", RETRYABLE)
async def test_the_specifications_retryable_codes_are_retried(grpc_server: GrpcBackend, code: str) -> None:
    grpc_server.fail = (grpc.StatusCode[code], "later")
    with pytest.raises(Retryable, match=f"{code}: later") as caught:
        await sent({"endpoint": grpc_server.target, **PLAIN})
    assert caught.value.after is None


@pytest.mark.parametrize("code", FATAL)
async def test_every_other_code_is_permanent(grpc_server: GrpcBackend, code: str) -> None:
    grpc_server.fail = (grpc.StatusCode[code], "never")
    grpc_server.retry = 3.0
    with pytest.raises(Permanent, match=f"{code}: never") as caught:
        await sent({"endpoint": grpc_server.target, **PLAIN})
    wanted = {"UNAUTHENTICATED": "credentials", "PERMISSION_DENIED": "credentials", "UNIMPLEMENTED": "endpoint"}.get(code, "")
    assert wanted in caught.value.fix
    assert bool(wanted) == bool(caught.value.fix)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
async def test_the_delay_in_retry_info_is_honoured(grpc_server: GrpcBackend, code: str) -> None:
    grpc_server.fail, grpc_server.retry = (grpc.StatusCode[code], "busy"), 2.5
    with pytest.raises(Retryable) as caught:
        await sent({"endpoint": grpc_server.target, **PLAIN})
    assert caught.value.after == pytest.approx(2.5)


async def test_resource_exhausted_without_retry_info_asks_for_smaller_requests(grpc_server: GrpcBackend) -> None:
    grpc_server.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
    with pytest.raises(Oversized):
        await sent({"endpoint": grpc_server.target, **PLAIN})


RESPONSES = [
    (Signal.TRACES, ExportTraceServiceResponse, "rejected_spans"),
    (Signal.METRICS, ExportMetricsServiceResponse, "rejected_data_points"),
    (Signal.LOGS, ExportLogsServiceResponse, "rejected_log_records"),
]


@pytest.mark.parametrize(("signal", "response", "name"), RESPONSES)
async def test_rejected_items_of_a_partial_success_are_returned_and_logged(
    grpc_server: GrpcBackend, caplog: pytest.LogCaptureFixture, signal: Signal, response: Any, name: str
) -> None:
    answer = response()
    setattr(answer.partial_success, name, 2)
    answer.partial_success.error_message = "bad\nitems " + "x" * 5000
    grpc_server.reply = answer.SerializeToString()
    with caplog.at_level(logging.WARNING):
        assert await sent({"endpoint": grpc_server.target, **PLAIN}, payload(signal, 5)) == 2
    [record] = caplog.records
    assert record.rejected == 2
    assert record.said.startswith("bad items x")
    assert len(record.said) <= 1024


async def test_an_answer_that_cannot_be_read_still_is_a_success(grpc_server: GrpcBackend) -> None:
    grpc_server.reply = b"\xff\xff"
    assert await sent({"endpoint": grpc_server.target, **PLAIN}) == 0


async def test_an_answer_over_4_mib_is_permanent_and_not_oversized(grpc_server: GrpcBackend) -> None:
    grpc_server.reply = b"x" * ((4 << 20) + 1)
    with pytest.raises(Permanent, match="larger than max"):
        await sent({"endpoint": grpc_server.target, **PLAIN})


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_packed_answers_are_read_and_a_bomb_is_permanent(compression: grpc.Compression) -> None:
    async with grpc_backend(compression=compression) as backend:
        config = {"endpoint": backend.target, "compression": "gzip", **PLAIN}
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = 3
        response.partial_success.error_message = "old " * 100
        backend.reply = response.SerializeToString()
        assert await sent(config, payload(items=5)) == 3
        backend.reply = bytes(64 << 20)
        with pytest.raises(Permanent, match="larger than 4194304"):
            await sent(config)


def test_an_answer_that_only_looks_packed_is_a_full_success() -> None:
    assert unpacked(b"\x1f\x8b nothing") == b""
    assert unpacked(b"\x78") == b""


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_backend_with_a_lower_limit_gets_smaller_requests(compression: str) -> None:
    async with grpc_backend(limit=2000) as backend:
        config = {"endpoint": backend.target, "compression": compression, **PLAIN}
        with pytest.raises(Oversized, match="larger than max"):
            await sent(config, payload(items=1000))
        assert await sent(config, payload(items=5)) == 0


async def test_endless_error_details_are_permanent(grpc_server: GrpcBackend) -> None:
    grpc_server.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "y" * 200_000)
    with pytest.raises(Permanent):
        await sent({"endpoint": grpc_server.target, **PLAIN})


async def test_a_header_value_that_the_backend_echoes_is_masked(grpc_server: GrpcBackend) -> None:
    grpc_server.fail = (grpc.StatusCode.UNAUTHENTICATED, "bad token Bearer s3cret-token")
    with pytest.raises(Permanent) as caught:
        await sent({"endpoint": grpc_server.target, "headers": {"authorization": "Bearer s3cret-token"}, **PLAIN})
    assert "s3cret" not in str(caught.value)


async def test_nobody_listening_is_retryable_and_found_again_when_it_is_back() -> None:
    port = free_port()
    exporter = build(OtlpGrpc, {"endpoint": f"127.0.0.1:{port}", "retry_on_failure": {"max_interval": "1s"}, **PLAIN})
    await exporter.start()
    with pytest.raises(Retryable, match="UNAVAILABLE"):
        await exporter.send(payload())
    async with grpc_backend(address=f"127.0.0.1:{port}") as backend:
        deadline = asyncio.get_running_loop().time() + 10
        while not backend.seen:
            assert asyncio.get_running_loop().time() < deadline
            try:
                await exporter.send(payload())
            except Retryable:
                await asyncio.sleep(0.05)
    await exporter.stop()


async def test_wait_for_ready_waits_for_the_backend() -> None:
    port = free_port()
    config = {"endpoint": f"127.0.0.1:{port}", "wait_for_ready": True, "timeout": "10s", **PLAIN}
    sending = asyncio.ensure_future(sent(config))
    await asyncio.sleep(0.05)
    assert not sending.done()
    async with grpc_backend(address=f"127.0.0.1:{port}"):
        assert await sending == 0


async def test_cancelling_a_send_cancels_the_call_at_the_backend(grpc_server: GrpcBackend) -> None:
    grpc_server.gate = asyncio.Event()
    exporter = build(OtlpGrpc, {"endpoint": grpc_server.target, **PLAIN})
    await exporter.start()
    sending = asyncio.ensure_future(exporter.send(payload()))
    await eventually(lambda: grpc_server.seen)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await eventually(lambda: grpc_server.cancelled)
    grpc_server.gate.set()
    assert await exporter.send(payload()) == 0
    await exporter.stop()


async def test_closing_during_a_send_is_retryable_and_not_a_cancellation(grpc_server: GrpcBackend) -> None:
    grpc_server.gate = asyncio.Event()
    exporter = build(OtlpGrpc, {"endpoint": grpc_server.target, **PLAIN})
    await exporter.start()
    sending = asyncio.ensure_future(exporter.send(payload()))
    await eventually(lambda: grpc_server.seen)
    await exporter.start()
    await exporter.stop()
    with pytest.raises(Retryable):
        await sending
    await exporter.stop()
    with pytest.raises(Retryable, match="not started"):
        await exporter.send(payload())


async def test_a_unix_socket_is_plain_when_nothing_is_said_about_tls(tmp_path: Path) -> None:
    async with grpc_backend(address=f"unix:{tmp_path}/otlp.sock") as backend:
        assert await sent({"endpoint": f"unix://{tmp_path}/otlp.sock"}) == 0
        assert len(backend.seen) == 1


async def test_http_and_dns_endpoints_reach_the_same_server(grpc_server: GrpcBackend) -> None:
    await sent({"endpoint": f"http://{grpc_server.target}"})
    await sent({"endpoint": f"dns:///{grpc_server.target}", "balancer_name": "pick_first", **PLAIN})
    await sent({"endpoint": f"passthrough:///{grpc_server.target}", **PLAIN})
    assert len(grpc_server.seen) == 3


def server_credentials(certificates: Certificates, *, mutual: bool) -> grpc.ServerCredentials:
    pair = [(certificates.read("server_key"), certificates.read("server"))]
    root = certificates.read("ca") if mutual else None
    return grpc.ssl_server_credentials(pair, root, require_client_auth=mutual)


async def test_tls_is_on_by_default_and_checks_the_server(certificates: Certificates) -> None:
    async with grpc_backend(server_credentials(certificates, mutual=False)) as backend:
        assert await sent({"endpoint": backend.target, "tls": {"ca_file": certificates.ca}}) == 0
        assert await sent({"endpoint": f"https://{backend.target}", "tls": {"ca_pem": certificates.read("ca").decode()}}) == 0
        with pytest.raises(Retryable):
            await sent({"endpoint": backend.target, "timeout": "3s"})
        assert len(backend.seen) == 2


async def test_tls_towards_a_plain_backend_says_what_to_change(grpc_server: GrpcBackend) -> None:
    with pytest.raises(Retryable, match=r"set tls\.insecure: true"):
        await sent({"endpoint": grpc_server.target, "timeout": "3s"})


async def test_the_expected_server_name_can_be_overridden(certificates: Certificates) -> None:
    async with grpc_backend(server_credentials(certificates, mutual=False)) as backend:
        tls = {"ca_file": certificates.ca, "server_name_override": "backend.internal"}
        assert await sent({"endpoint": backend.target.replace("localhost", "127.0.0.1"), "tls": tls, "timeout": "3s"}) == 0
        wrong = {"ca_file": certificates.ca, "server_name_override": "elsewhere"}
        with pytest.raises(Retryable):
            await sent({"endpoint": backend.target, "tls": wrong, "timeout": "3s"})


async def test_a_client_certificate_is_shown_when_the_server_wants_one(certificates: Certificates) -> None:
    async with grpc_backend(server_credentials(certificates, mutual=True)) as backend:
        tls = {"ca_file": certificates.ca, "cert_file": certificates.client, "key_file": certificates.client_key}
        assert await sent({"endpoint": backend.target, "tls": tls}) == 0
        with pytest.raises(Retryable):
            await sent({"endpoint": backend.target, "tls": {"ca_file": certificates.ca}, "timeout": "3s"})


async def test_a_missing_ca_file_fails_at_start_with_the_keys_name() -> None:
    with pytest.raises(ConfigError, match=r"exporters::test::tls: .*nowhere\.pem"):
        await sent({"endpoint": "localhost:1", "tls": {"ca_file": "/nowhere.pem"}})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "endpoint"),
        ({"endpoint": ""}, "requires a non-empty"),
        ({"endpoint": "localhost"}, "write host:port"),
        ({"endpoint": "localhost:99999"}, "write host:port"),
        ({"endpoint": "http://h:4317/path"}, "write host:port"),
        ({"endpoint": "h:1", "compression": "zstd"}, "gRPC knows gzip and deflate only"),
        ({"endpoint": "h:1", "auth": {"authenticator": "x"}}, "auth is not supported"),
        ({"endpoint": "h:1", "middlewares": []}, "middlewares is not supported"),
        ({"endpoint": "h:1", "tls": {"insecure_skip_verify": True}}, "insecure_skip_verify is not available on gRPC"),
        ({"endpoint": "h:1", "tls": {"min_version": "1.3"}}, "min_version is not available on gRPC"),
        ({"endpoint": "h:1", "headers": {"grpc-timeout": "1"}}, "not a name"),
        ({"endpoint": "h:1", "headers": {"a b": "1"}}, "header name"),
        ({"endpoint": "h:1", "headers": {"a": "ä"}}, "printable ASCII"),
        ({"endpoint": "h:1", "headers": {"a": "x\ny"}}, "line break"),
        ({"endpoint": "h:1", "headers": {"x-bin": "1"}}, "printable ASCII"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_reason(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        build(OtlpGrpc, config)


def test_headers_may_be_a_list_and_are_never_printed() -> None:
    exporter = build(OtlpGrpc, {"endpoint": "h:1", "headers": [{"name": "Authorization", "value": "Bearer s3cret"}]})
    assert "s3cret" not in repr(exporter.config)
    assert exporter.config.headers["Authorization"].get_secret_value() == "Bearer s3cret"


@pytest.mark.parametrize("endpoint", ["h:1", "[::1]:4317", "dns:///h:1", "dns:h:1", "https://h:1", "unix:///a/b", "unix:a"])
def test_all_address_forms_of_otelcol_are_taken(endpoint: str) -> None:
    assert build(OtlpGrpc, {"endpoint": endpoint}).config.endpoint == endpoint


def test_https_speaks_tls_even_where_insecure_is_set() -> None:
    assert not build(OtlpGrpc, {"endpoint": "https://h:1", **PLAIN}).config.plain
    assert build(OtlpGrpc, {"endpoint": "http://h:1"}).config.plain
    assert not build(OtlpGrpc, {"endpoint": "h:1"}).config.plain
    assert not build(OtlpGrpc, {"endpoint": "unix:///x", "tls": {"ca_file": "x"}}).config.plain


def test_keepalive_and_names_become_channel_arguments() -> None:
    config = {
        "endpoint": "h:1",
        "keepalive": {"time": "20s", "timeout": "5s", "permit_without_stream": True},
        "authority": "tenant-a",
        "user_agent": "mine",
    }
    options = dict(build(OtlpGrpc, config).config.options())
    assert options["grpc.keepalive_time_ms"] == 20_000
    assert options["grpc.keepalive_timeout_ms"] == 5_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.default_authority"] == "tenant-a"
    assert options["grpc.primary_user_agent"] == "mine"
    assert "grpc.keepalive_time_ms" not in dict(
        build(OtlpGrpc, {"endpoint": "h:1", "keepalive": {"time": "0s"}}).config.options()
    )


def test_the_module_does_not_load_grpc() -> None:
    import subprocess
    import sys

    code = "import sys, collector.exporters.otlp_grpc, collector.exporters.otlp_http, collector.exporters.loki; "
    code += "sys.exit(bool({'grpc', 'aiohttp'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
