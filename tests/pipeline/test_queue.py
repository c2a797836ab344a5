"""pipeline.queue: what waits, in which order it leaves, and what that costs."""

import random
import time
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.fields import Queue
from collector.model import Payload, Signal
from collector.pipeline.queue import Record, RecordQueue

ONE_BY_ONE = Queue.model_validate({"queue_size": 1 << 30, "batch": {"max_size": 1, "flush_timeout": "0"}})


def record(born, signal=Signal.TRACES):
    return Record(Payload(signal, b"x", 1, born))


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_every_record_leaves_exactly_once_whatever_happens_in_between(seed):
    chance = random.Random(seed)
    queue, flying, gone, now, made = RecordQueue(ONE_BY_ONE, 1 << 40), [], [], 0.0, 0
    for _ in range(200):
        now += chance.random()
        step = chance.randrange(6)
        if step <= 1:
            made += 1
            queue.add(record(now, chance.choice(list(Signal))))
        elif step == 2 and (found := queue.next(now, flush=True)[0]) is not None:
            flying.append(found)
        elif step == 3 and flying:
            queue.delay(flying.pop(chance.randrange(len(flying))), now + chance.uniform(0, 5))
        elif step == 4 and (oldest := queue.pop_oldest()) is not None:
            queue.leave(oldest)
            gone.append(oldest)
        elif step == 5:
            queue.hasten(now + 0.5)
        assert len(queue) + len(flying) + len(gone) == made
        assert queue.records == len(queue) + len(flying)
        for lane in queue._ready.values():
            assert lane.measured == sum(map(queue._measure, lane.records))
    while (found := queue.next(now + 100, flush=True)[0]) is not None:
        flying.append(found)
    assert len(queue) == 0
    assert len({id(each) for each in (*flying, *gone)}) == made


def test_only_a_record_that_may_make_something_due_earlier_wakes_the_sender():
    queue = RecordQueue(Queue.model_validate({"batch": {"sizer": "items", "min_size": 3, "flush_timeout": "1s"}}), 1 << 40)
    assert [queue.add(record(born)) for born in (0.0, 0.1, 0.2, 0.3)] == [True, False, True, True]
    assert queue.next(0.4, flush=False)[0].payload.items == 4
    assert queue.add(record(0.5))
    assert queue.next(0.5, flush=False) == (None, 1.0)
    assert not queue.add(record(0.6))
    assert queue.add(record(0.7), front=True)
    waited = Record(Payload(Signal.LOGS, b"x", 1, 0.8), outcomes=[object()])
    assert queue.add(waited)
    assert queue.add(record(0.9, Signal.LOGS)), "its client waits"


def test_the_oldest_goes_first_wherever_it_waits():
    queue = RecordQueue(ONE_BY_ONE, 1 << 40)
    for born in (3.0, 1.0, 2.0):
        queue.add(record(born))
        queue.delay(queue.next(0, flush=True)[0], 10 - born)
    queue.add(record(1.5))
    queue.add(record(0.5, Signal.LOGS))
    assert [queue.pop_oldest().payload.born for _ in range(5)] == [0.5, 1.0, 1.5, 2.0, 3.0]
    assert queue.pop_oldest() is None
    assert queue.next(100, flush=True) == (None, None)


class Headers(dict):
    """Metadata that a weak reference can watch."""


@pytest.mark.parametrize("out", [lambda queue: queue.next(100, flush=True)[0], RecordQueue.pop_oldest])
def test_a_payload_that_waited_for_another_try_is_let_go_when_it_leaves(out):
    queue, payloads = RecordQueue(ONE_BY_ONE, 1 << 40), []
    for born in range(50):
        headers = Headers()
        payloads.append(weakref.ref(headers))
        queue.add(Record(Payload(Signal.TRACES, b"x", 1, born, headers)))
        queue.delay(queue.next(0, flush=True)[0], 50 - born)
    del headers
    while (one := out(queue)) is not None:
        queue.leave(one)
        del one
        assert sum(payload() is not None for payload in payloads) <= 2 * len(queue)


def test_a_long_queue_of_a_dead_destination_costs_the_others_no_time():
    """R-104."""
    queue = RecordQueue(ONE_BY_ONE, 1 << 40)
    for number in range(50_000):
        queue.add(record(number))
        queue.delay(queue.next(0, flush=True)[0], 1e9 + number)
    started = time.perf_counter()
    for _ in range(1_000):
        queue.leave(queue.pop_oldest())
    assert time.perf_counter() - started < 1.0
    assert len(queue) == 49_000


def test_a_signal_that_always_has_something_to_send_does_not_hold_back_another_one():
    queue = RecordQueue(ONE_BY_ONE, 1 << 40)
    for born in range(3):
        queue.add(record(born))
    queue.add(record(0.5, Signal.LOGS))
    for born in range(3, 9):
        queue.add(record(born))
    assert [queue.next(10, flush=False)[0].payload.signal for _ in range(4)] == ["traces", "logs", "traces", "traces"]


def test_a_record_that_is_tried_in_a_pause_is_of_a_signal_whose_turn_it_is_and_not_joined():
    queue = RecordQueue(Queue(), 1 << 40)
    for signal in (Signal.TRACES, Signal.TRACES, Signal.LOGS):
        queue.add(record(0.0, signal))
    turn = [Signal.METRICS, Signal.LOGS]
    assert queue.next(0, flush=False, turn=turn)[0].payload.signal is Signal.LOGS
    assert queue.next(0, flush=False, turn=turn) == (None, None)
    assert queue.next(0, flush=False, turn=[Signal.TRACES])[0].payload.items == 1
    assert len(queue) == 1
