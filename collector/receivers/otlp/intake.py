"""What both protocols do with a body: open it, hand it to the pipelines, count, and find the answer to an error."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from typing import TypeVar

from collector.component import Accept, Hold, Settings
from collector.errors import Refused, Rejected
from collector.model import Signal
from collector.otlp.answers import Failure, failure
from collector.otlp.identity import with_service
from collector.otlp.mapping import FREE, LIMITS, Reader
from collector.otlp.plain import open_plain
from collector.otlp.request import Opened, open_slices
from collector.otlp.transcode import transcode_small
from collector.turns import begin, turn

LOG_EVERY = 10.0
_T = TypeVar("_T")
Metadata = Mapping[str, tuple[str, ...]]


class NoPipeline(Rejected):
    """The signal is not configured."""

    grpc_code = "UNIMPLEMENTED"
    http_status = 404


class Intake:
    """Where the requests of one transport (`grpc`, `http`) go."""

    def __init__(self, settings: Settings, transport: str, accept: Mapping[Signal, Accept]) -> None:
        self._settings, self._accept = settings, accept
        self._labels = (settings.id, transport)
        meters = settings.meters
        names = ("receiver", "transport")
        self._counters = {
            (state, signal): meters.counter(f"otelcol_receiver_{state}_{signal.noun}", f"{text} {signal.noun}.", names, cap=0)
            for state, text in (("accepted", "Accepted"), ("refused", "Refused"), ("failed", "Failed, by an error inside,"))
            for signal in Signal
        }
        for signal in accept:
            self._counters["accepted", signal].touch(*self._labels)
            self._counters["refused", signal].touch(*self._labels)
        self._requests = meters.counter(
            "collector_receiver_requests", "Requests by answer.", ("receiver", "transport", "code"), cap=0
        )
        self._unnamed = meters.counter(
            "collector_receiver_unknown_service",
            "Accepted items without a service name; they go on as unknown_service.",
            (*names, "otel_signal"),
            cap=0,
        )
        self._nonstandard = meters.counter(
            "collector_nonstandard_json", "JSON that the letter of the OTLP specification forbids.", ("kind",), cap=0
        )
        self._logged: dict[str, float] = {}

    def require(self, signal: Signal) -> Accept:
        """The pipelines of a signal. Raises NoPipeline."""
        accept = self._accept.get(signal)
        if accept is None:
            raise NoPipeline(f"no {signal} pipeline is configured")
        return accept

    async def take_json(self, signal: Signal, text: bytes, hold: Hold, metadata: Metadata | None, *, strict: bool) -> Opened:
        """The same as `take` for a JSON request."""
        begin()
        reader = Reader(signal, text, strict=strict, reserve=hold.grow)
        for _ in reader.slices():
            await turn()
        for kind, count in reader.nonstandard.items():
            self._nonstandard.add(count, kind)
        return await self.take(signal, reader.encoded, hold, metadata)

    async def take(self, signal: Signal, body: bytes, hold: Hold, metadata: Metadata | None) -> Opened:
        """Check one encoded request and wait until the pipelines have it. Raises Refused, Rejected or what is a bug."""
        accept = self.require(signal)
        begin()
        opened = await _paced(open_slices(signal, body, hold.grow))
        batch, unnamed = with_service(opened.batch)
        count = batch.count()
        if opened.rejected:
            self._counters["refused", signal].add(opened.rejected, *self._labels)
        if count:
            batch.metadata = metadata
            try:
                await accept(batch)
            except Exception as error:
                self._not_taken(signal, count, error)
                raise
            self._taken(signal, count, unnamed)
        return opened

    def take_json_at_once(self, signal: Signal, text: bytes, hold: Hold, metadata: Metadata | None) -> bool:
        """`take_at_once` for a JSON request that is plain."""
        if not self._ready(signal, len(text)) or (body := transcode_small(signal, text, LIMITS, hold.grow)) is None:
            return False
        return self.take_at_once(signal, body, metadata)

    def _ready(self, signal: Signal, size: int) -> bool:
        return size <= FREE and self.require(signal).ready(size, 1)

    def take_at_once(self, signal: Signal, body: bytes, metadata: Metadata | None) -> bool:
        """The same for a plain request that nobody has to wait for; False when it is none, and nothing was done."""
        if not self._ready(signal, len(body)) or (plain := open_plain(signal, body)) is None:
            return False
        accept = self._accept[signal]
        batch, unnamed = with_service(plain)
        count = batch.count()
        if not count:
            return True
        if count > 1 and not accept.ready(len(body), count):
            return False
        batch.metadata = metadata
        try:
            accept.at_once(batch, count)
        except Exception as error:
            self._not_taken(signal, count, error)
            raise
        self._taken(signal, count, unnamed)
        return True

    def _taken(self, signal: Signal, count: int, unnamed: int) -> None:
        if unnamed:
            self._unnamed.add(unnamed, *self._labels, signal.value)
        self._counters["accepted", signal].add(count, *self._labels)

    def _not_taken(self, signal: Signal, count: int, error: Exception) -> None:
        state = "refused" if isinstance(error, Refused | Rejected) else "failed"
        self._counters[state, signal].add(count, *self._labels)

    def answered(self, code: str) -> None:
        """Count one request by the gRPC name of its answer."""
        self._requests.add(1, *self._labels, code)

    def failed(self, error: Exception) -> Failure:
        """The answer to an error; a bug of ours is logged, at most every ten seconds, by type and place only."""
        answer = failure(error)
        if not isinstance(error, Refused | Rejected):
            self._log_bug(error)
        self.answered(answer.code)
        return answer

    def _log_bug(self, error: Exception) -> None:
        kind, now = type(error).__name__, time.monotonic()
        if now - self._logged.get(kind, -LOG_EVERY) >= LOG_EVERY:
            self._logged[kind] = now
            self._settings.log.error("a request failed inside the sidecar: %s at %s", kind, " < ".join(_places(error)))


def _places(error: BaseException) -> Iterator[str]:
    """Where it happened, innermost last; never the error's text, which may hold payload."""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        yield f"{code.co_qualname}:{trace.tb_lineno}"
        trace = trace.tb_next


async def _paced(steps: Generator[None, None, _T]) -> _T:
    """Run a generator to its end, in turns with all other large requests."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: _T = done.value
            return result
        await turn()
