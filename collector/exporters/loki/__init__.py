"""Pushes logs to Loki: few stream labels, JSON lines, ids as structured metadata; or over Loki's OTLP endpoint.

Example:
    endpoint: http://localhost:3100/loki/api/v1/push
"""

from __future__ import annotations

import re
import time
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from collector.component import Exporter, Settings
from collector.errors import Oversized, Permanent, Retryable, SendError
from collector.exporters._aside import aside, prepare
from collector.exporters._http import HttpClient, HttpPush, Reply, check_url
from collector.exporters._otlp import JSON, OtlpPush
from collector.exporters._replies import excerpt, fix
from collector.fields import ByteSize, Config, without_type
from collector.model import Payload, Signal

_INLINE = 64 << 10  # larger requests are turned into lines in a thread
_LARGEST_REQUEST = 3 << 19  # small records grow to two and a half times as JSON
_LARGEST_BODY = 3 << 20  # Loki passes a push on in one gRPC message of at most 4 MiB and answers 500 beyond it


class DefaultLabels(Config):
    """otelcol's old block: labels beside ours, for dashboards that use them."""

    exporter: bool = True
    """Label exporter="OTLP"."""
    job: bool = True
    """Label job = service.namespace/service.name."""
    instance: bool = True
    """Label instance = service.instance.id."""
    level: bool = True
    """Label level."""


class LokiConfig(HttpPush):
    """Settings of `loki`."""

    endpoint: str = Field(min_length=1)
    """URL of the push API, `http://loki:3100/loki/api/v1/push` (the path may be left out), or of OTLP, `.../otlp`."""
    tenant: str = Field("", pattern=r"^[a-zA-Z0-9!._*'()-]{0,150}$")
    """Header X-Scope-OrgID; only ever from here, never from telemetry."""
    agent_type_label: bool = False
    """Make agent_type a stream label too (at most 98 values)."""
    structured_metadata: bool = True
    """False for Loki before 3.0: ids and resource attributes go into the line instead."""
    max_line_size: ByteSize = 256 << 10
    """Longer lines have their longest texts cut, marked `truncated` (Loki refuses lines over its max_line_size); 0 never."""
    logger_levels: dict[str, Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]] = Field(default_factory=dict)
    """Least level for a logger and those below it (`httpx: WARNING`); `""` for all others. Nothing is dropped when empty."""
    default_labels_enabled: DefaultLabels | None = None
    """otelcol's old labels, only where the block is written."""

    @model_validator(mode="before")
    @classmethod
    def _old(cls, value: Any) -> Any:
        return without_type(value, "labels tenant_id format", "removed from otelcol's exporter; see docs/recipes/loki.md")

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str) -> str:
        url = check_url(value)
        path = re.sub(r"^https?://[^/]+", "", url)
        return f"{url}/loki/api/v1/push" if not path else f"{url}/v1/logs" if path.endswith("/otlp") else url

    @property
    def otlp(self) -> bool:
        """True when the endpoint is Loki's OTLP endpoint."""
        return self.endpoint.endswith("/otlp/v1/logs")

    @model_validator(mode="after")
    def _push_only(self) -> LokiConfig:
        if self.otlp and (self.logger_levels or self.agent_type_label or self.default_labels_enabled):
            raise ValueError("logger_levels and labels need the push API: on the OTLP endpoint Loki chooses the labels")
        return self


class Loki(Exporter):
    """One push for each payload."""

    Config = LokiConfig
    config: LokiConfig
    signals: ClassVar[frozenset[Signal]] = frozenset({Signal.LOGS})

    def __init__(self, config: LokiConfig, settings: Settings) -> None:
        super().__init__(config, settings)
        self._client = HttpClient(config, settings)
        self._otlp = OtlpPush(self._client, settings)
        if not config.otlp:
            self.largest = _LARGEST_REQUEST
            prepare()
        self._overflow = settings.meters.counter("label_overflow", "Label values beyond the cap of a family.", ("label",), cap=0)
        self._below = settings.meters.counter(
            "collector_loki_lines_below_level", "Log lines not sent because of logger_levels.", ("exporter",), cap=0
        )

    async def start(self) -> None:
        from collector.exporters.loki.streams import Caps, Threshold

        self._caps = Caps(lambda label: self._overflow.add(1, label))
        self._threshold = Threshold(dict(self.config.logger_levels))
        await self._client.open(https=self.config.endpoint.startswith("https:"))

    async def send(self, payload: Payload) -> int | tuple[int, int]:
        headers = {"X-Scope-OrgID": self.config.tenant} if self.config.tenant else {}
        if self.config.otlp:
            return await self._otlp.send(self.config.endpoint, payload, headers)
        if len(payload.data) > _LARGEST_REQUEST and payload.items > 1:
            raise Oversized("more than one push should hold")  # it was queued by an exporter without this limit
        if len(payload.data) <= _INLINE:
            body, below = self._body(payload.data)
        else:
            body, below = await aside(self._body, payload.data)
        if len(body) > _LARGEST_BODY and payload.items > 1:
            raise Oversized(f"a push of {len(body)} bytes is more than Loki passes on")
        if body:
            reply = await self._client.post(self.config.endpoint, body, JSON, headers)
            if not 200 <= reply.status < 300:
                raise _failure(reply, excerpt(reply.body, self._client.secrets))
        if below:
            self._below.add(below, self.settings.id)
        return 0, below

    def _body(self, data: bytes) -> tuple[bytes, int]:
        from google.protobuf.message import DecodeError

        from collector.exporters.loki.streams import Streams, collect

        config, old = self.config, self.config.default_labels_enabled
        names = frozenset(name for name, wanted in old.model_dump().items() if wanted) if old else frozenset({"level"})
        streams = Streams(
            self._caps,
            agent_type=config.agent_type_label,
            metadata=config.structured_metadata,
            level="level" in names,
            old=names - {"level"},
            longest=config.max_line_size,
        )
        try:
            below = collect(data, streams, self._threshold, time.time_ns())
        except DecodeError:
            raise Permanent("the request cannot be decoded") from None
        return streams.body(), below

    async def stop(self) -> None:
        await self._client.close()


def _failure(reply: Reply, said: str) -> SendError:
    text = f"HTTP {reply.status}: {said}" if said else f"HTTP {reply.status}"
    if reply.status == 413 or (reply.status == 500 and "larger than max" in said):
        return Oversized(text)
    if reply.status == 429 or reply.status >= 500:
        return Retryable(text, after=reply.after)
    return Permanent(text, fix=fix(reply.status))
