"""One destination: its own queue, retry and in-flight sends, so that nothing of it can block another one.

A little longer than most files: the life of one record, from `put` to the books, is read in one place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from collector.component import Exporter
from collector.errors import Oversized, Permanent, Refused, Retryable, SendError, SidecarError, Undeliverable
from collector.fields import Push, Queue, QueueBatch
from collector.meters import Meters
from collector.model import Payload, Signal
from collector.pipeline.ledger import Ledger
from collector.pipeline.outage import Outage
from collector.pipeline.queue import Outcome, Record, RecordQueue
from collector.pipeline.retry import LONGEST_DELAY, Pause, Pulse, backoff
from collector.pipeline.split import cut, halve

_FULL = "sending queue is full"
_LAST_MOMENT = 1.0  # seconds that cancelled sends get to end
_AT_ONCE = Push(sending_queue=Queue(num_consumers=1, batch=QueueBatch(flush_timeout=0.0, min_size=0)))


class Destination:
    """Takes payloads for one exporter and books each item by outcome.

    `clock` gives monotonic seconds; `share` is the queue's room in bytes where the user named none.
    """

    def __init__(
        self,
        name: str,
        exporter: Exporter,
        ledger: Ledger,
        meters: Meters,
        log: logging.Logger,
        *,
        share: int,
        clock: Callable[[], float],
    ) -> None:
        self.name, self.exporter, self.log = name, exporter, log
        self._ledger, self._clock = ledger, clock
        settings = exporter.config if isinstance(exporter.config, Push) else _AT_ONCE
        self.settings, self.retry, self.timeout = settings.sending_queue, settings.retry_on_failure, settings.timeout
        self.waits = self.settings.wait_for_result or not self.settings.enabled
        """True when the client is answered only after this destination has decided."""
        self.queue = RecordQueue(self.settings, self.settings.max_bytes or share, exporter.largest)
        self._flying: dict[asyncio.Task[None], Record] = {}
        self._pulse, self._pause = Pulse(clock()), Pause(self.retry.max_interval)
        self._outage = Outage(name, log)
        self._wake = asyncio.Event()
        self._space = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._flushing = self._stopped = False
        self._successor: Destination | None = None
        self.last_error = ""
        labels = ("exporter", "data_type")
        self._size = meters.gauge("otelcol_exporter_queue_size", "Fill level of the queue, in units of its sizer.", labels, cap=0)
        self._capacity = meters.gauge("otelcol_exporter_queue_capacity", "Room of the queue, in the same units.", labels, cap=0)
        self._in_flight = meters.gauge("otelcol_exporter_in_flight_requests", "Sends under way.", ("exporter",), cap=0)
        self._queued = meters.gauge("collector_queued_items", "Items waiting or in flight.", ("signal", "exporter"), cap=0)

    @property
    def answers_at_once(self) -> bool:
        """True when `put` returns nothing to await."""
        return not self.waits and self._successor is None

    def refresh(self, signal: Signal, held: int) -> None:
        """Bring the gauges up to date before they are read; `held`: items on their way here inside processors."""
        self._capacity.set(self.settings.queue_size, self.name, signal.value)
        self._size.set(self.queue.used(), self.name, signal.value)
        self._in_flight.set(len(self._flying), self.name)
        self._queued.set(self.queue.items[signal] + held, signal.value, self.name)

    async def space(self, timeout: float) -> None:
        """Wait until something has left the queue. Raises Refused after `timeout` seconds."""
        self._space.clear()
        if not await self._woken(self._space, timeout):
            raise Refused(_FULL, after=1, reason="queue_full")

    @staticmethod
    async def _woken(event: asyncio.Event, timeout: float | None) -> bool:
        # Not asyncio.wait_for: before Python 3.12 it may swallow a cancellation that meets the event.
        try:
            async with asyncio.timeout(timeout):
                return await event.wait()
        except TimeoutError:
            return False

    def accepts(self, size: int) -> bool:
        """True when it takes `size` bytes more, or gives up something of its own for them."""
        return self.settings.on_full in ("drop_oldest", "drop_newest") or self.queue.room(size)

    def put(self, payload: Payload, *, give_up: bool = True) -> Outcome | None:
        """Take a payload that is booked as accepted; a full queue gives up by `on_full`.

        Without `give_up` an `auto` queue takes more than its room rather than lose what was acknowledged: the request was
        admitted, and room went to another one meanwhile. Returns what to await when this destination `waits`.
        """
        if self._successor is not None:
            return self._successor.put(payload, give_up=give_up)
        if self._stopped:
            return self._turned_away(payload, "shutdown")
        mode = self.settings.on_full
        if not self.queue.room(len(payload.data)) and mode != "backpressure" and (give_up or mode != "auto"):
            if mode == "drop_newest":
                return self._turned_away(payload, "queue_full")
            self._make_room(len(payload.data))
        largest = self.queue.largest
        parts = (payload,) if len(payload.data) <= largest else tuple(cut(payload, largest))
        outcome = Outcome(len(parts)) if self.waits else None
        for part in parts:
            if self.queue.add(Record(part, outcomes=[outcome] if outcome else [])):
                self._wake.set()
        return outcome

    def _turned_away(self, payload: Payload, reason: str) -> Outcome | None:
        self._ledger.dropped(payload.signal, self.name, reason, payload.items)
        if not self.waits:
            return None
        outcome = Outcome(1)
        outcome.settle(Refused(_FULL if reason == "queue_full" else "shutting down", after=1, reason=reason))
        return outcome

    def _make_room(self, size: int) -> None:
        while not self.queue.room(size):
            record = self.queue.pop_oldest()
            if record is None:
                return
            self._finish(record, "queue_full", Refused(_FULL, after=1, reason="queue_full"))
            self._space.set()

    def start(self) -> None:
        """Begin to send."""
        self._stopped = False
        if self._runner is None:
            self._runner = asyncio.get_running_loop().create_task(self._run(), name=f"queue of {self.name}")

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            delay = self._dispatch(self._clock())
            await self._woken(self._wake, delay)

    def _dispatch(self, now: float) -> float | None:
        """Start every send that is due; returns the seconds until the next look, None = until woken."""
        while True:
            slots = 1 if self._pause.on or self._pulse.down(now) else self.settings.num_consumers
            if len(self._flying) >= slots:
                return None  # a finished send wakes the loop
            if self._pulse.not_before > now:
                return self._pulse.not_before - now
            record, wait = self.queue.next(now, flush=self._flushing, turn=self._pause.turn(now))
            if record is None:
                return min((one for one in (wait, self._pause.wait(now)) if one is not None), default=None)
            if record.abandoned:
                self._finish(record, "withdrawn", None)
                self._space.set()
                continue
            if len(record.payload.data) > self.queue.largest and self._parted(record, cut(record.payload, self.queue.largest)):
                continue  # it was handed over by an exporter that takes more in one
            record.first_try = record.first_try or now
            self._pause.tried(now)
            task = asyncio.get_running_loop().create_task(self._attempt(record))
            self._flying[task] = record
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self._flying[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("booking failed", extra={"exporter": self.name, "error": type(error).__name__})
        self._changed()

    def _changed(self) -> None:
        self._wake.set()
        self._space.set()

    async def _attempt(self, record: Record) -> None:
        try:
            async with asyncio.timeout(self.timeout or None):
                rejected, filtered = _left_out(await self.exporter.send(record.payload), record.payload.items)
        except Exception as error:
            self._failed(record, error, self._clock())
            return
        if self._pulse.down(now := self._clock()):
            self.queue.hasten(now + self.retry.initial_interval)
        self._pulse.succeeded(now)
        self._pause.succeeded(record.payload.signal)
        self.last_error = ""
        self._outage.over(sum(self.queue.items.values()) - record.payload.items)
        self._finish(record, "partial_rejected", None, rejected=rejected, filtered=filtered)

    def _failed(self, record: Record, error: Exception, now: float) -> None:
        if record.decided:
            return
        self.last_error = str(error) if isinstance(error, SendError) else type(error).__name__
        if isinstance(error, Retryable | TimeoutError):
            self._again(record, getattr(error, "after", None), now)
        elif not isinstance(error, Oversized) or not self._parted(record, halve(record.payload)):
            self._refused(record, error, now)

    def _parted(self, record: Record, parts: list[Payload]) -> bool:
        """Let its parts wait in its place, unless there is only one."""
        if len(parts) == 1:
            return False
        self.queue.leave(record)
        for outcome in record.outcomes:
            outcome.expect(len(parts) - 1)
        for part in reversed(parts):
            self.queue.add(Record(part, outcomes=record.outcomes, alone=True), front=True)
        return True

    def _refused(self, record: Record, error: Exception, now: float) -> None:
        fix = error.fix if isinstance(error, Permanent) else ""
        known = logging.INFO if fix and self._pause.on else logging.WARNING  # a pause was told once, with what to do
        self.log.log(
            known if isinstance(error, Permanent | Oversized) else logging.ERROR,
            "not retryable error: items dropped",
            extra={"exporter": self.name, "error": self.last_error, "dropped_items": record.payload.items},
        )
        reason = "too_large" if isinstance(error, Oversized) else "rejected"
        self._finish(record, reason, Undeliverable(f"{self.name}: {self.last_error}"))
        if not fix:
            self._pause.interrupted()
        elif not self.waits and self._pause.refused(record.payload.signal, now):  # a client that waits has been told
            queued = sum(self.queue.items.values())
            self._outage.paused(now, self.last_error, fix, queued, self.retry.max_interval)

    def _again(self, record: Record, asked: float | None, now: float) -> None:
        hold, wait = min(max(asked or 0.0, 0.0), LONGEST_DELAY), backoff(self.retry, record.attempts)
        wait = max(wait, hold)
        self._pulse.failed(now, wait, hold if self.retry.enabled else 0.0)  # else its client is told, and waits itself
        record.attempts += 1
        limit = self.retry.max_elapsed_time
        if not self.retry.enabled or (limit and now + wait - record.first_try > limit):
            self.log.warning("no more retries left", extra={"exporter": self.name, "dropped_items": record.payload.items})
            reason = "withdrawn" if record.outcomes else "retry_exhausted"
            self._finish(record, reason, Refused(f"{self.name}: {self.last_error}", after=wait, reason="destination"))
        else:
            self._outage.failing(now, self.last_error, sum(self.queue.items.values()), wait)
            self.queue.delay(record, now + wait)

    def _finish(
        self, record: Record, reason: str, error: SidecarError | None, *, rejected: int | None = None, filtered: int = 0
    ) -> None:
        if record.decided:
            return
        record.decided = True
        payload = record.payload
        lost = payload.items if rejected is None else rejected
        self.queue.leave(record)
        self._ledger.delivered(payload.signal, self.name, payload.items - lost - filtered)
        self._ledger.dropped(payload.signal, self.name, "filtered", filtered)
        self._ledger.dropped(payload.signal, self.name, reason, lost)
        for outcome in record.outcomes:
            outcome.settle(error)

    def flush(self) -> None:
        """From now on send without waiting to fill batches."""
        self._flushing = True
        self._wake.set()

    async def drain(self, timeout: float) -> None:
        """Send what is left without waiting to fill batches, for at most `timeout` seconds."""
        deadline = self._clock() + timeout
        self.start()
        while self.queue.records and (left := deadline - self._clock()) > 0:
            self.flush()
            self._space.clear()
            await self._woken(self._space, left)

    async def hand_over(self, successor: Destination, timeout: float) -> None:
        """Give what waits to the destination that replaces this one; sends under way get `timeout` seconds to end."""
        if self._runner is not None:
            self._runner.cancel()
            self._runner = None
        self._successor = successor
        self._give_waiting(successor)
        if self._flying:
            await asyncio.wait(list(self._flying), timeout=timeout)
        flying = dict(self._flying)
        for task in flying:
            task.cancel()
        if flying:
            await asyncio.wait(flying, timeout=_LAST_MOMENT)
        for task, record in flying.items():
            if not record.decided and _undecided(task):
                self._give(record, successor)
        self._give_waiting(successor)
        await self.stop()

    def _give_waiting(self, successor: Destination) -> None:
        while (record := self.queue.pop_oldest()) is not None:
            self._give(record, successor)
        self._changed()  # a client that waits for room here has it now

    def _give(self, record: Record, successor: Destination) -> None:
        self.queue.leave(record)
        record.decided = True
        successor._take_over(replace(record, decided=False))

    def _take_over(self, record: Record) -> None:
        if self._successor is not None:  # replaced in its turn while sends of the one before it were under way
            self._successor._take_over(record)
            return
        self.queue.add(record)
        if self._stopped:
            self._turn_out()
        self._changed()

    async def stop(self) -> None:
        """End all sends; what is still here, or comes later, is dropped, counted as `shutdown`."""
        self._stopped = True
        tasks = list(self._flying)
        if self._runner is not None:
            tasks.append(self._runner)
            self._runner = None
        flying = list(self._flying.items())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_MOMENT)
        if left := sum(self.queue.items.values()):
            extra = {"exporter": self.name, "dropped_items": left, "error": self.last_error}
            self.log.warning("ends before all was delivered: items dropped", extra=extra)
        for task, record in flying:
            if _undecided(task):
                self._finish(record, "shutdown", _gone())
        self._turn_out()
        self._changed()
        self._flushing = False

    def _turn_out(self) -> None:
        while (waiting := self.queue.pop_oldest()) is not None:
            self._finish(waiting, "shutdown", _gone())

    def status(self) -> dict[str, object]:
        """Queue fill, bytes, sends in flight and the last error, for /status; `paused`: its token or address is wrong."""
        return {
            "queued": {signal.value: count for signal, count in self.queue.items.items() if count},
            "bytes": self.queue.bytes,
            "max_bytes": self.queue.max_bytes,
            "in_flight": len(self._flying),
            "down": self._pause.on or self._pulse.down(self._clock()),
            "paused": self._pause.on,
            "last_error": self.last_error[:256],
        }


def _undecided(task: asyncio.Task[None]) -> bool:
    """Whether a send was cancelled, or does not let itself be; else it has been booked, or its data waits in the queue again."""
    return not task.done() or task.cancelled()


def _gone() -> Refused:
    return Refused("shutting down", after=1, reason="shutdown")


def _left_out(answer: int | tuple[int, int] | None, items: int) -> tuple[int, int]:
    """Rejected and filtered items of one send, together at most all."""
    rejected, filtered = answer if isinstance(answer, tuple) else (int(answer or 0), 0)
    filtered = min(max(filtered, 0), items)
    return min(max(rejected, 0), items - filtered), filtered
