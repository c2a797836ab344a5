"""gRPC calls straight from the library's completion queue: half the CPU of grpc.aio for a small request (docs/decisions/0008).

A little longer than most files: the life of one call is read in one place. The library's own `grpc.server` works with the same
queue, but needs a thread for every call that waits. Here one thread takes what the library reports, and the event loop answers:
one wake-up of the loop a request, or of many at once. Rules:
1. The thread begins reads; handlers run in the loop, and only the loop answers. Whoever frees room begins the next reads.
2. A message is read only when there is room for one of the largest size: calls that wait hold no memory (`Reads`).
3. Every operation that was begun reports once, also when its call is over; the queue closes when all have.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from collector.component import Hold
from collector.errors import Malformed, Refused
from collector.receivers.otlp.face import Handler, Reply
from collector.receivers.otlp.reads import PER_BYTE, Reads


def _library() -> Any:
    try:
        return importlib.import_module("grpc._cython.cygrpc")
    except ImportError:  # another layout of the library: grpc.aio serves
        return None


core = _library()
_NEEDED = (
    "CompletionQueue",
    "ReceiveCloseOnServerOperation",
    "ReceiveMessageOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
    "Server",
)
USABLE = all(hasattr(core, name) for name in _NEEDED)
_AHEAD = 4  # calls asked for before they come, so that one burst needs no second look
_LOOK = 0.1  # seconds between two looks at reads that are slow
_UNKNOWN, _FAILED = Reply(None, 12, "Method not found!"), Reply(None, 13, "internal error")
_LAST_MOMENT = 5.0


class Call:
    """One call. `body` gives its message, `write` sends one of several answers; metadata as the library tells it."""

    __slots__ = ("_core", "_gone", "_seen", "_server", "body_bytes", "handler", "metadata", "over", "task", "trouble")

    def __init__(self, server: Calls, event: Any, handler: Handler) -> None:
        self._server, self._core, self.metadata, self.handler = server, event.call, event.invocation_metadata, handler
        self.body_bytes = b""
        self.trouble: Exception | None = None
        self.task: asyncio.Task[None] | None = None
        self.over = self._seen = self._gone = False

    def here(self) -> bytes | None:
        """The one message, when nothing is wrong with the call; it still counts against the limits."""
        return self.body_bytes if self.trouble is None else None

    async def body(self, hold: Hold) -> bytes:
        """The one message, reserved in `hold`. Raises Refused or Malformed."""
        data = self.body_bytes
        try:
            if self.trouble is not None:
                raise self.trouble
            hold.grow(int(len(data) * PER_BYTE))
        finally:
            self.let_go()
        return data

    def let_go(self) -> None:
        """The message was taken, or nobody wants it: others may be read."""
        if not self._gone:
            self._gone = True
            size, self.body_bytes = len(self.body_bytes), b""
            self._server.begin(self._server.reads.taken(size))

    async def write(self, message: bytes) -> None:
        """Send one message of a stream of answers."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()
        operations = [core.SendMessageOperation(message, 0)]
        if not self._seen:
            self._seen = True
            operations.insert(0, core.SendInitialMetadataOperation((), 0))
        self._core.start_server_batch(tuple(operations), lambda _: loop.call_soon_threadsafe(sent.set))
        await sent.wait()

    def end(self, reply: Reply) -> None:
        """Send the last answer, if any, and the status."""
        if self.over or self._server.closed:
            return
        self.over = True
        operations = [] if self._seen else [core.SendInitialMetadataOperation((), 0)]
        if reply.message is not None:
            operations.append(core.SendMessageOperation(reply.message, 0))
        operations.append(core.SendStatusFromServerOperation(reply.trailing, reply.code, reply.text, 0))
        self._core.start_server_batch(tuple(operations), _nothing)

    def watch(self) -> None:
        """From now on the client's leaving cancels the handler."""
        self._core.start_server_batch((core.ReceiveCloseOnServerOperation(0),), self._left)

    def _left(self, event: Any) -> None:
        if event.batch_operations[0].cancelled() and self.task is not None:
            self._server.in_loop(self.task.cancel)

    def read(self) -> None:
        """Ask for the message."""
        if not self._server.over:
            self._core.start_server_batch((core.ReceiveMessageOperation(0),), self._first)

    def _first(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        if message is None:
            self._has(Malformed("the call has no message"))
        elif not self._server.over:
            self.body_bytes = message
            self._core.start_server_batch((core.ReceiveMessageOperation(0),), self._second)

    def _second(self, event: Any) -> None:
        more = event.batch_operations[0].message() is not None
        self._has(Malformed("the call has more than one message") if more else None)

    def _has(self, trouble: Exception | None) -> None:
        if self._server.reads.arrived(self, len(self.body_bytes)):
            self.trouble = trouble
            self._server.hand_over(self)
            self._server.begin(self._server.reads.more())

    def gave_up(self) -> None:
        """Its message did not arrive in time."""
        self.body_bytes = b""
        self.trouble = Refused("the message did not arrive in time", after=1, reason="slow")
        self._server.hand_over(self)


def _nothing(_: object) -> None: ...


class Calls:
    """A gRPC server for raw bytes; `handlers` by the full name of the method end their calls themselves."""

    def __init__(
        self, options: Sequence[tuple[str, int]], handlers: Mapping[str, Handler], reads: Reads[Call], log: logging.Logger
    ) -> None:
        self.reads = reads
        self.over = self.closed = False  # no call is left; the queue is closed
        self._log = log
        self._handlers = {name.encode(): handler for name, handler in handlers.items()}
        self._queue = core.CompletionQueue()
        self._core = core.Server(tuple(options), False)
        self._core.register_completion_queue(self._queue)
        self._arrived: deque[Call] = deque()
        self._calls: dict[Call, None] = {}
        self._woken = self._leaving = self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def add_port(self, address: str, credentials: Any = None) -> int:
        """Listen there; returns the port. Raises RuntimeError."""
        more = () if credentials is None else (credentials._credentials,)
        port = int(self._core.add_http2_port(address.encode(), *more))
        if not port:
            raise RuntimeError("the library cannot listen there")
        return port

    async def start(self) -> None:
        """Take calls."""
        self._loop = asyncio.get_running_loop()
        self._emptied, self._ended = asyncio.Event(), asyncio.Event()
        self._core.start()
        for _ in range(_AHEAD):
            self._request()
        threading.Thread(target=self._serve, name="grpc calls", daemon=True).start()

    async def stop(self, grace: float) -> None:
        """Take no more calls, let the present ones end within `grace` seconds, then cut them off."""
        if self._loop is None or self._stopping:
            return
        self._stopping = self._leaving = True
        self._core.shutdown(self._queue, self._shut)
        if not await _within(self._emptied, grace):
            self._core.cancel_all_calls()
            if not await _within(self._emptied, _LAST_MOMENT):
                return  # the library does not let go of a call: closing what it still uses would end the process
        tasks = [call.task for call in self._calls if call.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_MOMENT)
        self.closed = True
        self._queue.shutdown()
        await _within(self._ended, _LAST_MOMENT)
        self._core.destroy()

    def _request(self) -> None:
        if not self._leaving:
            self._core.request_call(self._queue, self._queue, self._called)

    def _serve(self) -> None:
        while True:
            until = time.time() + _LOOK if self.reads.busy and not self.closed else None
            event = self._queue.poll(until)
            if event.tag is not None:
                try:
                    event.tag(event)
                except Exception as error:  # one call must not end all
                    self._log.error("a gRPC call failed", extra={"error": type(error).__name__})
            elif until is None:  # only a queue that is closed and empty reports nothing
                break
            event = None  # or the call would live until the next event
            if self.reads.busy:
                for call in self.reads.expired():
                    call.gave_up()
        self.in_loop(self._ended.set)

    def _called(self, event: Any) -> None:
        if not event.success:
            return
        try:
            self._request()
        except ValueError:  # it is being shut down at this moment
            self._leaving = True
        handler = self._handlers.get(event.call_details.method)
        if handler is None:
            self.in_loop(Call(self, event, _unknown).end, _UNKNOWN)
        else:
            self.begin(self.reads.enter(Call(self, event, handler)))

    def begin(self, calls: Sequence[Call]) -> None:
        """Read the messages of calls that there is room for."""
        for call in calls:
            if not self.closed:
                call.read()

    def _shut(self, _: object) -> None:
        self.over = True  # told by the thread that begins reads: it begins none on a queue that the loop is about to close
        self.in_loop(self._emptied.set)

    def in_loop(self, step: Callable[..., object], *arguments: Any) -> None:
        """Let the loop do something."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(step, *arguments)
        except RuntimeError:  # the loop was closed before this server
            self._leaving = True

    def hand_over(self, call: Call) -> None:
        """Give a call with its message to the loop, which takes all that came since it looked last."""
        self._arrived.append(call)
        if not self._woken:
            self._woken = True
            self.in_loop(self._take)

    def _take(self) -> None:
        assert self._loop is not None
        self._woken = False
        calls = []
        while self._arrived:
            call = self._arrived.popleft()
            reply = self._replied(call)
            if isinstance(reply, Reply):
                call.let_go()
                call.end(reply)
            else:
                self._calls[call] = None
                call.task = self._loop.create_task(self._run(call, reply))
                calls.append(call)
        if calls:
            self._loop.call_soon(self._look_after, calls)

    def _replied(self, call: Call) -> Reply | Awaitable[Reply]:
        try:
            return call.handler(call)
        except Exception as error:  # or the calls behind it would not be handled
            return self._failed(error)

    def _failed(self, error: Exception) -> Reply:
        self._log.error("a gRPC call failed", extra={"error": type(error).__name__})
        return _FAILED

    async def _run(self, call: Call, reply: Awaitable[Reply]) -> None:
        try:
            call.end(await reply)
        except Exception as error:
            call.end(self._failed(error))
        finally:
            call.let_go()
            del self._calls[call]

    def _look_after(self, calls: Sequence[Call]) -> None:
        """What was not answered at once waits for something; its client may leave meanwhile."""
        for call in calls:
            if not call.over and not self.closed:
                call.watch()


def _unknown(_: object) -> Reply:
    return _UNKNOWN


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
