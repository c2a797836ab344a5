"""HTTP towards a backend: one client session, capped answers, no redirects, no surprises from the environment.

Rules: reliability section 2, rows 4, 5, 17 and 21. An exporter says what to post and what an answer means.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from collector import __version__
from collector.component import Settings
from collector.errors import ConfigError, Malformed, Permanent, Rejected, Retryable
from collector.exporters._replies import excerpt
from collector.fields import ClientTLS, Config, Duration, Headers, Push, without_type
from collector.otlp.answers import read_retry_after
from collector.otlp.compression import CODECS, compress, inflate

if TYPE_CHECKING:
    import aiohttp

LARGEST_ANSWER = 4 << 20
_INLINE = 256 << 10  # larger bodies are packed in a thread: the loop stays free


class CompressionParams(Config):
    """otelcol: configcompression.CompressionParams."""

    level: int | None = Field(None, ge=-1, le=22)
    """gzip and zlib 1-9, zstd 1-22; empty or -1: the codec's default."""


class HttpPush(Push):
    """Settings of every exporter that posts over HTTP (otelcol: confighttp.ClientConfig)."""

    timeout: Duration = 30.0
    """Longest time of one attempt."""
    headers: Headers = Field(default_factory=dict)
    """Headers of every request, such as Authorization; values are never printed."""
    tls: ClientTLS = ClientTLS()
    """Certificates for https endpoints."""
    compression: Literal["gzip", "zstd", "deflate", "zlib", "none", ""] = "gzip"
    """How request bodies are packed."""
    compression_params: CompressionParams = CompressionParams()
    """How hard they are packed."""
    proxy_url: str = ""
    """Proxy to go through; proxy variables of the environment are never used."""
    disable_keep_alives: bool = False
    """Open a connection for every request."""
    max_conns_per_host: int = Field(0, ge=0)
    """Connections at once; 0 as many as sending_queue.num_consumers needs."""
    idle_conn_timeout: Duration = 90.0
    """Close a connection that was idle that long."""
    max_idle_conns: int = 100
    """Accepted without effect."""
    max_idle_conns_per_host: int = 0
    """Accepted without effect."""
    read_buffer_size: int = 0
    """Accepted without effect."""
    write_buffer_size: int = 0
    """Accepted without effect."""
    force_attempt_http2: bool = True
    """Accepted without effect: HTTP/1.1 is spoken."""
    http2_read_idle_timeout: Duration = 0.0
    """Accepted without effect."""
    http2_ping_timeout: Duration = 0.0
    """Accepted without effect."""

    @model_validator(mode="before")
    @classmethod
    def _refused(cls, value: Any) -> Any:
        without_type(value, "auth", "authenticator extensions do not exist here; put the credentials into headers")
        without_type(value, "middlewares", "there are no middleware extensions")
        without_type(value, "cookies", "no cookie of a backend is kept")
        return value

    @field_validator("compression", mode="before")
    @classmethod
    def _codec(cls, value: Any) -> Any:
        if value in ("snappy", "x-snappy-framed", "lz4"):
            raise ValueError(f"{value} is not supported: use gzip or zstd")
        return value

    @field_validator("proxy_url")
    @classmethod
    def _proxy(cls, value: str) -> str:
        return value and check_url(value, "proxy_url")

    @model_validator(mode="after")
    def _level(self) -> HttpPush:
        level = self.compression_params.level
        if level is not None and level > 9 and self.compression != "zstd":
            raise ValueError(f"compression_params.level: {self.compression} has levels 1 to 9")
        return self


def check_url(value: str, name: str = "endpoint") -> str:
    """The URL without trailing slashes. Raises ValueError when it is none an HTTP client can post to."""
    if "://" not in value:
        raise ValueError(f"{name}: write a URL such as http://{value}")
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s#]*)?", value):
        raise ValueError(f"{name}: not a URL of the form http://host:port/path")
    return value.rstrip("/")


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: status, media type in lower case without parameters, body (capped, unpacked), delay asked for."""

    status: int
    media: str
    body: bytes
    after: float | None


def _reason(error: Exception) -> str:
    """In the system's words; aiohttp's own speak of its internals."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        number = error.os_error.errno or 0
        if reason := os.strerror(number) if number > 0 else error.os_error.strerror:  # below 0: a name that does not resolve
            return f"{error.host}:{error.port}: {reason}"
    return str(error) or type(error).__name__


class HttpClient:
    """Posts bodies; raises Retryable when no answer came and Permanent when an answer is larger than 4 MiB."""

    def __init__(self, config: HttpPush, settings: Settings) -> None:
        self._config, self._settings = config, settings
        self.secrets = tuple(value.get_secret_value() for value in config.headers.values())
        self._session: aiohttp.ClientSession | None = None

    async def open(self, *, https: bool) -> None:
        """Make the session. Raises ConfigError when a TLS file is unusable."""
        import aiohttp
        from multidict import CIMultiDict

        if self._session is not None:
            return
        config = self._config
        verify: ssl.SSLContext | bool = True
        if https:
            try:
                verify = config.tls.context()
            except (OSError, ssl.SSLError, ValueError) as error:
                raise ConfigError(f"exporters::{self._settings.id}::tls: {error}") from error
        headers = CIMultiDict({"User-Agent": f"otel-sidecar/{__version__}", "Accept-Encoding": "identity"})
        headers.update({name: value.get_secret_value() for name, value in config.headers.items()})
        idle = None if config.disable_keep_alives else config.idle_conn_timeout or None
        connector = aiohttp.TCPConnector(
            limit=config.max_conns_per_host, force_close=config.disable_keep_alives, keepalive_timeout=idle, ssl=verify
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, body: bytes, media: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Send one body and read the answer. Cancelling it closes the connection."""
        import aiohttp

        if self._session is None:
            raise Retryable("the exporter is not started")
        codec = self._config.compression
        sent = {**(headers or {}), "Content-Type": media}
        if codec not in ("", "none"):
            body = await self._packed(body, codec)
            sent["Content-Encoding"] = codec
        try:
            async with self._session.post(
                url,
                data=body if len(body) <= _INLINE else io.BytesIO(body),  # sent in pieces
                headers=sent,
                allow_redirects=False,
                proxy=self._config.proxy_url or None,
                server_hostname=self._config.tls.server_name_override or None,
            ) as response:
                return await self._reply(response)
        except (aiohttp.ClientError, OSError) as error:
            raise Retryable(f"no answer: {excerpt(_reason(error), self.secrets)}") from None

    async def _packed(self, body: bytes, codec: str) -> bytes:
        level = self._config.compression_params.level
        level = None if level == -1 else level
        if len(body) <= _INLINE:
            return compress(body, codec, level)
        return await asyncio.to_thread(compress, body, codec, level)

    async def _reply(self, response: aiohttp.ClientResponse) -> Reply:
        body = bytearray()
        async for chunk in response.content.iter_chunked(64 << 10):
            body += chunk
            if len(body) > LARGEST_ANSWER:
                response.close()
                raise Permanent(f"HTTP {response.status}: the answer is larger than {LARGEST_ANSWER} bytes")
        codec = response.headers.get("Content-Encoding", "").lower()
        data = bytes(body)
        if data and codec in CODECS:
            try:
                data = inflate(data, codec, LARGEST_ANSWER)
            except Malformed:
                data = b""
            except Rejected as error:
                raise Permanent(f"HTTP {response.status}: {error}") from None
        after = read_retry_after(response.headers.get("Retry-After"), time.time())
        return Reply(response.status, response.content_type.lower(), data, after)
