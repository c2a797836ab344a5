"""Sends traces, metrics and logs over OTLP/HTTP, to Tempo, Langfuse, Phoenix, another collector and any other OTLP backend.

Example:
    endpoint: http://localhost:4318
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from collector.component import Exporter, Settings
from collector.errors import Permanent
from collector.exporters._http import HttpClient, HttpPush, check_url
from collector.exporters._otlp import OtlpPush
from collector.fields import without_type
from collector.model import Payload, Signal


class OtlpHttpConfig(HttpPush):
    """Settings of `otlp_http` (otelcol: otlphttpexporter)."""

    endpoint: str = ""
    """Base URL; `/v1/traces`, `/v1/metrics` or `/v1/logs` is appended."""
    traces_endpoint: str = ""
    """Full URL for traces, used as it is."""
    metrics_endpoint: str = ""
    """Full URL for metrics, used as it is."""
    logs_endpoint: str = ""
    """Full URL for logs, used as it is."""
    encoding: Literal["proto", "json"] = "proto"
    """Protobuf, or OTLP JSON for backends that want it."""

    @field_validator("endpoint", "traces_endpoint", "metrics_endpoint", "logs_endpoint")
    @classmethod
    def _url(cls, value: str, info: Any) -> str:
        if not value:
            return value
        checked = check_url(value, info.field_name)
        return checked if info.field_name == "endpoint" else value

    @model_validator(mode="before")
    @classmethod
    def _profiles(cls, value: Any) -> Any:
        return without_type(value, "profiles_endpoint", "profiles are not received")

    @model_validator(mode="after")
    def _one_endpoint(self) -> OtlpHttpConfig:
        if not (self.endpoint or self.traces_endpoint or self.metrics_endpoint or self.logs_endpoint):
            raise ValueError("at least one endpoint must be specified: set endpoint")
        return self

    def url(self, signal: Signal) -> str:
        """Where requests of `signal` go; empty when no endpoint covers it."""
        own: str = getattr(self, f"{signal.value}_endpoint")
        return own or (self.endpoint and f"{self.endpoint}/v1/{signal.value}")


class OtlpHttp(Exporter):
    """One POST for each payload; gzip by default (isal: 0.7 us a span)."""

    Config = OtlpHttpConfig
    config: OtlpHttpConfig

    def __init__(self, config: OtlpHttpConfig, settings: Settings) -> None:
        super().__init__(config, settings)
        self._urls = {signal: config.url(signal) for signal in Signal}
        self._client = HttpClient(config, settings)
        self._push = OtlpPush(self._client, settings, json=config.encoding == "json")

    async def start(self) -> None:
        await self._client.open(https=any(url.startswith("https:") for url in self._urls.values()))

    async def send(self, payload: Payload) -> int:
        url = self._urls[payload.signal]
        if not url:
            raise Permanent(f"either endpoint or {payload.signal.value}_endpoint must be specified")
        return await self._push.send(url, payload)

    async def stop(self) -> None:
        await self._client.close()
