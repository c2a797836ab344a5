"""Settings of the OTLP receiver: otelcol's names and defaults (receiver/otlpreceiver, confighttp, configgrpc)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from collector.fields import Config, Duration, ServerTLS, listen_address

_UNTIL = "there is no such extension yet; remove it, or keep the port on localhost"


def _refuse(value: Any, reasons: dict[str, str]) -> Any:
    """Refuse options of otelcol that are not here, by name; written empty they mean nothing and are left out."""
    if not isinstance(value, dict):
        return value
    for key, reason in reasons.items():
        if value.get(key):
            raise ValueError(f"{key} is not supported: {reason}")
    return {key: member for key, member in value.items() if key not in reasons}


class ServerParameters(Config):
    """Life of gRPC connections; 0 = the library's default."""

    max_connection_idle: Duration = 0.0
    """Close a connection without calls after that long (ours when unset: 15s)."""
    max_connection_age: Duration = 0.0
    """Close a connection after that long."""
    max_connection_age_grace: Duration = 0.0
    """How long calls may go on after that."""
    time: Duration = 0.0
    """Ping a silent client after that long."""
    timeout: Duration = 0.0
    """Close the connection when the ping is not answered within that."""


class EnforcementPolicy(Config):
    """What pings clients may send."""

    min_time: Duration = 0.0
    """Shortest time between two pings of a client."""
    permit_without_stream: bool = False
    """Let clients ping without a call."""


class Keepalive(Config):
    """gRPC keep-alive (otelcol: configgrpc.KeepaliveServerConfig)."""

    server_parameters: ServerParameters = ServerParameters()
    """Life of connections."""
    enforcement_policy: EnforcementPolicy = EnforcementPolicy()
    """What pings clients may send."""


class Listener(Config):
    """What both protocols share."""

    endpoint: str = ""
    """`host:port`, or `unix:/path`."""
    transport: Literal["tcp", "unix"] = "tcp"
    """unix: `endpoint` is the path of a socket file."""
    tls: ServerTLS | None = None
    """Certificate and key; with `client_ca_file` clients must show a certificate too (mTLS)."""
    include_metadata: bool = False
    """Keep request headers beside the data for processors that ask for them."""

    @model_validator(mode="before")
    @classmethod
    def _unsupported(cls, value: Any) -> Any:
        return _refuse(value, {"auth": _UNTIL, "middlewares": _UNTIL})

    @model_validator(mode="after")
    def _address(self) -> Listener:
        if self.socket_path() is None:
            listen_address(self.endpoint)
        return self

    def socket_path(self) -> str | None:
        """Path of the socket file, None for TCP."""
        if self.endpoint.startswith("unix:"):
            return self.endpoint.removeprefix("unix:").removeprefix("//")
        return self.endpoint if self.transport == "unix" else None


class Grpc(Listener):
    """OTLP over gRPC."""

    endpoint: str = "localhost:4317"
    """`host:port`, or `unix:/path`."""
    max_recv_msg_size_mib: int = Field(0, ge=0)
    """Largest message after decompression, MiB; 0 = 64, less where the memory limit asks for it (otelcol: 4)."""
    max_concurrent_streams: int = Field(100, ge=0)
    """Calls at once on one connection."""
    read_buffer_size: int = Field(524288, ge=0)
    """Accepted without effect."""
    write_buffer_size: int = Field(0, ge=0)
    """Accepted without effect."""
    keepalive: Keepalive = Keepalive()
    """Pings and age of connections."""

    @model_validator(mode="after")
    def _versions(self) -> Grpc:
        if self.tls and (self.tls.min_version != "1.2" or self.tls.max_version):
            raise ValueError("tls.min_version and max_version cannot be set for gRPC: its library speaks TLS 1.2 and 1.3")
        return self


class Cors(Config):
    """Which web pages may send telemetry from a browser (otelcol: confighttp.CORSConfig)."""

    allowed_origins: list[str] = Field([])
    """Origins, `*` stands for any text; empty = CORS is off."""
    allowed_headers: list[str] = Field([])
    """Request headers besides the safe ones; `*` = all."""
    exposed_headers: list[str] = Field([])
    """Response headers that scripts may read."""
    max_age: int = Field(0, ge=0)
    """Seconds a browser may remember a preflight answer."""


class Http(Listener):
    """OTLP over HTTP, protobuf and JSON."""

    endpoint: str = "localhost:4318"
    """`host:port`, or `unix:/path`."""
    traces_url_path: str = "/v1/traces"
    """Path for traces."""
    metrics_url_path: str = "/v1/metrics"
    """Path for metrics."""
    logs_url_path: str = "/v1/logs"
    """Path for logs."""
    max_request_body_size: int = Field(0, ge=0)
    """Largest body in bytes, before and after decompression; 0 = 64 MiB, less where the memory limit asks for it."""
    compression_algorithms: list[str] = Field(["", "gzip", "zstd", "zlib", "deflate"])
    """Content encodings that are taken; the empty one means none."""
    read_timeout: Duration = 15.0
    """Longest time for a body to arrive; 0 = off."""
    read_header_timeout: Duration = 5.0
    """Longest time for the headers to arrive; 0 = off."""
    write_timeout: Duration = 0.0
    """Accepted without effect."""
    idle_timeout: Duration = 75.0
    """Close a connection without requests after that long; 0 = off."""
    keep_alives_enabled: bool = True
    """Let clients send several requests on one connection."""
    response_headers: dict[str, str] = Field({})
    """Headers added to every answer."""
    cors: Cors = Cors()
    """Web pages that may send telemetry."""
    strict_json: bool = False
    """Read JSON by the letter of the specification: snake_case keys are ignored, enum names refused."""

    @model_validator(mode="before")
    @classmethod
    def _nulls(cls, value: Any) -> Any:
        return _null_is_default(value, "cors")

    @model_validator(mode="after")
    def _algorithms(self) -> Http:
        for name in self.compression_algorithms:
            if name in ("snappy", "lz4", "x-snappy-framed"):
                raise ValueError(f"compression_algorithms: {name} is not supported: send gzip, zstd or deflate")
            if name not in ("", "gzip", "zstd", "zlib", "deflate"):
                raise ValueError(f"compression_algorithms: {name!r} is unknown: write gzip, zstd, zlib or deflate")
        if len(self.paths()) < 3:
            raise ValueError("traces_url_path, metrics_url_path and logs_url_path must differ")
        return self

    def paths(self) -> dict[str, str]:
        """URL path -> signal; a missing leading slash is added, as otelcol does."""
        named = {"traces": self.traces_url_path, "metrics": self.metrics_url_path, "logs": self.logs_url_path}
        return {"/" + path.removeprefix("/"): signal for signal, path in named.items()}


def _null_is_default(value: Any, *keys: str) -> Any:
    """`grpc:` without a value means its defaults, as in otelcol."""
    if not isinstance(value, dict):
        return value
    return {key: {} if member is None and key in keys else member for key, member in value.items()}


class Protocols(Config):
    """What is listened for; a protocol that is not named is off."""

    grpc: Grpc | None = None
    """OTLP over gRPC; without options: localhost:4317."""
    http: Http | None = None
    """OTLP over HTTP; without options: localhost:4318."""

    @model_validator(mode="before")
    @classmethod
    def _nulls(cls, value: Any) -> Any:
        value = _null_is_default(value or {}, "grpc", "http")
        if isinstance(value, dict) and not value:
            raise ValueError("must specify at least one protocol when using the OTLP receiver")
        return value
