"""pipeline.graph: admission, chain, fan-out, and books that balance whatever happens."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from collector.component import Processor
from collector.errors import Permanent, Refused, Retryable
from collector.model import Payload, Signal, open_envelope
from collector.pipeline.graph import ITEM, SLICE, Intake, own_copy
from collector.pipeline.queue import LARGEST_SEND
from tests.pipeline.parts import Books, Counting, Failing, Halving, Holding, Scripted
from tests.support import batch, eventually, span, traces

QUICK = {
    "sending_queue": {"batch": {"flush_timeout": "0"}},
    "retry_on_failure": {"initial_interval": "1ms", "max_interval": "5ms"},
}


async def finish(books):
    for pipeline in books.pipelines:
        pipeline.drain()
    for destination in books.destinations:
        await destination.drain(5)
        await destination.stop()


@asynccontextmanager
async def others():
    """What else the loop does meanwhile: an entry for each time it gets there."""
    turns = []

    async def work():
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    task = asyncio.create_task(work())
    try:
        yield turns
    finally:
        task.cancel()


def spans(count):
    return batch(traces(*(span() for _ in range(count))))


async def test_every_destination_gets_the_same_bytes():
    """R-104."""
    books, left, right = Books(), Scripted(push=QUICK), Scripted(push=QUICK)
    pipeline = books.pipeline(books.destination(left, "left"), books.destination(right, "right"))
    given_batch = spans(3)
    await Intake([pipeline])(given_batch)
    await eventually(lambda: left.items == right.items == 3)
    assert left.sent[0].data is right.sent[0].data is given_batch.raw
    await finish(books)


async def test_a_dead_destination_gives_up_its_own_data_and_the_other_one_gets_all():
    """R-104."""
    books = Books()
    dead = Scripted(
        *[Retryable("down")] * 100_000, push={**QUICK, "sending_queue": {"queue_size": 3, "batch": {"flush_timeout": "0"}}}
    )
    alive = Scripted(push=QUICK)
    pipeline = books.pipeline(books.destination(dead, "dead"), books.destination(alive, "alive"))
    for _ in range(20):
        await Intake([pipeline])(spans(1))
    await eventually(lambda: alive.items == 20)
    assert books.terms("alive") == {"accepted": 20, "delivered": 20}
    assert books.terms("dead")["accepted"] == 20
    assert books.terms("dead")["dropped_queue_full"] >= 16
    await asyncio.gather(*(d.stop() for d in books.destinations))


async def test_a_lone_full_destination_pushes_back_and_nothing_is_taken():
    """R-111."""
    books = Books()
    stuck = Scripted(push={"sending_queue": {"queue_size": 1, "num_consumers": 1}})
    stuck.gate = asyncio.Event()
    intake = Intake([books.pipeline(books.destination(stuck))])
    await intake(spans(2))
    with pytest.raises(Refused, match="sending queue is full") as refusal:
        await intake(spans(1))
    assert refusal.value.after >= 1
    assert books.terms() == {"accepted": 2, "queued": 2}
    stuck.gate.set()
    await finish(books)


async def test_backpressure_of_one_destination_refuses_before_any_other_one_takes_it():
    books, healthy = Books(), Scripted(push=QUICK)
    stuck = Scripted(push={"sending_queue": {"queue_size": 1, "on_full": "backpressure"}})
    stuck.gate = asyncio.Event()
    intake = Intake([books.pipeline(books.destination(healthy, "healthy"), books.destination(stuck, "stuck"))])
    await intake(spans(1))
    with pytest.raises(Refused):
        await intake(spans(1))
    assert books.terms("healthy")["accepted"] == 1
    stuck.gate.set()
    await finish(books)


async def test_block_on_overflow_waits_for_room():
    books = Books()
    slow = Scripted(push={"sending_queue": {"queue_size": 1, "block_on_overflow": True, "batch": {"flush_timeout": "0"}}})
    slow.gate = asyncio.Event()
    intake = Intake([books.pipeline(books.destination(slow))])
    await intake(spans(1))
    waiting = asyncio.create_task(intake(spans(1)))
    await asyncio.sleep(0)
    assert not waiting.done()
    slow.gate.set()
    await waiting
    await finish(books)
    assert books.terms() == {"accepted": 2, "delivered": 2}


async def test_an_empty_request_is_not_counted():
    books = Books()
    pipeline = books.pipeline(books.destination(Scripted()))
    await Intake([pipeline])(batch(traces()))
    assert books.ledger.totals == {}
    await finish(books)


async def test_dropped_and_held_items_are_booked_for_every_destination():
    books = Books()
    outs = [books.destination(Scripted(push=QUICK), name) for name in ("a", "b")]
    pipeline = books.pipeline(*outs, processors=(Halving, Holding))
    await Intake([pipeline])(spans(10))
    assert books.terms("a") == books.terms("b") == {"accepted": 10, "dropped_sampled": 5, "queued": 5}
    outs[0].refresh(Signal.TRACES, pipeline.chain.held())
    assert books.meters.gauge("collector_queued_items", "", ("signal", "exporter")).value("traces", "a") == 5
    await finish(books)
    assert books.terms("b") == {"accepted": 10, "dropped_sampled": 5, "delivered": 5}


async def test_a_failing_processor_lets_nothing_through():
    """R-310."""
    books, out = Books(), Scripted(push=QUICK)
    await Intake([books.pipeline(books.destination(out), processors=(Failing,))])(spans(4))
    await finish(books)
    assert out.sent == []
    assert books.terms() == {"accepted": 4, "dropped_processor_error": 4}


async def test_a_refusal_behind_a_processor_that_took_something_keeps_the_books_exact():
    class Full(Processor):
        def process(self, batch, now):
            raise Refused("engine")

    books = Books()
    pipeline = books.pipeline(books.destination(Scripted(push=QUICK)), processors=(Halving, Full))
    with pytest.raises(Refused):
        await Intake([pipeline])(spans(10))
    assert books.terms() == {"accepted": 5, "dropped_sampled": 5}
    await finish(books)


async def test_two_pipelines_do_not_see_each_others_changes():
    books, cut, whole = Books(), Scripted(push=QUICK), Scripted(push=QUICK)
    first = books.pipeline(books.destination(cut, "cut"), processors=(Halving,))
    second = books.pipeline(books.destination(whole, "whole"), processors=(Counting,))
    await Intake([first, second])(spans(10))
    await finish(books)
    assert (cut.items, whole.items) == (5, 10)


def test_a_copy_shares_bytes_but_no_list():
    opened = spans(2)
    opened.groups[0].scopes[0].heads = [1, 2]
    opened.groups[0].scopes[0].points = [3, 4]
    copy = own_copy(opened)
    copy.groups[0].scopes[0].items.pop()
    copy.groups[0].scopes[0].heads.pop()
    assert len(opened.items()) == len(opened.groups[0].scopes[0].heads) == 2
    assert copy.groups[0].scopes[0].points == [3, 4]


async def test_a_large_request_is_worked_on_in_slices_with_the_loop_free_in_between():
    books, out = Books(), Scripted(push=QUICK)
    intake = Intake([books.pipeline(books.destination(out, share=64 << 20), processors=(Counting,))])
    big = batch(traces(*(span("x" * 10_000) for _ in range(SLICE * 3 // 10_000))))
    async with others() as turns:
        await intake(big)
    assert len(turns) >= 3
    await finish(books)
    assert out.items == big.count()


async def test_a_request_of_very_many_small_items_is_worked_on_in_slices_too():
    books, out, parts = Books(), Scripted(push=QUICK), []

    class Noting(Counting):
        def process(self, batch, now):
            parts.append(batch.count())
            return super().process(batch, now)

    intake = Intake([books.pipeline(books.destination(out, share=64 << 20), processors=(Noting,))])
    await intake(batch(traces(*(span("x") for _ in range(5000)))))
    assert sum(parts) == 5000
    assert max(parts) <= SLICE // ITEM
    await finish(books)
    assert out.items == 5000


async def test_a_large_request_without_processors_leaves_byte_identical():
    books, out = Books(), Scripted(push=QUICK)
    intake = Intake([books.pipeline(books.destination(out, share=64 << 20))])
    big = batch(traces(*(span("x" * 10_000) for _ in range(SLICE * 3 // 10_000))))
    await intake(big)
    await finish(books)
    assert b"".join(p.data for p in out.sent) == big.raw


async def test_what_is_too_large_for_one_send_is_cut_with_the_loop_free_in_between_without_processors_too():
    books, out = Books(), Scripted(push=QUICK)
    intake = Intake([books.pipeline(books.destination(out, share=64 << 20))])
    big = batch(traces(*(span("x" * 10_000) for _ in range(LARGEST_SEND * 2 // 10_000))))
    async with others() as turns:
        await intake(big)
    assert len(turns) >= LARGEST_SEND * 2 // SLICE
    await finish(books)
    assert [item for part in out.sent for item in open_envelope(Signal.TRACES, part.data).items()] == big.items()
    assert max(len(part.data) for part in out.sent) <= LARGEST_SEND


@given(st.integers(0, 2**32))
@hypothesis_settings(deadline=None, max_examples=40)
def test_accepted_is_always_delivered_plus_dropped_plus_queued(seed):
    asyncio.run(_random_day(random.Random(seed)))


async def _random_day(chance):
    books, outs = Books(), []
    for name in ("a", "b"):
        answers = [None, None, 1, Retryable("x"), Permanent("x"), Permanent("x", fix="y"), TimeoutError()]
        script = [chance.choice(answers) for _ in range(30)]
        queue = {"queue_size": chance.randint(1, 5), "batch": {"flush_timeout": "0"}}
        queue["on_full"] = chance.choice(["auto", "backpressure", "drop_oldest", "drop_newest"])
        outs.append(books.destination(Scripted(*script, push={**QUICK, "sending_queue": queue}), name))
    processors = tuple(chance.sample([Halving, Holding, Counting], chance.randint(0, 3)))
    pipeline = books.pipeline(*outs, processors=processors)
    intake = Intake([pipeline])
    for _ in range(20):
        try:
            await intake(spans(chance.randint(0, 5)))
        except Refused:
            await asyncio.sleep(0.002)
        if chance.random() < 0.2:
            pipeline.tick()
        if books.ledger.totals:
            books.terms("a"), books.terms("b")
    for destination in outs:
        destination._pulse.succeeded(0)
    pipeline.drain()
    await asyncio.gather(*(d.drain(chance.choice([0.0, 0.5])) for d in outs))
    await asyncio.gather(*(d.stop() for d in outs))
    if books.ledger.totals:
        assert "queued" not in books.terms("a")
        assert "queued" not in books.terms("b")


def test_signals_keep_their_own_books():
    books = Books()
    books.ledger.accepted(Signal.LOGS, "out", 1)
    assert books.ledger.balance([(Signal.LOGS, "out", 1), (Signal.TRACES, "x", 0)])["logs"]["out"]["balance"] == 0


async def test_what_is_taken_at_once_is_booked_and_sent_like_everything_else():
    books, out = Books(), Scripted(push=QUICK)
    intake = Intake(
        [books.pipeline(books.destination(out), processors=(Halving,)), books.pipeline(books.destination(out, "other"))]
    )
    given_batch = spans(4)
    assert intake.ready(len(given_batch.raw), 1)
    intake.at_once(given_batch, 4)
    assert intake.last > 0
    await eventually(lambda: sum(payload.items for payload in out.sent) == 6)
    assert books.terms("out") == {"accepted": 4, "delivered": 2, "dropped_sampled": 2}
    assert books.terms("other") == {"accepted": 4, "delivered": 4}
    await finish(books)


@pytest.mark.parametrize(
    ("queue", "ready"),
    [
        ({}, True),
        ({"wait_for_result": True}, False),
        ({"enabled": False}, False),
        ({"queue_size": 1}, False),
        ({"queue_size": 1, "on_full": "backpressure"}, False),
        ({"queue_size": 1, "on_full": "drop_oldest"}, True),
        ({"queue_size": 1, "on_full": "drop_newest"}, True),
    ],
)
async def test_a_batch_is_taken_at_once_only_where_nobody_has_to_be_waited_for(queue, ready):
    books, out = Books(), Scripted(push={"sending_queue": {**queue, "batch": {"flush_timeout": "1h"}}})
    destination = books.destination(out)
    pipeline = books.pipeline(destination)
    if queue.get("queue_size"):
        pipeline.take(spans(1), 1)
    assert Intake([pipeline]).ready(1000, 1) is ready
    await finish(books)


async def test_one_destination_with_room_is_enough_to_take_a_batch_at_once_unless_the_full_one_pushes_back():
    for on_full, ready in (("auto", True), ("backpressure", False)):
        books = Books()
        queue = {"queue_size": 1, "on_full": on_full, "batch": {"flush_timeout": "1h"}}
        full = books.destination(Scripted(push={"sending_queue": queue}), "full")
        full.put(Payload(Signal.TRACES, b"x", 1))
        pipeline = books.pipeline(full, books.destination(Scripted(push=QUICK), "free"))
        assert Intake([pipeline]).ready(10, 1) is ready
        await full.stop()
        await finish(books)


async def test_a_large_batch_for_processors_is_not_taken_at_once():
    books = Books()
    plain = books.pipeline(books.destination(Scripted(push=QUICK)))
    working = books.pipeline(books.destination(Scripted(push=QUICK), "other"), processors=(Halving,))
    assert [Intake([each]).ready(size, 1) for each in (plain, working) for size in (SLICE - ITEM, SLICE)] == [
        True,
        True,
        True,
        False,
    ]
    await finish(books)


async def test_a_replaced_destination_takes_nothing_at_once():
    books = Books()
    old, new = books.destination(Scripted(push=QUICK)), books.destination(Scripted(push=QUICK), "new")
    pipeline = books.pipeline(old)
    assert Intake([pipeline]).ready(10, 1)
    await old.hand_over(new, 1)
    assert not Intake([pipeline]).ready(10, 1), "the one that replaces it may let its clients wait"
    await finish(books)
