"""A running OTLP receiver and real clients for it: gRPC, HTTP protobuf and HTTP JSON under one face."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
import grpc.aio

from collector.component import Accept
from collector.model import Batch, Signal
from collector.otlp.answers import read_failure, read_success
from collector.otlp.compression import compress
from collector.otlp.mapping import to_json
from collector.receivers.otlp import Otlp
from collector.receivers.otlp.grpc_server import SERVICES
from tests.support import FakeHost, build, eventually

TRANSPORTS = ("grpc", "protobuf", "json")
TYPES = {"protobuf": "application/x-protobuf", "json": "application/json"}


@dataclass
class Answer:
    """What a client was told, by either protocol."""

    code: str | int
    rejected: int = 0
    message: str = ""
    after: float | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.code in ("OK", 200)


class Sink(Accept):
    """An `accept` that keeps what it is given, or raises."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.error: Exception | None = None

    async def __call__(self, batch: Batch) -> None:
        if self.error:
            raise self.error
        self.batches.append(batch)


class Quick(Sink):
    """An accept that takes at once what it is ready for."""

    def __init__(self) -> None:
        super().__init__()
        self.quick: list[Batch] = []
        self.willing = True

    def ready(self, size: int, count: int) -> bool:
        return self.willing and size > 0 and count < 100

    def at_once(self, batch: Batch, count: int) -> None:
        if self.error:
            raise self.error
        assert count == batch.count()
        self.quick.append(batch)


@dataclass
class Running:
    """A started receiver with its clients."""

    receiver: Otlp
    sink: Sink
    host: FakeHost
    channel: Any
    session: aiohttp.ClientSession

    def url(self, path: str = "/v1/traces") -> str:
        return f"http://127.0.0.1:{self.receiver.ports['http']}{path}"

    async def send(self, transport: str, signal: Signal, data: bytes, *, raw: bool = False, codec: str = "") -> Answer:
        """Send an encoded request; `raw`: `data` is the HTTP JSON body itself."""
        if transport == "grpc":
            return await self._grpc(signal, data, codec)
        body = to_json(signal, data) if transport == "json" and not raw else data
        headers = {"Content-Type": TYPES[transport]} | ({"Content-Encoding": codec} if codec else {})
        return await self.post(io.BytesIO(compress(body, codec)), headers, signal, json=transport == "json")

    async def post(self, body: Any, headers: Mapping[str, str], signal: Signal, *, json: bool) -> Answer:
        async with self.session.post(self.url(f"/v1/{signal}"), data=body, headers=headers) as response:
            told = await response.read()
            if response.status == 200:
                return Answer(200, *read_success(signal, told, json=json), body=told, headers=response.headers)
            return Answer(response.status, 0, *read_failure(told, json=json), body=told, headers=response.headers)

    async def _grpc(self, signal: Signal, data: bytes, codec: str) -> Answer:
        call = self.channel.unary_unary(f"/{SERVICES[signal]}/Export")
        try:
            told = await call(data, compression=grpc.Compression.Gzip if codec == "gzip" else None)
        except grpc.aio.AioRpcError as error:
            details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
            message, after = read_failure(details)
            return Answer(error.code().name, 0, message or error.details() or "", after, details)
        return Answer("OK", *read_success(signal, told), body=told)

    def counted(self, name: str, label: str = "") -> float:
        """Sum of a counter over its labels, or over those series that have `label` among them."""
        series = self.receiver.settings.meters._made[name].series()
        return sum(count for labels, count in series.items() if not label or label in labels)


@asynccontextmanager
async def running(
    grpc_options: Mapping[str, Any] | None = None,
    http_options: Mapping[str, Any] | None = None,
    signals: tuple[Signal, ...] = tuple(Signal),
) -> AsyncIterator[Running]:
    """Start a receiver on free ports, with clients; everything is closed at the end."""
    async with AsyncExitStack() as stack:
        host, sink = FakeHost(), Sink()
        protocols = {
            "grpc": {"endpoint": "127.0.0.1:0", **(grpc_options or {})},
            "http": {"endpoint": "127.0.0.1:0", **(http_options or {})},
        }
        receiver = build(Otlp, {"protocols": protocols}, component_id="otlp", host=host)
        await receiver.start(dict.fromkeys(signals, sink))
        stack.push_async_callback(receiver.stop)
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{receiver.ports['grpc']}", options=options)
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Running(receiver, sink, host, channel, session)
        await eventually(lambda: host.budget.used == 0, what="every request gives its reservation back")
