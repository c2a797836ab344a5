"""HTTP connections: deadlines for headers, a cap on connections, and a short way for a request that nobody has to wait for.

aiohttp answers a request in a task of its own, woken by a future: half of what a request of one span costs. A usual request that
is whole is answered where its bytes come in instead. Everything else goes aiohttp's way, and nothing is done twice. Rules:
1. Only when the request loop waits for a request, and there is exactly one; so answers keep their order.
2. The loop is told of a request whose body is on its way only when the body is late, is large, or too many are on their way.
3. What the head asks for decides (`Short.wanted`); a body that turns out to need waiting for is given back unread.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from typing import Any, Protocol, cast

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from collector.otlp.answers import Failure

JSON = "application/json"
MAX_CONNECTIONS = 512
SOON = 0.05
"""Seconds a body may take before the request loop waits for it."""
EXPECTED = 8 << 20
"""Bytes of bodies on their way that the request loops of one listener do not know of; each is at most `LARGEST`."""
LARGEST = 512 << 10
_PREFACE = b"PRI * HTTP/2.0"
_log = logging.getLogger("collector.receivers.otlp")
_NEEDED = ("_keepalive_handle", "_next_keepalive_close_time", "_messages", "_parser", "_process_keepalive", "_waiter")
USABLE = all(hasattr(RequestHandler, name) for name in _NEEDED)
"""Whether the library has what the short way needs."""


class Short(Protocol):
    """Who answers requests at once."""

    def wanted(self, message: RawRequestMessage) -> Any:
        """What a usual request asks for, by its head; None for any other."""

    def answer(self, wanted: Any, message: RawRequestMessage, body: bytes) -> bytes | None:
        """The whole answer; None when somebody has to be waited for, and nothing was done."""

    def left(self) -> None:
        """The client of a usual request left before its body was there."""


class Connection(RequestHandler):
    """A connection with a deadline for headers, and errors in OTLP's form."""

    def __init__(self, manager: Any, *, short: Short | None, header_timeout: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._header_timeout, self._short = header_timeout, short
        self._timer: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._wanted: Any = None  # of a request that the request loop does not know of
        self._expected = 0  # bytes of its body, as long as they are on their way
        self._due = 0.0
        self.idle_since: float | None = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._manager.admit():  # type: ignore[union-attr]
            self._force_close = True
            transport.abort()  # type: ignore[attr-defined]
            return
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if data.startswith(_PREFACE):
            self._manager.grpc_client_came()  # type: ignore[union-attr]
        short, waiter = self._short, self._waiter
        if short is None or waiter is None or waiter.done():
            super().data_received(data)
        elif self._spared(short, waiter, data):
            return
        if self.idle_since is not None and not self._messages:  # the headers are not complete
            self._start_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        if self._late is not None:
            self._late.cancel()
        if self._wanted is not None and self._short is not None:
            self._settle()
            self._short.left()
        super().connection_lost(exc)

    def _spared(self, short: Short, waiter: asyncio.Future[None], data: bytes) -> bool:
        """Read without waking the request loop where it need not know, or not yet; False when no request has come."""
        self._waiter = None  # or it would be woken; reading a body comes back here, too
        try:
            super().data_received(data)
            if not self._messages:
                return False
            spared = len(self._messages) == 1 and self._short_way(short)
        finally:
            self._waiter = waiter
        if self._messages and not spared:
            self._hand_over()
        return True

    def _short_way(self, short: Short) -> bool:
        message, payload = self._messages[0]
        if self._wanted is None:
            if not self._paused and not self._upgraded and isinstance(message, RawRequestMessage):
                self._wanted = short.wanted(message)
            if self._wanted is None:
                return False
            self.begin()
            self._stay()
        if payload.is_eof():
            return self._answered(short, message, payload.read_nowait())
        return bool(self._expected) or self._expect(
            int(cast("RawRequestMessage", message).headers.get("Content-Length", LARGEST + 1))
        )

    def _answered(self, short: Short, message: Any, body: bytes) -> bool:
        wanted = self._wanted
        self._settle()
        answer = short.answer(wanted, message, body)
        if answer is None:
            unread = StreamReader(self, LARGEST, loop=self._loop)
            unread.feed_data(body)
            unread.feed_eof()
            self._messages[0] = message, unread
            return False
        self._messages.popleft()
        self._parser.message_consumed()  # type: ignore[union-attr]
        self.end()
        self._stay()
        self.transport.write(answer)  # type: ignore[union-attr]
        return not self._messages

    def _expect(self, size: int) -> bool:
        """Wait for a body without the request loop, if it is small."""
        connections: Any = self._manager
        if size > LARGEST or connections.expected + size > EXPECTED:
            return False
        connections.expected += size
        self._expected, self._due = size, self._loop.time() + SOON
        if self._late is None:
            self._late = self._loop.call_later(SOON, self._look)
        return True

    def _look(self) -> None:
        """Is a body late? Looked at now and then only: a timer for each request would cost more than its answer."""
        self._late = None
        if self._expected:
            if (left := self._due - self._loop.time()) > 0:
                self._late = self._loop.call_later(left, self._look)
            else:
                self._hand_over()

    def _hand_over(self) -> None:
        self._settle()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _settle(self) -> None:
        if self._expected:
            self._manager.expected -= self._expected  # type: ignore[union-attr]
        self._wanted, self._expected = None, 0

    def _stay(self) -> None:
        """The time after which an idle connection is closed begins again."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    def begin(self) -> None:
        """The headers are there."""
        self._stop_timer()
        self.idle_since = None

    def end(self) -> None:
        """The request is answered."""
        self.idle_since = time.monotonic()

    def _start_timer(self) -> None:
        if self._timer is None and self._header_timeout:
            self._timer = self._loop.call_later(self._header_timeout, self.force_close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no HTTP request; the text of the error may quote the request and is not repeated."""
        answer = Failure("INVALID_ARGUMENT", 400, "not an HTTP request") if status < 500 else Failure("INTERNAL", status, "error")
        response = web.Response(status=answer.http_status, body=answer.body(json=True), content_type=JSON)
        response.force_close()
        return response


class Connections(web.Server):
    """All connections of one listener, up to a cap; at the cap the longest idle one makes room."""

    def __init__(self, handler: Any, *, short: Short, **options: Any) -> None:
        # A client that leaves takes its request with it: else one that waits for its answer would hold its bytes for ever.
        super().__init__(handler, handler_cancellation=True)
        self._options, self._told, self.expected = {**options, "short": short if USABLE else None}, False, 0
        self._cap = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def __call__(self) -> Any:
        return Connection(self, loop=self._loop, **self._options)

    def grpc_client_came(self) -> None:
        """Say it once: a client that speaks gRPC to the HTTP port tries again for ever and is told nothing it could show."""
        if not self._told:
            self._told = True
            _log.warning(
                "a gRPC client came to the HTTP port: use the gRPC endpoint, or OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
            )

    def admit(self) -> bool:
        """Whether there is room for one more."""
        if len(self._connections) < self._cap:
            return True
        idle = [each for each in self._connections if isinstance(each, Connection) and each.idle_since is not None]
        if not idle:
            return False
        min(idle, key=lambda each: each.idle_since or 0.0).force_close()
        return True
