"""Real servers on loopback that exporters are tested against, and certificates made by openssl."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import zstandard
from aiohttp import web
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from collector.model import Payload, Signal
from tests.support import REQUEST, any_value, span, traces


def payload(signal: Signal = Signal.TRACES, items: int = 1, *, text: str = "hello") -> Payload:
    """A small request of any signal."""
    request = REQUEST[signal]()
    if signal is Signal.TRACES:
        request = traces(*[span(text) for _ in range(items)])
    elif signal is Signal.LOGS:
        scope = request.resource_logs.add().scope_logs.add()
        for _ in range(items):
            scope.log_records.add(time_unix_nano=1_790_000_000_000_000_000, body=any_value(text))
    else:
        metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=text)
        for number in range(items):
            metric.gauge.data_points.add(as_int=number)
    return Payload(signal, request.SerializeToString(), items)


@dataclass
class Seen:
    """One request as it came over the wire."""

    path: str
    headers: dict[str, str]
    wire: bytes

    @property
    def body(self) -> bytes:
        """The body without its content encoding."""
        coding = self.headers.get("content-encoding", "")
        if coding == "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(self.wire)
        return {"gzip": gzip.decompress, "deflate": zlib.decompress, "zlib": zlib.decompress}.get(coding, bytes)(self.wire)


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class HttpBackend:
    """Keeps every request; `answer` may be exchanged by the test."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    answer: Answer | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {key.lower(): value for key, value in request.headers.items()}
        self.seen.append(Seen(request.path, headers, await request.content.read()))
        return await self.answer(request) if self.answer else web.Response(content_type="application/x-protobuf")

    def answers(self, status: int = 200, body: bytes = b"", media: str = "application/x-protobuf", **headers: str) -> None:
        """From now on every request gets this answer (`Retry_After` names the header Retry-After)."""

        async def answer(request: web.Request) -> web.StreamResponse:
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            return web.Response(status=status, body=body, content_type=media, headers=named)

        self.answer = answer


@asynccontextmanager
async def http_backend(tls: Any = None) -> AsyncIterator[HttpBackend]:
    """A running HTTP server on a free port."""
    backend = HttpBackend()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", backend.handle)
    runner = web.AppRunner(app, auto_decompress=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    backend.url = f"http{'s' if tls else ''}://{'localhost' if tls else '127.0.0.1'}:{runner.addresses[0][1]}"
    try:
        yield backend
    finally:
        await runner.cleanup()


@dataclass
class GrpcBackend:
    """Keeps every request; `fail` ends calls with a status, `reply` is the answer's body."""

    target: str = ""
    seen: list[tuple[str, bytes]] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    reply: bytes = b""
    fail: tuple[grpc.StatusCode, str] | None = None
    retry: float | None = None
    gate: asyncio.Event | None = None
    cancelled: int = 0

    async def export(self, method: str, body: bytes, context: Any) -> bytes:
        self.seen.append((method, body))
        self.metadata.append(dict(context.invocation_metadata() or ()))
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.fail is not None:
            await context.abort(*self.fail, trailing_metadata=self._trailer())
        return self.reply

    def _trailer(self) -> tuple[tuple[str, bytes], ...]:
        if self.retry is None or self.fail is None:
            return ()
        detail = AnyMessage()
        whole = int(self.retry)
        detail.Pack(RetryInfo(retry_delay=Duration(seconds=whole, nanos=int((self.retry - whole) * 1e9))))
        status = Status(code=self.fail[0].value[0], message=self.fail[1], details=[detail])
        return (("grpc-status-details-bin", status.SerializeToString()),)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, backend: GrpcBackend) -> None:
        self.backend = backend

    def service(self, details: Any) -> Any:
        async def export(body: bytes, context: Any) -> bytes:
            return await self.backend.export(details.method, body, context)

        return grpc.unary_unary_rpc_method_handler(export)


@asynccontextmanager
async def grpc_backend(
    credentials: grpc.ServerCredentials | None = None,
    address: str = "127.0.0.1:0",
    compression: grpc.Compression | None = None,
    limit: int = -1,
) -> AsyncIterator[GrpcBackend]:
    """A running gRPC server that takes any method with raw bytes."""
    backend = GrpcBackend()
    options = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=options, compression=compression)
    server.add_generic_rpc_handlers((_Handlers(backend),))
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    backend.target = address if address.startswith("unix:") else f"{'localhost' if credentials else '127.0.0.1'}:{port}"
    await server.start()
    try:
        yield backend
    finally:
        await server.stop(0)


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: a CA, a server for localhost and a client."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return (self.folder / f"{name}.pem").read_bytes()


def make_certificates(folder: Path) -> Certificates:
    """ca, server, server_key, client, client_key."""

    def run(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    run("req", "-x509", *key, "-keyout", "ca_key.pem", "-out", "ca.pem", "-subj", "/CN=test ca")
    for name in ("server", "client"):
        run(
            "req", "-x509", *key, "-keyout", f"{name}_key.pem", "-out", f"{name}.pem", "-subj", f"/CN={name}",
            "-CA", "ca.pem", "-CAkey", "ca_key.pem", "-addext", "subjectAltName=DNS:localhost,DNS:backend.internal",
            "-addext", "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip
    return Certificates(folder)
