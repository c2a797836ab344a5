"""gRPC calls by grpc.aio: where the library's completion queue is not what `calls` knows, or OTEL_SIDECAR_GRPC=aio asks for it.

Methods are registered as stream-unary: the same on the wire, but the message is read only when the handler asks, so pending
calls hold no memory. Reads are few at a time; one that is slow while others wait is given up (UNAVAILABLE + RetryInfo).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from collector.component import Hold
from collector.errors import Malformed, Refused
from collector.receivers.otlp import reads
from collector.receivers.otlp.face import Handler, Reply
from collector.receivers.otlp.reads import PER_BYTE

_EOF: object = vars(grpc.aio)["EOF"]
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class Reads:
    """At most `slots` messages are read at once, because their size is unknown before."""

    def __init__(self, slots: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self._running: dict[asyncio.Timeout, float] = {}
        self.waiting = 0

    @property
    def running(self) -> int:
        """Messages that are being read."""
        return len(self._running)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Raises Refused when the message does not arrive in time."""
        now = asyncio.get_running_loop().time
        if self._free.locked():
            for limit, started in self._running.items():
                if not limit.expired():  # one that has fired, but whose task has not run yet, cannot be moved
                    limit.reschedule(max(now(), started + reads.CONTENDED))
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        try:
            async with asyncio.timeout(reads.CONTENDED if self.waiting else reads.LONGEST) as limit:
                self._running[limit] = now()
                try:
                    yield
                finally:
                    del self._running[limit]
        except TimeoutError:
            raise Refused("the message did not arrive in time", after=1, reason="slow") from None
        finally:
            self._free.release()


class AioCall:
    """One call with the face of `calls.Call`."""

    def __init__(self, context: Any, reads: Reads) -> None:
        self._context, self._reads = context, reads

    @property
    def metadata(self) -> Any:
        """What the client sent before the message."""
        return self._context.invocation_metadata() or ()

    def here(self) -> None:
        """It is not read yet."""

    async def body(self, hold: Hold) -> bytes:
        """The one message, reserved in `hold`. Raises Refused or Malformed."""
        async with self._reads.slot():
            data: Any = await self._context.read()
            if data is not _EOF:
                hold.grow(int(len(data) * PER_BYTE))
                if await self._context.read() is not _EOF:
                    raise Malformed("the call has more than one message")
                return bytes(data)
        await asyncio.sleep(reads.TELLS)  # cancelled here when the client left, which looks the same as no message
        raise Malformed("the call has no message")

    async def write(self, message: bytes) -> None:
        """Send one message of a stream of answers."""
        await self._context.write(message)


class AioCalls:
    """A server with the face of `calls.Calls`."""

    def __init__(
        self,
        options: Sequence[tuple[str, int]],
        handlers: Mapping[str, Handler],
        streams: Mapping[str, Handler],
        reads: Reads,
    ) -> None:
        self.reads = reads
        self._server: Any = grpc.aio.server(options=options)
        for names, make in (
            (handlers, grpc.stream_unary_rpc_method_handler),
            (streams, grpc.stream_stream_rpc_method_handler),
        ):
            for name, handler in names.items():
                _, service, method = name.split("/")
                one = {method: make(self._method(handler))}
                self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, one),))

    def add_port(self, address: str, credentials: Any = None) -> int:
        """Listen there; returns the port. Raises RuntimeError."""
        if credentials is None:
            return int(self._server.add_insecure_port(address))
        return int(self._server.add_secure_port(address, credentials))

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no more calls, let the present ones end within `grace` seconds, then cut them off."""
        await self._server.stop(grace)

    def _method(self, handler: Handler) -> Any:
        async def serve(_: object, context: Any) -> bytes | None:
            reply = handler(AioCall(context, self.reads))
            if not isinstance(reply, Reply):
                reply = await reply
            if reply.code:
                await context.abort(_STATUS[reply.code], reply.text, reply.trailing)
            return reply.message

        return serve
