"""OTLP over gRPC: raw bytes in, raw bytes out, and nothing is read before there is room."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable
from typing import Any

import grpc

from collector.component import Settings
from collector.fields import ServerTLS, listen_address
from collector.model import Signal
from collector.otlp.answers import success
from collector.receivers.otlp import aio_calls
from collector.receivers.otlp.aio_calls import AioCalls
from collector.receivers.otlp.calls import USABLE, Calls
from collector.receivers.otlp.face import Call, Handler, Reply, refusal
from collector.receivers.otlp.health import Health
from collector.receivers.otlp.intake import Intake, Metadata
from collector.receivers.otlp.options import Grpc
from collector.receivers.otlp.reads import PER_BYTE, Reads

SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}
WAY_VARIABLE = "OTEL_SIDECAR_GRPC"
"""`aio` in it: do without the library's completion queue."""
_GRACE = 5.0
_OK = Reply(b"")


class GrpcServer:
    """One listener."""

    def __init__(self, config: Grpc, settings: Settings, intake: Intake, limit: int) -> None:
        self._config, self._settings, self._intake = config, settings, intake
        self._limit = limit
        self._server: Any = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises OSError when that is not possible."""
        host = self._settings.host
        self._health = Health(host.state, ("", *SERVICES.values()), host.budget)
        self._server = self._calls(max(2, min(32, host.budget.message_limit() // self._limit)))
        try:
            self.port = self._bind()
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._config.endpoint}: {error}") from None
        await self._server.start()

    def _calls(self, slots: int) -> Calls | AioCalls:
        handlers = {f"/{service}/Export": self._method(signal) for signal, service in SERVICES.items()} | self._health.handlers()
        streams = self._health.streams()
        if USABLE and os.environ.get(WAY_VARIABLE) != "aio":
            return Calls(self._options(), handlers | streams, Reads(slots, self._limit), self._settings.log)
        return AioCalls(self._options(), handlers, streams, aio_calls.Reads(slots))

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
        return int(self._server.add_port(address, None if self._config.tls is None else _credentials(self._config.tls)))

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
            ("grpc.default_compression_algorithm", 0),  # answers are a few bytes
            ("grpc.so_reuseport", 0),  # a second process on the port must fail, not share it
            ("grpc.max_receive_message_length", self._limit),
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.absolute_max_metadata_size", 32 << 10),
            ("grpc.max_concurrent_streams", self._config.max_concurrent_streams or 100),
            ("grpc.server_handshake_timeout_ms", 3000),
            ("grpc.keepalive_permit_without_calls", int(policy.permit_without_stream)),
            *((name, int(seconds * 1000)) for name, seconds in times.items() if seconds),
        ]

    def _method(self, signal: Signal) -> Handler:
        def export(call: Call) -> Reply | Awaitable[Reply]:
            try:
                if (body := call.here()) is not None and self._at_once(signal, body, call):
                    self._intake.answered("OK")
                    return _OK
            except Exception as error:
                return refusal(self._intake.failed(error))
            return self._later(signal, call)

        return export

    def _at_once(self, signal: Signal, body: bytes, call: Call) -> bool:
        with self._settings.host.budget.hold(int(len(body) * PER_BYTE)):
            return self._intake.take_at_once(signal, body, self._metadata(call))

    async def _later(self, signal: Signal, call: Call) -> Reply:
        try:
            return Reply(await self._export(signal, call))
        except asyncio.CancelledError:
            self._intake.answered("CANCELLED")
            raise
        except Exception as error:
            return refusal(self._intake.failed(error))

    async def _export(self, signal: Signal, call: Call) -> bytes:
        self._intake.require(signal)
        with self._settings.host.budget.hold() as hold:
            body = await call.body(hold)
            opened = await self._intake.take(signal, body, hold, self._metadata(call))
        self._intake.answered("OK")
        return success(signal, opened.rejected, opened.message)

    def _metadata(self, call: Call) -> Metadata | None:
        if not self._config.include_metadata:
            return None
        found: dict[str, tuple[str, ...]] = {}
        for key, value in call.metadata:
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
