"""gRPC calls straight from the library's completion queue: half the CPU of grpc.aio for a small request (docs/decisions/0008).

A little longer than most files: the life of one call is read in one place. The library's own `grpc.server` works with the same
queue, but needs a thread for every call that waits. Here one thread takes what the library reports, and the event loop answers:
one wake-up of the loop a request, or of many at once. Rules:
1. The thread begins reads; handlers run in the loop, and only the loop answers. Whoever frees room begins the next reads.
2. A message is read only when there is room for one of the largest size: calls that wait hold no memory (`Reads`).
3. Every operation that was begun reports once, also when its call is over; the queue closes when all have.
4. The library is asked whether the client left only while a call waits: most are answered before the question would be.
5. The library holds the interpreter's lock while it copies a message, 10-60 ms for 64 MiB: between two such the loop goes round.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from collector.component import Hold
from collector.errors import Malformed, Refused
from collector.receivers.otlp.face import Handler, Reply
from collector.receivers.otlp.reads import PER_BYTE, TELLS, Reads


def _library() -> Any:
    try:
        return importlib.import_module("grpc._cython.cygrpc")
    except ImportError:  # another layout of the library: grpc.aio serves
        return None


core = _library()
_NEEDED = {
    "Call": ("start_server_batch",),
    "CompletionQueue": ("poll", "shutdown"),
    "Server": ("add_http2_port", "cancel_all_calls", "destroy", "register_completion_queue", "request_call", "shutdown", "start"),
}


def usable(library: Any) -> bool:
    """Whether the library has what is used of it here, and operations are made as they are made here."""
    try:
        library.ReceiveMessageOperation(0).message()
        library.ReceiveCloseOnServerOperation(0).cancelled()
        library.SendInitialMetadataOperation((), 0)
        library.SendMessageOperation(b"", 0)
        library.SendStatusFromServerOperation((), 0, "", 0)
    except (AttributeError, TypeError):
        return False
    return all(hasattr(getattr(library, cls, None), name) for cls, names in _NEEDED.items() for name in names)


USABLE = usable(core)
_AHEAD = 4  # calls asked for before they come, so that one burst needs no second look
_LOOK = 0.1  # seconds between two looks at reads that are slow
_UNKNOWN, _FAILED = Reply(None, 12, "Method not found!"), Reply(None, 13, "internal error")
_LAST_MOMENT = 5.0
_LARGE = 4 << 20  # bytes of a message that is copied for a millisecond or more
_ROUND, _CALL = 512 << 10, 8 << 10  # bytes handled in one round of the loop, and what a call counts beside its own


class Call:
    """One call. `body` gives its message, `write` sends one of several answers; metadata as the library tells it."""

    __slots__ = (
        "_core", "_gone", "_seen", "_server", "_silent", "_watched",
        "body_bytes", "handler", "left", "metadata", "over", "task", "trouble",
    )  # fmt: skip

    def __init__(self, server: Calls, event: Any, handler: Handler) -> None:
        self._server, self._core, self.metadata, self.handler = server, event.call, event.invocation_metadata, handler
        self.body_bytes = b""
        self.trouble: Callable[[], BaseException] | None = None  # an error kept here would keep the call, by its traceback
        self.task: asyncio.Task[None] | None = None
        self.over = self.left = self._seen = self._gone = self._silent = self._watched = False

    def here(self) -> bytes | None:
        """The one message, when nothing is wrong with the call; it still counts against the limits."""
        return self.body_bytes if self.trouble is None else None

    async def body(self, hold: Hold) -> bytes:
        """The one message, reserved in `hold`. Raises Refused or Malformed."""
        data = self.body_bytes
        try:
            if self.trouble is None:
                hold.grow(int(len(data) * PER_BYTE))
        finally:
            self.let_go()
        if self._silent:
            await asyncio.sleep(TELLS)  # cancelled here when the client left: to `_first` that looks the same as no message
        if self.trouble is not None:
            raise self.trouble()
        return data

    def let_go(self) -> None:
        """The message was taken, or nobody wants it: others may be read."""
        if not self._gone:
            self._gone = True
            size, self.body_bytes = len(self.body_bytes), b""
            self._server.begin(self._server.reads.taken(size))

    async def write(self, message: bytes) -> None:
        """Send one message of a stream of answers."""
        if self._server.closed:
            raise asyncio.CancelledError
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
        operations = [] if self._seen else [core.SendInitialMetadataOperation((), 0)]
        if reply.message is not None:
            operations.append(core.SendMessageOperation(reply.message, 0))
        operations.append(core.SendStatusFromServerOperation(reply.trailing, reply.code, reply.text, 0))
        self._core.start_server_batch(tuple(operations), _nothing)
        self.over = True  # not before: what cannot be sent must leave room for another answer

    def watch(self) -> None:
        """From now on the client's leaving cancels the handler, and a call that is not read yet need not be read."""
        if not self._watched and not self._server.over:
            self._watched = True
            self._core.start_server_batch((core.ReceiveCloseOnServerOperation(0),), self._left)

    def _left(self, event: Any) -> None:
        if not event.batch_operations[0].cancelled():
            return
        self.left = True  # before the task is looked for; the loop makes the task before it looks here
        if self.task is not None:
            self._server.in_loop(self.task.cancel)
        elif self._server.reads.leave(self):
            self.trouble = asyncio.CancelledError
            self._server.hand_over(self)

    def read(self) -> None:
        """Ask for the message."""
        if not self._server.over:
            self._core.start_server_batch((core.ReceiveMessageOperation(0),), self._first)

    def _first(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        if message is None:
            self._silent = bool(event.success)  # else the library refused the message, and has answered
            self._has(partial(Malformed, "the call has no message"))
        elif self.trouble is None and not self._server.over:  # one that was given up is not counted any more
            self.body_bytes = message
            self._core.start_server_batch((core.ReceiveMessageOperation(0),), self._second)
            if len(message) > _LARGE:
                self._server.let_loop_go_round()

    def _second(self, event: Any) -> None:
        more = event.batch_operations[0].message() is not None
        self._has(partial(Malformed, "the call has more than one message") if more else None)

    def _has(self, trouble: Callable[[], BaseException] | None) -> None:
        if self._server.reads.arrived(self, len(self.body_bytes)):
            self.trouble = trouble
            self._server.hand_over(self)
            self._server.begin(self._server.reads.more())

    def gave_up(self) -> None:
        """Its message did not arrive in time."""
        self.body_bytes = b""
        self.trouble = partial(Refused, "the message did not arrive in time", after=1, reason="slow")
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
        self._round = threading.Event()
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
            try:
                if not self._step():
                    break
            except Exception as error:  # one call must not end all; its place is free when its time is over
                self._failed(error)
        self.in_loop(self._ended.set)

    def _step(self) -> bool:
        # The loop begins reads of calls that wait, also while this thread sleeps: it must look after those too.
        until = time.time() + _LOOK if (self.reads.waiting or self.reads.busy) and not self.closed else None
        event = self._queue.poll(until)  # raises MemoryError when a message does not fit
        if event.tag is not None:
            event.tag(event)
        elif until is None:  # only a queue that is closed and empty reports nothing
            return False
        if self.reads.busy:
            for call in self.reads.expired():
                call.gave_up()
        return True

    def _called(self, event: Any) -> None:
        try:
            self._request()
        except ValueError:  # it is being shut down at this moment
            self._leaving = True
        if not event.success:
            return
        handler = self._handlers.get(event.call_details.method)
        if handler is None:
            self.in_loop(Call(self, event, _unknown).end, _UNKNOWN)
            return
        call = Call(self, event, handler)
        begun = self.reads.enter(call)
        self.begin(begun)
        if call not in begun:
            call.watch()

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

    def let_loop_go_round(self) -> None:
        """Wait, in the thread, until the loop has done what it is at."""
        self._round.clear()
        self.in_loop(self._round.set)
        self._round.wait(_LOOK)

    def hand_over(self, call: Call) -> None:
        """Give a call with its message to the loop, which takes all that came since it looked last."""
        self._arrived.append(call)
        if not self._woken:
            self._woken = True
            self.in_loop(self._take)

    def _take(self) -> None:
        assert self._loop is not None
        self._woken = False
        calls, left = [], _ROUND
        while self._arrived and left > 0:
            call = self._arrived.popleft()
            left -= len(call.body_bytes) + _CALL
            if self.over:  # nobody waits for an answer, and `stop` has looked for the last time at what still runs
                continue
            reply = self._replied(call)
            if isinstance(reply, Reply):
                call.let_go()
                self._end(call, reply)
            else:
                self._calls[call] = None
                call.task = self._loop.create_task(self._run(call, reply))
                calls.append(call)
        if self._arrived and not self._woken:  # a client may send as fast as it is answered: others come in between
            self._woken = True
            self._loop.call_soon(self._take)
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
            self._end(call, await reply)
        except Exception as error:
            call.end(self._failed(error))
        finally:
            call.let_go()
            del self._calls[call]

    def _end(self, call: Call, reply: Reply) -> None:
        try:
            call.end(reply)
        except Exception as error:  # the library cannot send this
            call.end(self._failed(error))

    def _look_after(self, calls: Sequence[Call]) -> None:
        """What was not answered at once waits for something; its client may leave meanwhile."""
        for call in calls:
            if call in self._calls and not self.closed:
                call.watch()
                if call.left and call.task is not None:
                    call.task.cancel()


def _unknown(_: object) -> Reply:
    return _UNKNOWN


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
