"""Sends traces, metrics and logs over OTLP/gRPC, to Jaeger, Tempo, another collector and any other OTLP backend.

Example:
    endpoint: localhost:4317
    tls:
      insecure: true
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collector.component import Exporter, Settings
from collector.errors import ConfigError, Malformed, Oversized, Permanent, Retryable, SendError, TooLarge
from collector.exporters._replies import Notices, excerpt, fix
from collector.exporters.otlp_grpc.settings import LARGEST_ANSWER, OtlpGrpcConfig
from collector.model import Payload, Signal
from collector.otlp import answers
from collector.otlp.compression import inflate

if TYPE_CHECKING:
    import grpc
    import grpc.aio

METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}


class OtlpGrpc(Exporter):
    """Unary Export calls with the payload's own bytes: nothing is decoded or encoded here."""

    Config = OtlpGrpcConfig
    config: OtlpGrpcConfig

    def __init__(self, config: OtlpGrpcConfig, settings: Settings) -> None:
        super().__init__(config, settings)
        self._secrets = tuple(value.get_secret_value() for value in config.headers.values())
        self._metadata = tuple((name.lower(), value.get_secret_value()) for name, value in config.headers.items())
        self._notices = Notices(settings)
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[Signal, Any] = {}
        self._compression: grpc.Compression | None = None

    async def start(self) -> None:
        import grpc
        import grpc.aio

        if self._channel is not None:
            return
        config = self.config
        codecs = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
        self._compression = codecs.get(config.compression)
        if config.plain:
            self._channel = grpc.aio.insecure_channel(config.target, options=config.options())
        else:
            self._channel = grpc.aio.secure_channel(config.target, self._credentials(), options=config.options())
        self._calls = {signal: self._channel.unary_unary(method, None, None) for signal, method in METHODS.items()}

    def _credentials(self) -> grpc.ChannelCredentials:
        import grpc

        tls = self.config.tls
        try:
            root = Path(tls.ca_file).read_bytes() if tls.ca_file else tls.ca_pem.encode() or None
            key = Path(tls.key_file).read_bytes() if tls.key_file else None
            chain = Path(tls.cert_file).read_bytes() if tls.cert_file else None
        except OSError as error:
            raise ConfigError(f"exporters::{self.settings.id}::tls: {error}") from error
        return grpc.ssl_channel_credentials(root, key, chain)

    async def send(self, payload: Payload) -> int:
        import grpc.aio

        if self._channel is None:
            raise Retryable("the exporter is not started")
        call = self._calls[payload.signal](
            payload.data,
            timeout=self.config.timeout or None,
            metadata=self._metadata,
            compression=self._compression,
            wait_for_ready=self.config.wait_for_ready,
        )
        try:
            body: bytes = await call
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Retryable("the connection was closed") from None
        return self._notices.rejected(payload.signal, unpacked(body), secrets=self._secrets)

    def _failure(self, error: grpc.aio.AioRpcError) -> SendError:
        """What to do about a status (OTLP specification, Failures)."""
        code, said = error.code().name, error.details() or ""
        text = f"{code}: {excerpt(said, self._secrets)}"
        if "WRONG_VERSION_NUMBER" in said:
            text += " (the backend speaks no TLS here: set tls.insecure: true)"
        metadata: Any = error.trailing_metadata() or ()
        details = dict(metadata).get("grpc-status-details-bin", b"")
        after = answers.read_failure(details)[1] if isinstance(details, bytes) else None
        if code in answers.RETRYABLE_CODES:
            return Retryable(text, after=after)
        if code != "RESOURCE_EXHAUSTED" or "CLIENT: Received message larger than max" in said or "metadata size exceeds" in said:
            return Permanent(text, fix=fix(code))
        return Oversized(text) if after is None else Retryable(text, after=after)

    async def stop(self) -> None:
        channel, self._channel = self._channel, None
        self._calls = {}
        if channel is not None:
            await channel.close(None)


def unpacked(body: bytes) -> bytes:
    """An answer without gRPC's gzip or deflate. Raises Permanent when it is larger than 4 MiB.

    The first byte of neither can begin an OTLP response.
    """
    codec = "gzip" if body[:2] == b"\x1f\x8b" else "deflate" if body[:1] == b"\x78" else ""
    if not codec:
        return body
    try:
        return inflate(body, codec, LARGEST_ANSWER)
    except TooLarge:
        raise Permanent(f"the answer is larger than {LARGEST_ANSWER} bytes") from None
    except Malformed:
        return b""
