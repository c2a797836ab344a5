"""Options of the OTLP receiver: otelcol's names, their effect, and what is refused by name."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from pydantic import ValidationError

from collector.model import Signal
from collector.receivers.otlp import Otlp
from tests.receivers.otlp_clients import SERVICES, Sink, running
from tests.receivers.test_otlp import sample
from tests.support import FakeHost, build

EXPORT = f"/{SERVICES[Signal.TRACES]}/Export"
PROTOBUF = {"Content-Type": "application/x-protobuf"}


def parse(protocols: Any) -> Any:
    return Otlp.Config.model_validate({"protocols": protocols}).protocols


def test_null_means_defaults_and_absent_means_off() -> None:
    both = parse({"grpc": None, "http": None})
    assert (both.grpc.endpoint, both.http.endpoint) == ("localhost:4317", "localhost:4318")
    assert parse({"grpc": {}}).http is None
    assert parse({"http": None}).grpc is None


@pytest.mark.parametrize("value", [{}, {"protocols": None}, {"protocols": {}}])
def test_no_protocol_is_an_error_in_otelcols_words(value: Any) -> None:
    with pytest.raises(ValidationError, match="must specify at least one protocol when using the OTLP receiver"):
        Otlp.Config.model_validate(value)


@pytest.mark.parametrize(
    ("protocols", "text"),
    [
        ({"grpc": {"auth": {"authenticator": "basic"}}}, "auth is not supported"),
        ({"http": {"auth": {"authenticator": "basic"}}}, "auth is not supported"),
        ({"http": {"middlewares": [{"id": "x"}]}}, "middlewares is not supported"),
        ({"http": {"compression_algorithms": ["gzip", "snappy"]}}, "snappy is not supported"),
        ({"http": {"compression_algorithms": ["lz4"]}}, "lz4 is not supported"),
        ({"http": {"compression_algorithms": ["x-snappy-framed"]}}, "x-snappy-framed is not supported"),
        ({"http": {"compression_algorithms": ["br"]}}, "'br' is unknown"),
        ({"http": {"logs_url_path": "v1/traces"}}, "must differ"),
        ({"grpc": {"endpoint": "localhost"}}, "not an address"),
        ({"grpc": {"tls": {}}}, "certificate and a key"),
        ({"grpc": {"tls": {"cert_file": "a", "key_file": "b", "min_version": "1.3"}}}, "cannot be set for gRPC"),
        ({"grpc": {"max_recv_msg_size_mib": "4"}}, "valid integer"),
        ({"http": {"idle_timeout": 5}}, "needs a unit"),
        ({"grcp": {}}, "grcp"),
        (5, "dictionary"),
        ({"grpc": 5}, "dictionary"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(protocols: Any, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        parse(protocols)


def test_empty_auth_and_middlewares_mean_nothing() -> None:
    parse({"grpc": {"auth": None, "middlewares": []}, "http": {"auth": None, "middlewares": [], "cors": None}})


def test_a_configuration_with_every_option_loads() -> None:
    parse({
        "grpc": {
            "endpoint": "0.0.0.0:4317", "transport": "tcp", "max_recv_msg_size_mib": 4, "max_concurrent_streams": 16,
            "read_buffer_size": 524288, "write_buffer_size": 524288, "include_metadata": True,
            "tls": {"cert_file": "a", "key_file": "b", "client_ca_file": "c", "reload_interval": "1h"},
            "keepalive": {
                "server_parameters": {"max_connection_idle": "11s", "max_connection_age": "12s",
                                      "max_connection_age_grace": "13s", "time": "30s", "timeout": "5s"},
                "enforcement_policy": {"min_time": "10s", "permit_without_stream": True},
            },
        },
        "http": {
            "endpoint": "0.0.0.0:4318", "traces_url_path": "t", "metrics_url_path": "/m", "logs_url_path": "/l",
            "max_request_body_size": 1048576, "compression_algorithms": ["", "gzip"], "read_timeout": "1s",
            "read_header_timeout": "1s", "write_timeout": "1s", "idle_timeout": "1m", "keep_alives_enabled": False,
            "response_headers": {"X-A": "b"}, "include_metadata": True,
            "cors": {"allowed_origins": ["*"], "allowed_headers": ["*"], "exposed_headers": ["X-A"], "max_age": 7200},
        },
    })  # fmt: skip


async def test_url_paths_and_response_headers_are_the_users() -> None:
    async with running(None, {"traces_url_path": "in/spans", "response_headers": {"X-Extra": "yes"}}) as here:
        async with here.session.post(here.url("/in/spans"), data=sample(Signal.TRACES), headers=PROTOBUF) as response:
            assert (response.status, response.headers["X-Extra"]) == (200, "yes")
        async with here.session.post(here.url("/v1/traces"), data=b"", headers=PROTOBUF) as response:
            assert (response.status, response.headers["X-Extra"]) == (404, "yes")


async def test_an_encoding_that_is_not_listed_is_refused() -> None:
    async with running(None, {"compression_algorithms": ["gzip"]}) as here:
        assert (await here.send("protobuf", Signal.TRACES, sample(Signal.TRACES), codec="gzip")).ok
        for codec in ("", "zstd"):
            assert (await here.send("protobuf", Signal.TRACES, sample(Signal.TRACES), codec=codec)).code == 400


async def test_keep_alive_can_be_switched_off() -> None:
    async with running(None, {"keep_alives_enabled": False}) as here:
        answer = await here.send("protobuf", Signal.TRACES, sample(Signal.TRACES))
        assert answer.headers["Connection"] == "close"


async def test_expect_continue_is_answered() -> None:
    async with (
        running() as here,
        here.session.post(here.url(), data=sample(Signal.TRACES), headers=PROTOBUF, expect100=True) as r,
    ):
        assert r.status == 200


ORIGINS = {"cors": {"allowed_origins": ["https://*.shop.example", "http://one.example"], "allowed_headers": ["x-key"],
                    "exposed_headers": ["X-A"], "max_age": 60}}  # fmt: skip


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("https://a.shop.example", True), ("HTTP://ONE.example", True), ("https://shop.example", False), ("", False),
     ("http://one.example.evil", False), ("https://a.shop.example.evil", False)],
)  # fmt: skip
async def test_cors_allows_the_listed_origins(origin: str, allowed: bool) -> None:
    async with running(None, ORIGINS) as here:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,X-Key",
        }
        async with here.session.options(here.url(), headers=headers) as response:
            assert response.status == (204 if allowed else 405)
            if allowed:
                assert response.headers["Access-Control-Allow-Origin"] == origin
                assert response.headers["Access-Control-Allow-Credentials"] == "true"
                assert response.headers["Access-Control-Allow-Headers"] == "content-type, X-Key"
                assert response.headers["Access-Control-Max-Age"] == "60"
        async with here.session.post(here.url(), data=b"\xff", headers={**PROTOBUF, "Origin": origin}) as response:
            assert response.status == 400
            assert response.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
            assert response.headers.get("Access-Control-Expose-Headers") == ("X-A" if allowed else None)


@pytest.mark.parametrize("change", [{"Access-Control-Request-Method": "DELETE"}, {"Access-Control-Request-Headers": "x-other"}])
async def test_cors_refuses_other_methods_and_headers(change: dict[str, str]) -> None:
    async with running(None, ORIGINS) as here:
        headers = {"Origin": "http://one.example", "Access-Control-Request-Method": "POST"} | change
        async with here.session.options(here.url(), headers=headers) as response:
            assert response.status == 405


async def test_any_header_and_no_age_where_so_configured() -> None:
    async with running(None, {"cors": {"allowed_origins": ["*"], "allowed_headers": ["*"]}}) as here:
        headers = {"Origin": "null", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "anything"}
        async with here.session.options(here.url(), headers=headers) as response:
            assert response.status == 204
            assert "Access-Control-Max-Age" not in response.headers
        del headers["Access-Control-Request-Headers"]
        async with here.session.options(here.url(), headers=headers) as response:
            assert response.status == 204


@pytest.mark.parametrize("form", ["transport", "prefix"])
async def test_unix_sockets_work_and_are_removed(form: str, tmp_path: Path) -> None:
    paths = {name: str(tmp_path / f"{name}.sock") for name in ("grpc", "http")}
    if form == "transport":
        options = {name: {"endpoint": path, "transport": "unix"} for name, path in paths.items()}
    else:
        options = {name: {"endpoint": f"unix://{path}"} for name, path in paths.items()}
    sink, receiver = Sink(), build(Otlp, {"protocols": options}, component_id="otlp", host=FakeHost())
    await receiver.start(dict.fromkeys(Signal, sink))
    async with grpc.aio.insecure_channel(f"unix:{paths['grpc']}") as channel:
        await channel.unary_unary(EXPORT)(sample(Signal.TRACES))
    url, connector = "http://localhost/v1/traces", aiohttp.UnixConnector(paths["http"])
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(url, data=sample(Signal.TRACES), headers=PROTOBUF) as response,
    ):
        assert response.status == 200
    await receiver.stop()
    assert len(sink.batches) == 2
    assert "http.sock" not in {entry.name for entry in os.scandir(tmp_path)}


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server and a client certificate."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test ca", "-days", "2")
    for name in ("server", "client", "other"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "ext", "-out", f"{name}.pem")  # fmt: skip
    return folder


def server_tls(pki: Path, **more: str) -> dict[str, Any]:
    return {"tls": {"cert_file": str(pki / "server.pem"), "key_file": str(pki / "server.key"), **more}}


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_protects_both_protocols(pki: Path, mutual: bool) -> None:
    tls = server_tls(pki, **({"client_ca_file": str(pki / "ca.pem")} if mutual else {}))
    roots, key, chain = ((pki / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem"))
    async with running(tls, tls) as here:
        assert here.receiver.ports
        target = f"127.0.0.1:{here.receiver.ports['grpc']}"
        url = here.url().replace("http://", "https://")
        context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        if mutual:
            bare = grpc.ssl_channel_credentials(roots)
            async with grpc.aio.secure_channel(target, bare) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(EXPORT)(sample(Signal.TRACES))
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await here.session.post(url, data=sample(Signal.TRACES), headers=PROTOBUF, ssl=context)
            context.load_cert_chain(pki / "client.pem", pki / "client.key")
        credentials = grpc.ssl_channel_credentials(roots, *((key, chain) if mutual else ()))
        async with grpc.aio.secure_channel(target, credentials) as channel:
            await channel.unary_unary(EXPORT)(sample(Signal.TRACES))
        async with here.session.post(url, data=sample(Signal.TRACES), headers=PROTOBUF, ssl=context) as response:
            assert response.status == 200
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await here.session.post(here.url(), data=sample(Signal.TRACES), headers=PROTOBUF)
        assert len(here.sink.batches) == 2


async def test_certificates_are_read_again(pki: Path, tmp_path: Path) -> None:
    for suffix in ("pem", "key"):
        (tmp_path / f"server.{suffix}").write_bytes((pki / f"server.{suffix}").read_bytes())
    tls = server_tls(tmp_path, reload_interval="10ms")

    def subject(port: int) -> bytes:
        certificate = ssl.get_server_certificate(("127.0.0.1", port))
        return ssl.PEM_cert_to_DER_cert(certificate)

    async with running(tls, tls) as here:
        for port in here.receiver.ports.values():
            assert b"server" in await asyncio.to_thread(subject, port)
        (tmp_path / "server.key").unlink()
        for port in here.receiver.ports.values():
            assert b"server" in await asyncio.to_thread(subject, port), "a missing file keeps the old pair"
        for suffix in ("pem", "key"):
            (tmp_path / f"server.{suffix}").write_bytes((pki / f"other.{suffix}").read_bytes())
        for port in here.receiver.ports.values():
            for _ in range(500):
                if b"other" in await asyncio.to_thread(subject, port):
                    break
                await asyncio.sleep(0.01)
            else:
                pytest.fail("the old certificate stays")


async def test_a_missing_certificate_is_an_error_at_start() -> None:
    for options in ({"tls": {"cert_file": "/no/cert", "key_file": "/no/key"}}, None):
        with pytest.raises(OSError, match="/no/cert"):
            async with running(options, None if options else {"tls": {"cert_file": "/no/cert", "key_file": "/no/key"}}):
                pass
