"""OTLP over HTTP: protobuf and JSON on one port, our own capped decompression, every error a google.rpc.Status.

Bodies are read chunk by chunk, each chunk reserved from the byte budget before the next. What is plain and needs no waiting takes
the short way of `http_connection.py`, which has the deadlines and caps of connections too.
Longer than usual, because a request's whole way from socket to answer is read in one place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import HttpVersion11, web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestPayloadError
from multidict import CIMultiDictProxy

from collector.component import Hold, Settings
from collector.errors import Malformed, Refused, Rejected, TooLarge, Unsupported
from collector.fields import ServerTLS, listen_address
from collector.model import Signal
from collector.otlp.answers import Failure, success
from collector.otlp.compression import Inflater
from collector.receivers.otlp.cors import CorsPolicy
from collector.receivers.otlp.http_connection import JSON, Connection, Connections
from collector.receivers.otlp.intake import Intake, Metadata
from collector.receivers.otlp.options import Http

PROTOBUF = "application/x-protobuf"
SERVER = "otel-sidecar"
PER_BYTE = 2.2
"""Bytes taken for each byte of a body: itself and the items cut from it."""
MAX_HEADERS, MAX_HEADER, MAX_HEADER_BYTES = 64, 8190, 16 << 10
_PAUSE = 1 << 20
_LINGER, _GRACE, _NEVER = 2.0, 5.0, 1e9
_silent = logging.getLogger("collector.receivers.otlp.http")  # aiohttp's messages may quote request bytes: never shown
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class NotFound(Rejected):
    """No signal has this path."""

    grpc_code = "UNIMPLEMENTED"
    http_status = 404


class NotPost(Rejected):
    """OTLP is POST only."""

    grpc_code = "UNIMPLEMENTED"
    http_status = 405


class HttpServer:
    """One listener."""

    def __init__(self, config: Http, settings: Settings, intake: Intake, limit: int) -> None:
        self._config, self._settings, self._intake, self._limit = config, settings, intake, limit
        self._paths = {path: Signal(name) for path, name in config.paths().items()}
        self._cors = CorsPolicy(config.cors)
        self._fixed = {"Server": SERVER, **config.response_headers}
        self._plainly = config.keep_alives_enabled and not config.response_headers
        self._shortly = self._plainly and "" in config.compression_algorithms
        self._web: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._reload: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises OSError when that is not possible."""
        config, loop = self._config, asyncio.get_running_loop()
        context = config.tls.context() if config.tls else None
        self._web = Connections(
            self._handle,
            short=self,
            header_timeout=config.read_header_timeout,
            keepalive_timeout=config.idle_timeout or _NEVER,
            auto_decompress=False,
            access_log=None,
            logger=_silent,
            max_headers=MAX_HEADERS,
            max_field_size=MAX_HEADER,
            max_line_size=MAX_HEADER,
            lingering_time=_LINGER,
        )
        path = config.socket_path()
        if path is None:
            host, port = listen_address(config.endpoint)
            self._listener = await loop.create_server(self._web, host, port, ssl=context, backlog=1024)
            self.port = self._listener.sockets[0].getsockname()[1]
        else:
            self._listener = await loop.create_unix_server(self._web, path, ssl=context, backlog=1024)
        if config.tls and context and config.tls.reload_interval:
            self._reload = asyncio.create_task(_reload(config.tls, context))

    async def stop(self) -> None:
        """Answer what is in flight, then close."""
        if self._listener is None or self._web is None:
            return
        self._listener.close()
        if self._reload:
            self._reload.cancel()
        self._web.pre_shutdown()
        await self._web.shutdown(_GRACE)
        if path := self._config.socket_path():
            with suppress(FileNotFoundError):
                os.unlink(path)
        self._listener = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin()
        origin = self._cors.headers(request.headers)
        kind = _media_type(request.headers)
        response: web.StreamResponse
        try:
            if request.method == "OPTIONS" and (preflight := self._cors.preflight(request.headers)) is not None:
                return web.Response(status=204, headers=self._fixed | preflight)
            signal = self._check(request, kind)
            body = await self._export(signal, request, json=kind == JSON)
            if self._plainly and not origin and request.keep_alive and request.version == HttpVersion11:
                return _Whole(request, _whole(200, kind, body))
            response = web.Response(body=body, content_type=kind, headers=self._fixed | origin)
        except asyncio.CancelledError:
            self._intake.answered("CANCELLED")
            raise
        except Exception as error:
            response = self._failed(self._intake.failed(error), request, origin)
        finally:
            connection.end()
        if not self._config.keep_alives_enabled:
            response.force_close()
        return response

    def wanted(self, message: RawRequestMessage) -> _Usual | None:
        """What a usual request asks for; None when anything in its head is for `_handle`."""
        headers = message.headers
        signal, kind = self._paths.get(message.path), _media_type(headers)
        if signal is None or message.method != "POST" or kind not in (JSON, PROTOBUF) or message.version != HttpVersion11:
            return None
        if not self._shortly or message.should_close or message.upgrade or _too_large(message.raw_headers):
            return None
        if "Content-Encoding" in headers or "Origin" in headers or "Expect" in headers:
            return None
        return _Usual(signal, kind)

    def answer(self, wanted: _Usual, message: RawRequestMessage, body: bytes) -> bytes | None:
        """The answer to a usual request that nobody has to wait for; None when it is none, and nothing was done."""
        signal, kind = wanted
        if len(body) > self._limit:
            return None
        json = kind == JSON
        try:
            with self._settings.host.budget.hold(int(len(body) * PER_BYTE)) as hold:
                if json:
                    taken = self._intake.take_json_at_once(signal, body, hold, self._metadata(message.headers))
                else:
                    taken = self._intake.take_at_once(signal, body, self._metadata(message.headers))
                if not taken:
                    return None
        except Exception as error:
            answer = self._intake.failed(error)
            more = "".join([f"{name}: {value}\r\n" for name, value in _retry(answer).items()])
            return _whole(answer.http_status, kind, answer.body(json=json), more)
        self._intake.answered("OK")
        return _accepted(kind, int(time.time()))

    def left(self) -> None:
        """A client left while its body was on its way."""
        self._intake.answered("CANCELLED")

    def _metadata(self, headers: CIMultiDictProxy[str]) -> Metadata | None:
        if not self._config.include_metadata:
            return None
        return {key.lower(): tuple(headers.getall(key)) for key in headers}

    def _check(self, request: web.BaseRequest, kind: str) -> Signal:
        """The signal a request is for. Raises what refuses it by its head."""
        signal = self._paths.get(request.path)
        if signal is None:
            raise NotFound(f"404 page not found, supported: {' '.join(sorted(self._paths))}")
        if request.method != "POST":
            raise NotPost("405 method not allowed, supported: [POST]")
        if kind not in (JSON, PROTOBUF):
            raise Unsupported(f"415 unsupported media type, supported: [{JSON}, {PROTOBUF}]")
        if _too_large(request.raw_headers):
            raise Malformed(f"the headers are larger than {MAX_HEADER_BYTES} bytes")
        self._intake.require(signal)
        return signal

    async def _export(self, signal: Signal, request: web.BaseRequest, *, json: bool) -> bytes:
        with self._settings.host.budget.hold() as hold:
            body = await self._body(request, hold)
            metadata = self._metadata(request.headers)
            if json:
                opened = await self._intake.take_json(signal, body, hold, metadata, strict=self._config.strict_json)
            else:
                opened = await self._intake.take(signal, body, hold, metadata)
        self._intake.answered("OK")
        return success(signal, opened.rejected, opened.message, json=json)

    async def _body(self, request: web.BaseRequest, hold: Hold) -> bytes:
        codec = request.headers.get("Content-Encoding", "").strip().lower()
        codec = "" if codec in ("identity", "none") else codec
        if codec not in self._config.compression_algorithms:
            raise Malformed(f"unsupported Content-Encoding: {codec[:64]!r}" if codec else "a Content-Encoding is required")
        if (request.content_length or 0) > self._limit:
            raise TooLarge(f"the body is larger than {self._limit} bytes")
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        try:
            if not codec and request.content.is_eof():  # a small one came with its head: nothing to wait for
                return self._arrived(request.content.read_nowait(), hold)
            async with asyncio.timeout(self._config.read_timeout or None):
                return await (self._inflated(request, codec, hold) if codec else self._plain(request, hold))
        except TimeoutError:
            raise Refused("the body did not arrive in time", after=1, reason="slow") from None
        except (RequestPayloadError, ConnectionError):
            raise Malformed("the body ends too early or is not framed as HTTP has it") from None

    def _arrived(self, body: bytes, hold: Hold) -> bytes:
        if len(body) > self._limit:
            raise TooLarge(f"the body is larger than {self._limit} bytes")
        hold.grow(int(len(body) * PER_BYTE))
        return body

    async def _chunks(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        total = 0
        while chunk := await request.content.readany():
            total += len(chunk)
            if total > self._limit:
                raise TooLarge(f"the body is larger than {self._limit} bytes")
            yield chunk

    async def _plain(self, request: web.BaseRequest, hold: Hold) -> bytes:
        parts, size = [], 0
        async for chunk in self._chunks(request):
            hold.grow(int(len(chunk) * PER_BYTE))
            parts.append(chunk)
            size += len(chunk)
        if size <= _PAUSE:
            return b"".join(parts)
        return await asyncio.to_thread(b"".join, parts)  # 50 ms for 64 MiB, and the interpreter's lock is let go meanwhile

    async def _inflated(self, request: web.BaseRequest, codec: str, hold: Hold) -> bytes:
        inflater, before = Inflater(codec, self._limit, hold.grow), 0
        async for chunk in self._chunks(request):
            for _ in inflater.feed(chunk):
                if inflater.size - before > _PAUSE:
                    before = inflater.size
                    await asyncio.sleep(0)
        hold.grow(int(inflater.size * (PER_BYTE - 1)))
        return inflater.close()

    def _failed(self, answer: Failure, request: web.BaseRequest, origin: Mapping[str, str]) -> web.Response:
        json = _media_type(request.headers) != PROTOBUF
        headers = {**self._fixed, **origin, **_retry(answer)}
        if answer.http_status == 405:
            headers["Allow"] = "POST"
        content_type = JSON if json else PROTOBUF
        return web.Response(status=answer.http_status, body=answer.body(json=json), content_type=content_type, headers=headers)


class _Usual(NamedTuple):
    """What a usual request asks for."""

    signal: Signal
    kind: str


class _Whole(web.StreamResponse):
    """The usual answer, on a connection that stays, written at once: aiohttp's own costs 30 us more."""

    def __init__(self, request: web.BaseRequest, whole: bytes) -> None:
        """Nothing of a general response is used, so its parts are not made."""
        self._writer, self._whole = request.writer, whole

    @property
    def keep_alive(self) -> bool:
        """Always."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing to do."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send it."""
        await self._writer.write(self._whole)


def _whole(status: int, kind: str, body: bytes, more: str = "") -> bytes:
    """An answer as it is sent; `more`: further headers."""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: {SERVER}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nDate: {_dated(int(time.time()))}\r\n{more}\r\n"
    ).encode() + body


@lru_cache(maxsize=1)
def _dated(second: int) -> str:
    return formatdate(second, usegmt=True)


@lru_cache(maxsize=2)
def _accepted(kind: str, second: int) -> bytes:
    """The usual answer, full success; made once a second."""
    return _whole(200, kind, success(Signal.TRACES, json=kind == JSON))


def _retry(answer: Failure) -> dict[str, str]:
    return {"Retry-After": answer.retry_after} if answer.retry_after and answer.http_status in (429, 503) else {}


def _too_large(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return sum([len(key) + len(value) for key, value in headers]) > MAX_HEADER_BYTES


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def _reload(tls: ServerTLS, context: ssl.SSLContext) -> None:
    """Load the certificate files again every `reload_interval`; while they are being replaced the old pair stays."""
    while tls.cert_file and tls.key_file:
        await asyncio.sleep(tls.reload_interval)
        with suppress(OSError):  # ssl.SSLError is one
            context.load_cert_chain(tls.cert_file, tls.key_file)
