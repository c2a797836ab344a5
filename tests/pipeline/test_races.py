"""The pipeline under cancellation, refusal in odd places and requests that meet."""

import asyncio

import pytest

from collector.component import Exporter, Processor
from collector.errors import Permanent, Refused, Retryable, Undeliverable
from collector.fields import Push
from collector.model import Batch, Signal
from collector.pipeline.graph import SLICE, Intake
from tests.pipeline.parts import Books, Counting, Failing, Halving, Holding, Scripted, payload
from tests.support import batch, eventually, settings, span, traces

QUICK = {
    "retry_on_failure": {"initial_interval": "1ms", "max_interval": "2ms"},
    "sending_queue": {"batch": {"flush_timeout": "0"}},
}


def spans(count):
    return batch(traces(*(span() for _ in range(count))))


def large(slices):
    return batch(traces(*(span("x" * 10_000) for _ in range(SLICE * slices // 10_000))))


async def finish(books):
    for pipeline in books.pipelines:
        pipeline.drain()
    for destination in books.destinations:
        await destination.drain(5)
        await destination.stop()


class Limiting(Processor):
    """Refuses while `full`."""

    full = True

    def process(self, batch, now):
        if self.full:
            raise Refused("full", reason="memory")
        return batch


async def test_a_refusal_of_held_data_ends_no_tick_and_is_counted():
    books, out = Books(), Scripted(push=QUICK)
    pipeline = books.pipeline(books.destination(out), processors=(Holding, Limiting))
    await Intake([pipeline])(spans(3))
    pipeline.chain.processors[0].release = True
    pipeline.tick()
    assert books.terms() == {"accepted": 3, "dropped_processor_error": 3}
    pipeline.tick()
    await finish(books)


async def test_old_items_that_go_down_with_refused_ones_are_counted():
    class Releasing(Holding):
        def process(self, batch, now):
            if not self.batches:
                return super().process(batch, now)
            return batch.replace([*self.drain().groups, *batch.groups])

    books = Books()
    pipeline = books.pipeline(books.destination(Scripted(push=QUICK)), processors=(Releasing, Limiting))
    await Intake([pipeline])(spans(3))
    with pytest.raises(Refused):
        await Intake([pipeline])(spans(2))
    assert books.terms() == {"accepted": 3, "dropped_processor_error": 3}
    await finish(books)


async def test_what_cannot_be_encoded_is_dropped_counted_and_harms_no_other_request():
    class Garbling(Processor):
        def process(self, batch, now):
            batch.groups[0].header = b"\xff"
            return Batch(batch.signal, batch.groups)

    books, out = Books(), Scripted(push=QUICK)
    await Intake([books.pipeline(books.destination(out), processors=(Garbling,))])(spans(3))
    assert books.terms() == {"accepted": 3, "dropped_processor_error": 3}
    await finish(books)


@pytest.mark.parametrize("mode", ["backpressure", "auto"])
async def test_a_large_request_that_was_admitted_costs_no_acknowledged_data(mode):
    stuck = Scripted(
        push={"sending_queue": {"queue_size": 3, "num_consumers": 1, "on_full": mode, "batch": {"flush_timeout": "0"}}}
    )
    stuck.gate = asyncio.Event()
    books = Books()
    intake = Intake([books.pipeline(books.destination(stuck, share=64 << 20), processors=(Counting,))])
    big = large(5)
    await intake(spans(1))
    await intake(big)
    assert books.terms() == {"accepted": 1 + big.count(), "queued": 1 + big.count()}
    with pytest.raises(Refused):
        await intake(spans(1))
    stuck.gate.set()
    await finish(books)


@pytest.mark.parametrize("mode", ["backpressure", "auto"])
async def test_two_pipelines_into_one_exporter_cost_no_acknowledged_data(mode):
    stuck = Scripted(
        push={"sending_queue": {"queue_size": 2, "num_consumers": 1, "on_full": mode, "batch": {"flush_timeout": "0"}}}
    )
    stuck.gate = asyncio.Event()
    books = Books()
    destination = books.destination(stuck)
    intake = Intake([books.pipeline(destination), books.pipeline(destination)])
    books.pipelines.pop()
    await intake(spans(1))
    with pytest.raises(Refused):
        await intake(spans(1))
    assert books.terms() == {"accepted": 2, "queued": 2}
    stuck.gate.set()
    await finish(books)
    assert stuck.items == 2


async def test_many_clients_that_wait_for_room_lose_nothing_to_each_other():
    push = {"sending_queue": {"queue_size": 1, "num_consumers": 1, "block_on_overflow": True, "batch": {"flush_timeout": "0"}}}
    books, slow = Books(), Scripted(push=push)
    slow.gate = asyncio.Event()
    intake = Intake([books.pipeline(books.destination(slow))])
    waiting = [asyncio.create_task(intake(spans(1))) for _ in range(20)]
    await asyncio.sleep(0)
    slow.gate.set()
    await asyncio.gather(*waiting)
    await finish(books)
    assert books.terms() == {"accepted": 20, "delivered": 20}


async def test_a_request_with_rejected_items_is_worked_on_in_slices_too():
    books, out = Books(), Scripted(push=QUICK)
    intake = Intake([books.pipeline(books.destination(out, share=64 << 20), processors=(Counting,))])
    big = large(4)
    big.raw = None
    await intake(big)
    assert len(out.sent) + len(books.destinations[0].queue) >= 4
    await finish(books)
    assert out.items == big.count()


async def test_a_stop_that_meets_a_wake_up_ends():
    """Before Python 3.12 asyncio.wait_for may swallow the cancellation that meets its result."""
    books = Books()
    for _ in range(50):
        destination = books.destination(Scripted(push=QUICK))
        await asyncio.sleep(0)
        destination._wake.set()
        await asyncio.wait_for(destination.stop(), 5)


async def test_a_send_that_ignores_its_cancellation_is_counted_once_and_holds_up_nobody(monkeypatch):
    monkeypatch.setattr("collector.pipeline.destination._LAST_MOMENT", 0.05)
    release = asyncio.Event()

    class Stubborn(Exporter):
        def __init__(self):
            super().__init__(Push.model_validate(QUICK), settings("out"))
            self.ended = False

        async def send(self, item):
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            self.ended = True
            return 0

    books, exporter = Books(), Stubborn()
    destination = books.destination(exporter)
    books.ledger.accepted(Signal.TRACES, "out", 2)
    destination.put(payload(2))
    await eventually(lambda: destination._flying)
    await asyncio.wait_for(destination.stop(), 5)
    release.set()
    await eventually(lambda: exporter.ended and not destination._flying)
    assert books.terms() == {"accepted": 2, "dropped_shutdown": 2}


async def test_what_comes_after_the_stop_is_counted():
    books = Books()
    pipeline = books.pipeline(books.destination(Scripted(push=QUICK)))
    await books.destinations[0].stop()
    await Intake([pipeline])(spans(2))
    assert books.terms() == {"accepted": 2, "dropped_shutdown": 2}


async def test_an_exporter_that_returns_nothing_has_delivered():
    class Silent(Exporter):
        async def send(self, item):
            return None

    books = Books()
    books.ledger.accepted(Signal.TRACES, "out", 2)
    books.destination(Silent(Silent.Config(), settings())).put(payload(2))
    await finish(books)
    assert books.terms() == {"accepted": 2, "delivered": 2}


async def test_a_client_that_left_takes_its_undelivered_data_with_it():
    push = {**QUICK, "sending_queue": {"wait_for_result": True, "batch": {"flush_timeout": "0"}}}
    books, dead = Books(), Scripted(*[Retryable("down")] * 10_000, push=push)
    intake = Intake([books.pipeline(books.destination(dead))])
    request = asyncio.create_task(intake(spans(2)))
    await eventually(lambda: len(dead.script) < 9_999)
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    await eventually(lambda: books.terms() == {"accepted": 2, "dropped_withdrawn": 2})
    await finish(books)


async def test_a_client_is_told_to_retry_as_long_as_one_destination_may_take_it():
    now = {"sending_queue": {"enabled": False}, "retry_on_failure": {"enabled": False}}
    books = Books()
    outs = (Scripted(Permanent("no"), push=now), Scripted(Retryable("busy"), push=now))
    pipeline = books.pipeline(*(books.destination(out, name) for out, name in zip(outs, "ab", strict=True)))
    with pytest.raises(Refused, match="busy"):
        await Intake([pipeline])(spans(1))
    outs[0].script.append(Permanent("no"))
    with pytest.raises(Undeliverable, match="no"):
        await Intake([pipeline])(spans(1))
    await finish(books)
    assert books.terms("b") == {"accepted": 2, "delivered": 1, "dropped_withdrawn": 1}


async def test_a_short_delay_that_a_backend_asks_for_is_not_lengthened_by_the_backoff_of_one_record():
    push = {
        "retry_on_failure": {"initial_interval": "1h", "max_interval": "1h"},
        "sending_queue": {"batch": {"flush_timeout": "0"}},
    }
    books, out = Books(), Scripted(Retryable("slow down", after=0.01), push=push)
    intake = Intake([books.pipeline(books.destination(out))])
    await intake(spans(1))
    await eventually(lambda: not out.script)
    await intake(spans(1))
    await eventually(lambda: out.items == 1)
    for destination in books.destinations:
        await destination.stop()
    assert books.terms() == {"accepted": 2, "delivered": 1, "dropped_shutdown": 1}


async def test_a_failing_processor_in_one_pipeline_is_booked_there_alone():
    books = Books()
    first = books.pipeline(books.destination(Scripted(push=QUICK), "a"), processors=(Failing,))
    second = books.pipeline(books.destination(Scripted(push=QUICK), "b"), processors=(Halving,))
    await Intake([first, second])(spans(4))
    await finish(books)
    assert books.terms("a") == {"accepted": 4, "dropped_processor_error": 4}
    assert books.terms("b") == {"accepted": 4, "dropped_sampled": 2, "delivered": 2}
