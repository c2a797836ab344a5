"""Settings of `otlp_grpc` and the channel arguments that they become (otelcol: configgrpc.ClientConfig)."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from collector import __version__
from collector.fields import ClientTLS, Config, Duration, Headers, Push, without_type

LARGEST_ANSWER = 4 << 20
_ADDRESS = re.compile(
    r"(?:https?://|dns:///|dns:(?!/)|passthrough:///)?"
    r"([^/\s]*[^/\s:]|\[[0-9a-fA-F:.%]+\]):([0-9]{1,5})"
)
_NOT_GZIP = "gRPC knows gzip and deflate only: use gzip or none, or otlp_http for zstd"


class Keepalive(Config):
    """otelcol: configgrpc.KeepaliveClientConfig."""

    time: Duration = Field(10.0, ge=0)
    """Ping after that long without a sign of life, while a request is open; at least 10s."""
    timeout: Duration = Field(10.0, ge=0)
    """Close the connection when the ping is not answered within that time."""
    permit_without_stream: bool = False
    """Ping idle connections too."""


class GrpcTLS(ClientTLS):
    """TLS towards a gRPC backend."""

    @model_validator(mode="after")
    def _unavailable(self) -> GrpcTLS:
        if self.insecure_skip_verify:
            raise ValueError("insecure_skip_verify is not available on gRPC: set ca_file, or insecure: true, or use otlp_http")
        if self.min_version != "1.2":
            raise ValueError("min_version is not available on gRPC: use otlp_http")
        return self


class OtlpGrpcConfig(Push):
    """Settings of `otlp_grpc` (otelcol: otlpexporter)."""

    endpoint: str
    """`host:port`, `http://host:port` (plain), `https://host:port`, `dns:///host:port` or `unix:///path`."""
    compression: Literal["none", "", "gzip", "deflate"] = "none"
    """Packing of requests. Ours: none, as gRPC's own gzip costs 12 us of CPU a span, 25 times the sending (otelcol: gzip)."""
    headers: Headers = Field(default_factory=dict)
    """Metadata of every request, such as authorization; values are never printed."""
    tls: GrpcTLS = GrpcTLS()
    """On unless insecure, `http://` or a unix socket without a tls block."""
    keepalive: Keepalive = Keepalive()
    """Pings that find a dead connection."""
    balancer_name: Literal["round_robin", "pick_first"] = "round_robin"
    """How requests are spread over the addresses of the endpoint."""
    wait_for_ready: bool = False
    """Wait for the connection within timeout instead of failing at once."""
    authority: str = ""
    """Overrides the :authority header."""
    user_agent: str = ""
    """Put in front of gRPC's own user agent."""
    read_buffer_size: int = 0
    """Accepted without effect."""
    write_buffer_size: int = 524288
    """Accepted without effect."""

    @model_validator(mode="before")
    @classmethod
    def _refused(cls, value: Any) -> Any:
        without_type(value, "auth", "authenticator extensions do not exist here; put the credentials into headers")
        return without_type(value, "middlewares", "there are no middleware extensions")

    @field_validator("compression", mode="before")
    @classmethod
    def _codec(cls, value: Any) -> Any:
        if value in ("zstd", "snappy", "zlib", "lz4", "x-snappy-framed"):
            raise ValueError(f"{value} is not supported: {_NOT_GZIP}")
        return value

    @field_validator("endpoint")
    @classmethod
    def _address(cls, value: str) -> str:
        if not value:
            raise ValueError('requires a non-empty "endpoint"')
        if value.startswith("unix:"):
            return value
        found = _ADDRESS.fullmatch(value)
        if not found or not 0 < int(found[2]) < 65536:
            raise ValueError(f"{value!r} is not an address: write host:port, such as localhost:4317")
        return value

    @field_validator("headers")
    @classmethod
    def _metadata(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, text in value.items():
            if not re.fullmatch(r"[0-9a-z_.-]+", name.lower()) or name.lower().startswith("grpc-"):
                raise ValueError(f"{name}: not a name that gRPC metadata may have")
            if not re.fullmatch(r"[\x20-\x7e]*", text.get_secret_value()) or name.lower().endswith("-bin"):
                raise ValueError(f"{name}: gRPC metadata here is printable ASCII text")
        return value

    @property
    def plain(self) -> bool:
        """True when no TLS is spoken."""
        if self.endpoint.startswith("unix:") and "tls" not in self.model_fields_set:
            return True
        return self.endpoint.startswith("http://") or (self.tls.insecure and not self.endpoint.startswith("https://"))

    @property
    def target(self) -> str:
        """The endpoint as gRPC's name resolver wants it."""
        return re.sub(r"^(https?://|passthrough:///)", "", self.endpoint)

    def options(self) -> list[tuple[str, Any]]:
        """Channel arguments."""
        longest = int(max(1.0, self.retry_on_failure.max_interval) * 1000)  # a backend that is back is found as fast as a retry
        service: dict[str, Any] = {"loadBalancingConfig": [{self.balancer_name: {}}]}
        out: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", LARGEST_ANSWER),
            ("grpc.max_send_message_length", -1),
            ("grpc.per_message_decompression", 0),  # gRPC cannot tell its own limit on answers from the backend's on requests
            ("grpc.initial_reconnect_backoff_ms", min(1000, longest)),
            ("grpc.max_reconnect_backoff_ms", longest),
            ("grpc.service_config", json.dumps(service)),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.primary_user_agent", self.user_agent or f"otel-sidecar/{__version__}"),
        ]
        if self.keepalive.time:
            out.append(("grpc.keepalive_time_ms", int(max(10.0, self.keepalive.time) * 1000)))
            out.append(("grpc.keepalive_timeout_ms", int(self.keepalive.timeout * 1000)))
        if self.keepalive.permit_without_stream:
            out += [("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0)]
        if self.tls.server_name_override:
            out.append(("grpc.ssl_target_name_override", self.tls.server_name_override))
        if self.authority:
            out.append(("grpc.default_authority", self.authority))
        return out
