"""The HTTP exporter against real HTTP servers on loopback."""

from __future__ import annotations

import asyncio
import gzip
import logging
import ssl
import time
from email.utils import formatdate
from typing import Any

import orjson
import pytest
from aiohttp import web
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from pydantic import ValidationError

from bench.ports import free_port
from collector.errors import ConfigError, Oversized, Permanent, Retryable
from collector.exporters.otlp_http import OtlpHttp
from collector.model import Payload, Signal
from collector.otlp.mapping import to_json
from tests.exporters.servers import Certificates, HttpBackend, http_backend, payload
from tests.support import build, eventually


async def sent(config: dict[str, Any], what: Payload | None = None) -> int:
    """Start, send once, stop."""
    exporter = build(OtlpHttp, config)
    await exporter.start()
    try:
        return int(await exporter.send(what or payload()))
    finally:
        await exporter.stop()


@pytest.mark.parametrize("signal", list(Signal))
async def test_every_signal_is_posted_to_its_path_unchanged(http: HttpBackend, signal: Signal) -> None:
    """R-701."""
    what = payload(signal, 3)
    before = bytes(what.data)
    assert await sent({"endpoint": f"{http.url}/"}, what) == 0
    [seen] = http.seen
    assert seen.path == f"/v1/{signal.value}"
    assert seen.headers["content-type"] == "application/x-protobuf"
    assert seen.headers["content-encoding"] == "gzip"
    assert seen.headers["user-agent"].startswith("otel-sidecar/")
    assert seen.body == before == what.data


@pytest.mark.parametrize("codec", ["gzip", "zstd", "deflate", "zlib", "none", ""])
@pytest.mark.parametrize("items", [1, 20_000])
async def test_a_compressed_request_is_the_same_request(http: HttpBackend, codec: str, items: int) -> None:
    what = payload(items=items)
    await sent({"endpoint": http.url, "compression": codec}, what)
    [seen] = http.seen
    assert seen.headers.get("content-encoding", "") == codec.replace("none", "")
    assert seen.body == what.data
    assert int(seen.headers["content-length"]) == len(seen.wire)


async def test_a_compression_level_makes_requests_smaller(http: HttpBackend) -> None:
    words = [f"{number * number % 997:03d} retry the model call " for number in range(2000)]
    what = payload(text="".join(words))
    for level in (1, 9, -1):
        await sent({"endpoint": http.url, "compression_params": {"level": level}}, what)
    fast, best, default = (len(seen.wire) for seen in http.seen)
    assert best < fast == default


@pytest.mark.parametrize("items", [1, 2000])
async def test_json_encoding_sends_otlp_json(http: HttpBackend, items: int) -> None:
    what = payload(Signal.LOGS, items)
    http.answers(body=b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"old"}}', media="application/json")
    assert await sent({"endpoint": http.url, "encoding": "json"}, what) == 1
    [seen] = http.seen
    assert seen.headers["content-type"] == "application/json"
    assert orjson.loads(seen.body) == orjson.loads(to_json(Signal.LOGS, what.data))


async def test_a_request_that_has_no_json_form_is_permanent(http: HttpBackend) -> None:
    with pytest.raises(Permanent, match="not an OTLP request"):
        await sent({"endpoint": http.url, "encoding": "json"}, Payload(Signal.TRACES, b"\xff\xff", 1))


async def test_an_endpoint_of_a_signal_is_used_as_it_is(http: HttpBackend) -> None:
    config = {"endpoint": "http://localhost:1", "traces_endpoint": f"{http.url}/api/public/otel/v1/traces"}
    await sent(config)
    assert http.seen[0].path == "/api/public/otel/v1/traces"


async def test_a_signal_without_endpoint_is_permanent(http: HttpBackend) -> None:
    with pytest.raises(Permanent, match="either endpoint or logs_endpoint"):
        await sent({"traces_endpoint": f"{http.url}/t"}, payload(Signal.LOGS))


async def test_headers_are_sent_and_replace_our_own(http: HttpBackend) -> None:
    """R-1305."""
    await sent({"endpoint": http.url, "headers": {"Authorization": "Basic abc", "user-agent": "mine"}})
    assert http.seen[0].headers["authorization"] == "Basic abc"
    assert http.seen[0].headers["user-agent"] == "mine"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_the_specifications_retryable_codes_are_retried(http: HttpBackend, status: int) -> None:
    http.answers(status, b"busy", "text/plain", Retry_After="7")
    with pytest.raises(Retryable, match=f"HTTP {status}: busy") as caught:
        await sent({"endpoint": http.url})
    assert caught.value.after == 7


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 415, 500, 501, 505])
async def test_every_other_code_is_permanent(http: HttpBackend, status: int) -> None:
    http.answers(status, Status(code=3, message="bad data").SerializeToString(), Retry_After="7")
    with pytest.raises(Permanent, match=f"HTTP {status}: bad data"):
        await sent({"endpoint": http.url})


@pytest.mark.parametrize(
    ("status", "fix"),
    [(401, "credentials"), (403, "credentials"), (404, "endpoint"), (301, "final URL"), (308, "final URL"), (400, ""), (500, "")],
)
async def test_an_answer_that_blames_the_settings_says_what_to_fix(http: HttpBackend, status: int, fix: str) -> None:
    http.answers(status)
    with pytest.raises(Permanent) as caught:
        await sent({"endpoint": http.url})
    assert fix in caught.value.fix
    assert bool(fix) == bool(caught.value.fix)


async def test_retry_after_may_be_a_date_and_nonsense_is_ignored(http: HttpBackend) -> None:
    for value, low, high in [(formatdate(time.time() + 30, usegmt=True), 25, 31), (formatdate(0, usegmt=True), 0, 0)]:
        http.answers(503, Retry_After=value)
        with pytest.raises(Retryable) as caught:
            await sent({"endpoint": http.url})
        assert low <= (caught.value.after or 0) <= high
    http.answers(503, Retry_After="soon")
    with pytest.raises(Retryable) as caught:
        await sent({"endpoint": http.url})
    assert caught.value.after is None


async def test_413_asks_for_smaller_requests(http: HttpBackend) -> None:
    http.answers(413)
    with pytest.raises(Oversized, match="HTTP 413"):
        await sent({"endpoint": http.url})


async def test_rejected_items_of_a_partial_success_are_returned_and_logged_once(
    http: HttpBackend, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 2
    answer.partial_success.error_message = "too old\x1b[31m"
    http.answers(body=answer.SerializeToString())
    exporter = build(OtlpHttp, {"endpoint": http.url})
    await exporter.start()
    with caplog.at_level(logging.WARNING):
        assert [await exporter.send(payload(Signal.LOGS, 5)) for _ in range(3)] == [2, 2, 2]
    await exporter.stop()
    [record] = caplog.records
    assert (record.rejected, record.said) == (2, "too old [31m")


@pytest.mark.parametrize("body", [b"\xff\xff", b"<html>"])
@pytest.mark.parametrize("media", ["application/json", "application/x-protobuf", "text/html"])
async def test_a_success_that_cannot_be_read_still_is_a_success(http: HttpBackend, body: bytes, media: str) -> None:
    http.answers(body=body, media=media)
    assert await sent({"endpoint": http.url}) == 0


async def test_redirects_are_not_followed(http: HttpBackend) -> None:
    async with http_backend() as other:
        http.answers(307, Location=f"{other.url}/v1/traces")
        with pytest.raises(Permanent, match=r"HTTP 307.*redirects are not followed"):
            await sent({"endpoint": http.url, "headers": {"Authorization": "Bearer abc"}})
        assert other.seen == []


@pytest.mark.parametrize("status", [200, 503])
async def test_an_answer_over_4_mib_is_permanent(http: HttpBackend, status: int) -> None:
    http.answers(status, b"x" * ((4 << 20) + 1))
    with pytest.raises(Permanent, match="larger than 4194304"):
        await sent({"endpoint": http.url})


async def test_a_bomb_as_answer_is_permanent_and_a_small_packed_answer_is_read(http: HttpBackend) -> None:
    http.answers(400, gzip.compress(bytes(64 << 20)), "text/plain", Content_Encoding="gzip")
    with pytest.raises(Permanent, match="larger than 4194304"):
        await sent({"endpoint": http.url})
    http.answers(400, gzip.compress(b"no such tenant"), "text/plain", Content_Encoding="gzip")
    with pytest.raises(Permanent, match="HTTP 400: no such tenant"):
        await sent({"endpoint": http.url})
    http.answers(400, b"not gzip", "text/plain", Content_Encoding="gzip")
    with pytest.raises(Permanent, match=r"HTTP 400$"):
        await sent({"endpoint": http.url})


async def test_the_backends_text_is_cut_and_a_header_it_echoes_is_masked(http: HttpBackend) -> None:
    http.answers(401, b"key s3cret-key is wrong" + b"y" * 9000, "text/plain")
    with pytest.raises(Permanent) as caught:
        await sent({"endpoint": http.url, "headers": {"api-key": "s3cret-key"}})
    assert str(caught.value).startswith("HTTP 401: key **** is wrong")
    assert len(str(caught.value)) < 1100


async def test_nobody_listening_is_retryable() -> None:
    port = free_port()
    with pytest.raises(Retryable) as caught:
        await sent({"endpoint": f"http://127.0.0.1:{port}"})
    assert str(caught.value) == f"no answer: 127.0.0.1:{port}: Connection refused"


async def test_a_name_that_does_not_resolve_is_retryable() -> None:
    with pytest.raises(Retryable, match=r"no answer: nobody\.invalid:4318: [A-Z][a-z ]+"):
        await sent({"endpoint": "http://nobody.invalid:4318"})


async def test_a_server_without_tls_is_told_in_words_of_tls(http: HttpBackend) -> None:
    with pytest.raises(Retryable, match=r"no answer: .*(SSL|ssl)"):
        await sent({"endpoint": http.url.replace("http:", "https:")})


async def test_a_connection_lost_before_the_answer_is_retryable(http: HttpBackend) -> None:
    async def hang_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    http.answer = hang_up
    with pytest.raises(Retryable, match="no answer"):
        await sent({"endpoint": http.url})


async def test_an_answer_that_is_not_http_is_retryable() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-nothing\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    with pytest.raises(Retryable, match="no answer"):
        await sent({"endpoint": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"})
    server.close()
    await server.wait_closed()


async def test_a_cancelled_send_leaves_the_exporter_usable(http: HttpBackend) -> None:
    gate = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response()

    http.answer = wait
    exporter = build(OtlpHttp, {"endpoint": http.url})
    await exporter.start()
    sending = asyncio.ensure_future(exporter.send(payload()))
    await eventually(lambda: http.seen)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    gate.set()
    assert await exporter.send(payload()) == 0
    await exporter.start()
    await exporter.stop()
    await exporter.stop()
    with pytest.raises(Retryable, match="not started"):
        await exporter.send(payload())


async def test_connections_are_kept_unless_told_otherwise(http: HttpBackend) -> None:
    for closed, connections in ((False, 1), (True, 3)):
        peers: set[Any] = set()

        async def note(request: web.Request, peers: set[Any] = peers) -> web.StreamResponse:
            assert request.transport is not None
            peers.add(request.transport.get_extra_info("peername"))
            return web.Response()

        http.answer = note
        exporter = build(OtlpHttp, {"endpoint": http.url, "disable_keep_alives": closed})
        await exporter.start()
        for _ in range(3):
            await exporter.send(payload())
        await exporter.stop()
        assert len(peers) == connections


async def test_proxies_of_the_environment_are_ignored_and_a_named_one_is_used(
    http: HttpBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert await sent({"endpoint": http.url}) == 0
    await sent({"endpoint": "http://backend.invalid:4318", "proxy_url": http.url})
    assert http.seen[1].headers["host"] == "backend.invalid:4318"


async def test_tls_and_client_certificates(certificates: Certificates) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    context.load_cert_chain(certificates.server, certificates.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    async with http_backend(context) as backend:
        mine = {"cert_file": certificates.client, "key_file": certificates.client_key}
        assert await sent({"endpoint": backend.url, "tls": {"ca_file": certificates.ca, **mine}}) == 0
        ip = backend.url.replace("localhost", "127.0.0.1")
        tls = {"ca_file": certificates.ca, "server_name_override": "backend.internal", **mine}
        assert await sent({"endpoint": ip, "tls": tls}) == 0
        assert await sent({"endpoint": ip, "tls": {"insecure_skip_verify": True, **mine}}) == 0
        for wrong in ({"ca_file": certificates.ca}, mine, {**tls, "server_name_override": "elsewhere"}):
            with pytest.raises(Retryable):
                await sent({"endpoint": ip, "tls": wrong})
        assert len(backend.seen) == 3


async def test_a_missing_ca_file_fails_at_start_with_the_keys_name() -> None:
    with pytest.raises(ConfigError, match="exporters::test::tls"):
        await sent({"endpoint": "https://localhost:1", "tls": {"ca_file": "/nowhere.pem"}})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "at least one endpoint must be specified"),
        ({"endpoint": "localhost:4318"}, "write a URL such as http://localhost:4318"),
        ({"endpoint": "ftp://h"}, "not a URL of the form"),
        ({"endpoint": "http://h/a b"}, "not a URL of the form"),
        ({"logs_endpoint": "h/v1/logs"}, "logs_endpoint: write a URL"),
        ({"endpoint": "http://h", "profiles_endpoint": "http://h"}, "profiles are not received"),
        ({"endpoint": "http://h", "auth": {}}, "auth is not supported"),
        ({"endpoint": "http://h", "middlewares": []}, "middlewares is not supported"),
        ({"endpoint": "http://h", "cookies": {}}, "cookies is not supported"),
        ({"endpoint": "http://h", "compression": "snappy"}, "snappy is not supported: use gzip or zstd"),
        ({"endpoint": "http://h", "compression_params": {"level": 15}}, "gzip has levels 1 to 9"),
        ({"endpoint": "http://h", "proxy_url": "proxy"}, "proxy_url: write a URL"),
        ({"endpoint": "http://h", "headers": {"a": "b\r\nc: d"}}, "line break"),
        ({"endpoint": "http://h", "headers": {"a": True}}, "headers"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_reason(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        build(OtlpHttp, config)


def test_the_default_timeout_is_otelcols() -> None:
    assert build(OtlpHttp, {"endpoint": "http://h"}).config.timeout == 30
