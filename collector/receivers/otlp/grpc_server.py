"""OTLP over gRPC: raw bytes in, raw bytes out, and nothing is read before there is room.

Methods are registered as stream-unary: the same on the wire, but the message is read only when the handler asks, so pending
calls hold no memory. Reads are few at a time; one that is slow while others wait is given up (UNAVAILABLE + RetryInfo).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from collector.component import Settings
from collector.errors import Malformed, Refused
from collector.fields import ServerTLS, listen_address
from collector.model import Signal
from collector.otlp.answers import success
from collector.receivers.otlp.health import Health
from collector.receivers.otlp.intake import Intake, Metadata
from collector.receivers.otlp.options import Grpc

SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}
PER_BYTE = 2.2
"""Bytes taken for each byte of a body: itself and the items cut from it."""
_READ, _CONTENDED = 15.0, 1.0
_EOF: object = vars(grpc.aio)["EOF"]
_GRACE = 5.0


class Reads:
    """At most `slots` messages are read at once, because their size is unknown before."""

    def __init__(self, slots: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self._running: dict[asyncio.Timeout, float] = {}
        self._waiting = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Raises Refused when the message does not arrive in time."""
        now = asyncio.get_running_loop().time
        if self._free.locked():
            for limit, started in self._running.items():
                if not limit.expired():  # one that has fired, but whose task has not run yet, cannot be moved
                    limit.reschedule(max(now(), started + _CONTENDED))
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            async with asyncio.timeout(_CONTENDED if self._waiting else _READ) as limit:
                self._running[limit] = now()
                try:
                    yield
                finally:
                    del self._running[limit]
        except TimeoutError:
            raise Refused("the message did not arrive in time", after=1, reason="slow") from None
        finally:
            self._free.release()


class GrpcServer:
    """One listener."""

    def __init__(self, config: Grpc, settings: Settings, intake: Intake, limit: int) -> None:
        self._config, self._settings, self._intake = config, settings, intake
        self._limit = limit
        self._server: Any = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises OSError when that is not possible."""
        self._reads = Reads(max(2, min(32, self._settings.host.budget.message_limit() // self._limit)))
        server = self._server = grpc.aio.server(options=self._options(), compression=grpc.Compression.NoCompression)
        for signal, service in SERVICES.items():
            handler = grpc.stream_unary_rpc_method_handler(self._method(signal))
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        self._health = Health(self._settings.host.state, ("", *SERVICES.values()))
        self._health.add_to(server)
        try:
            self.port = self._bind()
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._config.endpoint}: {error}") from None
        await server.start()

    async def stop(self) -> None:
        """Answer what is in flight, then close."""
        server, self._server = self._server, None
        if server is not None:
            self._health.leave()
            await server.stop(_GRACE)

    def _bind(self) -> int:
        path = self._config.socket_path()
        if path is None:
            host, port = listen_address(self._config.endpoint)
            address = f"{f'[{host}]' if host and ':' in host else host or '[::]'}:{port}"
        else:
            address = f"unix:{path}"
        if self._config.tls is None:
            return int(self._server.add_insecure_port(address))
        return int(self._server.add_secure_port(address, _credentials(self._config.tls)))

    def _options(self) -> list[tuple[str, int]]:
        life, policy = self._config.keepalive.server_parameters, self._config.keepalive.enforcement_policy
        times = {
            "grpc.max_connection_idle_ms": life.max_connection_idle or 15,
            "grpc.max_connection_age_ms": life.max_connection_age,
            "grpc.max_connection_age_grace_ms": life.max_connection_age_grace,
            "grpc.keepalive_time_ms": life.time,
            "grpc.keepalive_timeout_ms": life.timeout,
            "grpc.http2.min_ping_interval_without_data_ms": policy.min_time,
        }
        return [
            ("grpc.so_reuseport", 0),  # a second process on the port must fail, not share it
            ("grpc.max_receive_message_length", self._limit),
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.absolute_max_metadata_size", 32 << 10),
            ("grpc.max_concurrent_streams", self._config.max_concurrent_streams or 100),
            ("grpc.server_handshake_timeout_ms", 3000),
            ("grpc.keepalive_permit_without_calls", int(policy.permit_without_stream)),
            *((name, int(seconds * 1000)) for name, seconds in times.items() if seconds),
        ]

    def _method(self, signal: Signal) -> Any:
        async def export(messages: object, context: Any) -> bytes:
            try:
                return await self._export(signal, context)
            except asyncio.CancelledError:
                self._intake.answered("CANCELLED")
                raise
            except Exception as error:
                answer = self._intake.failed(error)
            details = (("grpc-status-details-bin", answer.body()),)
            await context.abort(grpc.StatusCode[answer.code], answer.message[:1024], details)
            raise AssertionError("abort raises")

        return export

    async def _export(self, signal: Signal, context: Any) -> bytes:
        self._intake.require(signal)
        with self._settings.host.budget.hold() as hold:
            async with self._reads.slot():
                body = await context.read()
                if body is _EOF:
                    raise Malformed("the call has no message")
                hold.grow(int(len(body) * PER_BYTE))
                if await context.read() is not _EOF:
                    raise Malformed("the call has more than one message")
            opened = await self._intake.take(signal, body, hold, self._metadata(context))
        self._intake.answered("OK")
        return success(signal, opened.rejected, opened.message)

    def _metadata(self, context: Any) -> Metadata | None:
        if not self._config.include_metadata:
            return None
        found: dict[str, tuple[str, ...]] = {}
        for key, value in context.invocation_metadata() or ():
            text = value if isinstance(value, str) else value.decode("latin-1")
            found[key.lower()] = (*found.get(key.lower(), ()), text)
        return found


def _credentials(tls: ServerTLS) -> Any:
    """TLS, read again every `reload_interval` at a handshake. Raises OSError when a file cannot be read."""

    def configuration() -> Any:
        chain, key = tls.certificate()
        roots = None
        if tls.client_ca_file:
            with open(tls.client_ca_file, "rb") as file:
                roots = file.read()
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=roots)

    first = configuration()
    last = time.monotonic()

    def again() -> Any:
        nonlocal last
        if not tls.reload_interval or time.monotonic() - last < tls.reload_interval:
            return None
        last = time.monotonic()
        try:
            return configuration()
        except OSError:
            return None  # a file that is being replaced: the old certificate stays

    return grpc.dynamic_ssl_server_credentials(first, again, bool(tls.client_ca_file))
