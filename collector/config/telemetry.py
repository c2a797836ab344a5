"""`service::telemetry`: what the sidecar shows of itself, in the forms otelcol takes (contract section 8)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from collector.fields import Config, Duration


class PrometheusReader(Config):
    """A Prometheus endpoint of our own metrics."""

    host: str = "localhost"
    """Address to listen on."""
    port: int = Field(8888, ge=0, le=65535)
    """Port to listen on."""
    without_type_suffix: bool = False
    """Leave `_total` away from counters, as otelcol's default does."""
    without_units: bool = True
    """Leave units away from names. Accepted without effect: names never carry units."""
    without_scope_info: bool = True
    """No scope labels. Accepted without effect: there are none."""
    with_resource_constant_labels: dict[str, list[str]] = Field(default_factory=dict)
    """Accepted without effect."""


class PullExporter(Config):
    """Which endpoint a pull reader has."""

    prometheus: PrometheusReader = PrometheusReader()
    """A Prometheus endpoint."""


class Pull(Config):
    """A reader that others read from."""

    exporter: PullExporter = PullExporter()
    """The endpoint."""


class Reader(Config):
    """One way our own metrics leave."""

    pull: Pull | None = None
    """A Prometheus endpoint."""
    periodic: dict[str, Any] | None = None
    """Refused: own metrics are only offered for reading."""

    @model_validator(mode="after")
    def _only_pull(self) -> Reader:
        if self.periodic is not None:
            raise ValueError("periodic is not supported: own metrics are read from the pull exporter; scrape port 8888")
        return self


class Metrics(Config):
    """Own metrics."""

    level: Literal["none", "basic", "normal", "detailed"] = "normal"
    """none opens no port; detailed adds durations and error types."""
    address: str = ""
    """Older form of a reader: `host:port`."""
    readers: list[Reader] = Field(default_factory=list)
    """Endpoints; empty for localhost:8888."""
    views: list[dict[str, Any]] = Field(default_factory=list)
    """Accepted without effect."""

    @model_validator(mode="after")
    def _address(self) -> Metrics:
        if self.address and not self.address.rpartition(":")[2].isdigit():
            raise ValueError("address needs a port: write localhost:8888")
        return self

    @model_validator(mode="after")
    def _one(self) -> Metrics:
        if len(self.readers) + bool(self.address) > 1:
            raise ValueError("readers takes one endpoint, because each would show the same series twice")
        return self

    def endpoint(self) -> PrometheusReader | None:
        """Where our metrics are offered: the reader, the older address, or localhost:8888; nowhere at level none."""
        if self.level == "none":
            return None
        if self.address:
            host, _, port = self.address.rpartition(":")
            return PrometheusReader(host=host.strip("[]") or "0.0.0.0", port=int(port))  # noqa: S104
        return next((reader.pull.exporter.prometheus for reader in self.readers if reader.pull), PrometheusReader())


class LogSampling(Config):
    """Equal messages are thinned."""

    enabled: bool = True
    """Thin equal messages."""
    tick: Duration = 10.0
    """Span of time that is looked at."""
    initial: int = Field(10, ge=0)
    """Messages of a tick that are written in any case."""
    thereafter: int = Field(100, ge=0)
    """After that every n-th message; 0 none."""


class Logs(Config):
    """Own log lines."""

    level: Literal["debug", "info", "warn", "warning", "error", "DEBUG", "INFO", "WARN", "WARNING", "ERROR"] = "info"
    """Lowest level written."""
    encoding: Literal["", "console", "json"] = ""
    """json: one object a line; console: text; empty: text on a terminal, else json."""
    development: bool = False
    """Accepted without effect."""
    disable_caller: bool = False
    """Accepted without effect: the calling line is never written."""
    disable_stacktrace: bool = False
    """Accepted without effect: stack traces are written for bugs only."""
    sampling: LogSampling = LogSampling()
    """Thinning of equal messages."""
    output_paths: list[str] = Field(default_factory=lambda: ["stdout"])
    """stdout or stderr (otelcol: stderr)."""
    error_output_paths: list[str] = Field(default_factory=lambda: ["stderr"])
    """Accepted without effect."""
    initial_fields: dict[str, Any] = Field(default_factory=dict)
    """Fields added to every line."""
    processors: list[dict[str, Any]] = Field(default_factory=list)
    """Refused: own log lines are written, not sent."""

    @model_validator(mode="after")
    def _supported(self) -> Logs:
        if self.processors:
            raise ValueError("processors is not supported: own log lines go to stdout or stderr")
        if wrong := [path for path in self.output_paths if path not in ("stdout", "stderr")]:
            raise ValueError(f"output_paths takes stdout and stderr, not {wrong[0]}")
        return self


class Traces(Config):
    """Own traces: accepted without effect, there are none."""

    level: Literal["none", "basic", "normal", "detailed"] = "basic"
    """Accepted without effect."""
    propagators: list[str] = Field(default_factory=list)
    """Accepted without effect."""
    processors: list[dict[str, Any]] = Field(default_factory=list)
    """Accepted without effect."""
    sampler: dict[str, Any] | None = None
    """Accepted without effect."""


class TelemetryConfig(Config):
    """What the sidecar tells about itself."""

    metrics: Metrics = Metrics()
    """Own metrics."""
    logs: Logs = Logs()
    """Own log lines."""
    traces: Traces = Traces()
    """Accepted without effect."""
    resource: dict[str, str | None] = Field(default_factory=dict)
    """Attributes of target_info; null takes one away."""

    def self_metrics(self) -> PrometheusReader | None:
        """The endpoint of our own metrics, None for no endpoint."""
        return self.metrics.endpoint()
