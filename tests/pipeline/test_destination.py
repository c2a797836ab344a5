"""pipeline.destination: queue, retry and books of one exporter."""

import asyncio

import pytest

from collector.component import Exporter
from collector.errors import Oversized, Permanent, Refused, Retryable, Undeliverable
from collector.model import Payload, Signal, open_envelope
from tests.pipeline.parts import Books, Scripted, payload
from tests.support import eventually, settings, span, traces

FAST = {
    "retry_on_failure": {"initial_interval": "10ms", "max_interval": "20ms"},
    "sending_queue": {"batch": {"flush_timeout": "0"}},
}


def accept(books, destination, item):
    books.ledger.accepted(item.signal, destination.name, item.items)
    return destination.put(item)


async def finish(books):
    for destination in books.destinations:
        await destination.drain(5)
        await destination.stop()


async def test_what_is_put_is_delivered_and_booked():
    """R-113."""
    books, exporter = Books(), Scripted(push=FAST)
    accept(books, books.destination(exporter), payload(3))
    await eventually(lambda: exporter.items == 3)
    await finish(books)
    assert books.terms() == {"accepted": 3, "delivered": 3}


async def test_small_requests_are_joined_into_one_send():
    books, exporter = Books(), Scripted(push={"sending_queue": {"batch": {"flush_timeout": "50ms"}}})
    destination = books.destination(exporter)
    now = asyncio.get_running_loop().time()
    for _ in range(5):
        accept(books, destination, payload(2, born=now))
    await eventually(lambda: exporter.items == 10)
    await finish(books)
    assert len(exporter.sent) == 1
    assert len(open_envelope(Signal.TRACES, exporter.sent[0].data).items()) == 10


async def test_no_send_is_larger_than_the_exporter_wants_it_unless_one_item_is():
    books, exporter = Books(), Scripted(push={"sending_queue": {"batch": {"flush_timeout": "50ms"}}})
    exporter.largest = 6000
    destination = books.destination(exporter)
    now = asyncio.get_running_loop().time()
    large = traces(*(span("x" * 900) for _ in range(20)), span("y" * 9000)).SerializeToString()
    accept(books, destination, Payload(Signal.TRACES, large, 21, now))
    for _ in range(10):
        accept(books, destination, Payload(Signal.TRACES, traces(span("x" * 900)).SerializeToString(), 1, now))
    await eventually(lambda: exporter.items == 31)
    await finish(books)
    sizes = [len(each.data) for each in exporter.sent]
    assert sorted(sizes)[-1] > 9000
    assert sorted(sizes)[-2] <= 6000
    assert len(sizes) < 10, "as few as can be"
    assert books.terms() == {"accepted": 31, "delivered": 31}


async def test_a_full_batch_does_not_wait_for_the_timeout():
    push = {"sending_queue": {"batch": {"flush_timeout": "1h", "min_size": 4}}}
    books, exporter = Books(), Scripted(push=push)
    destination = books.destination(exporter)
    for _ in range(2):
        accept(books, destination, payload(2, born=asyncio.get_running_loop().time()))
    await eventually(lambda: exporter.items == 4)
    await finish(books)


async def test_no_send_is_larger_than_max_size():
    push = {"sending_queue": {"batch": {"flush_timeout": "0", "max_size": 3}, "num_consumers": 1}}
    books, exporter = Books(), Scripted(push=push)
    destination = books.destination(exporter)
    exporter.gate = asyncio.Event()
    for _ in range(5):
        accept(books, destination, payload(2))
    exporter.gate.set()
    await eventually(lambda: exporter.items == 10)
    await finish(books)
    assert max(item.items for item in exporter.sent) <= 3


async def test_a_request_over_four_mib_is_cut_at_item_borders():
    books, exporter = Books(), Scripted(push=FAST)
    accept(books, books.destination(exporter, share=64 << 20), payload(6, size=1 << 20))
    await eventually(lambda: exporter.items == 6)
    await finish(books)
    assert len(exporter.sent) > 1
    assert max(len(item.data) for item in exporter.sent) < 4.2 * (1 << 20)
    assert books.terms() == {"accepted": 6, "delivered": 6}


async def test_retryable_errors_are_tried_again_until_success():
    books, exporter = Books(), Scripted(Retryable("busy"), TimeoutError(), Retryable("busy", after=0.01), push=FAST)
    accept(books, books.destination(exporter), payload(2))
    await eventually(lambda: exporter.items == 2)
    await finish(books)
    assert books.terms() == {"accepted": 2, "delivered": 2}


async def test_a_permanent_error_drops_and_counts():
    books, exporter = Books(), Scripted(Permanent("no"), ValueError("a bug"), push=FAST)
    destination = books.destination(exporter)
    for _ in range(2):
        accept(books, destination, payload(2))
    await finish(books)
    assert books.terms() == {"accepted": 4, "dropped_rejected": 4}


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ((1, 2), {"delivered": 2, "dropped_partial_rejected": 1, "dropped_filtered": 2}),
        ((0, 5), {"dropped_filtered": 5}),
        ((9, 3), {"dropped_partial_rejected": 2, "dropped_filtered": 3}),
        ((-1, -1), {"delivered": 5}),
        ((1, 2, 3), {"dropped_rejected": 5}),
        ("many", {"dropped_rejected": 5}),
    ],
)
async def test_what_an_exporter_left_out_is_booked_as_filtered(answer, wanted):
    """R-111 (partly)."""
    books, exporter = Books(), Scripted(answer, push=FAST)
    accept(books, books.destination(exporter), payload(5))
    await finish(books)
    assert books.terms() == {"accepted": 5, **wanted}
    assert len(exporter.sent) == 1


async def test_a_partial_success_is_booked_and_not_retried():
    books, exporter = Books(), Scripted(1, push=FAST)
    accept(books, books.destination(exporter), payload(3))
    await finish(books)
    assert books.terms() == {"accepted": 3, "delivered": 2, "dropped_partial_rejected": 1}
    assert len(exporter.sent) == 1


async def test_too_large_for_the_backend_is_halved_until_it_fits():
    books, exporter = Books(), Scripted(*[Oversized("413")] * 3, push=FAST)
    accept(books, books.destination(exporter), payload(8))
    await finish(books)
    assert books.terms() == {"accepted": 8, "delivered": 8}
    assert len(exporter.sent) == 4


async def test_one_item_too_large_does_not_take_its_neighbours():
    books = Books()

    class Picky(Scripted):
        async def send(self, item):
            if len(item.data) > 2000:
                raise Oversized("413")
            return await super().send(item)

    exporter = Picky(push=FAST)
    request = traces(span("a"), span("b" * 5000), span("c"))
    accept(books, books.destination(exporter), Payload(Signal.TRACES, request.SerializeToString(), 3))
    await finish(books)
    assert books.terms() == {"accepted": 3, "delivered": 2, "dropped_too_large": 1}


async def test_retries_end_after_max_elapsed_time():
    push = {"retry_on_failure": {"initial_interval": "1ms", "max_interval": "1ms", "max_elapsed_time": "20ms"}}
    books, exporter = Books(), Scripted(*[Retryable("busy")] * 1000, push=push)
    accept(books, books.destination(exporter), payload(2))
    await eventually(lambda: books.terms().get("dropped_retry_exhausted") == 2)
    await finish(books)


async def test_a_slow_attempt_is_cut_off_and_tried_again():
    books, exporter = Books(), Scripted(push={**FAST, "timeout": "20ms"})
    exporter.gate = asyncio.Event()
    accept(books, books.destination(exporter), payload(2))
    await eventually(lambda: exporter.most_at_once == 1)
    asyncio.get_running_loop().call_later(0.05, exporter.gate.set)
    await eventually(lambda: exporter.items == 2)
    await finish(books)


async def test_sends_in_flight_are_bounded():
    books, exporter = (
        Books(),
        Scripted(push={"sending_queue": {"num_consumers": 3, "batch": {"flush_timeout": "0", "max_size": 1}}}),
    )
    exporter.gate = asyncio.Event()
    destination = books.destination(exporter)
    for _ in range(10):
        accept(books, destination, payload())
    await eventually(lambda: exporter.most_at_once == 3)
    exporter.gate.set()
    await finish(books)
    assert exporter.most_at_once == 3


async def test_a_full_queue_gives_up_its_oldest_and_counts():
    books, exporter = Books(), Scripted(push={"sending_queue": {"queue_size": 2, "num_consumers": 1, "on_full": "drop_oldest"}})
    exporter.gate = asyncio.Event()
    destination = books.destination(exporter)
    for number in range(4):
        accept(books, destination, payload(1, born=float(number)))
    assert books.terms() == {"accepted": 4, "queued": 2, "dropped_queue_full": 2}
    exporter.gate.set()
    await finish(books)
    assert books.terms() == {"accepted": 4, "delivered": 2, "dropped_queue_full": 2}
    assert books.meters.counter("otelcol_exporter_enqueue_failed_spans", "", ("exporter",)).value("out") == 2


async def test_drop_newest_keeps_what_is_there():
    push = {"sending_queue": {"queue_size": 1, "on_full": "drop_newest", "batch": {"flush_timeout": "1h"}}}
    books, exporter = Books(), Scripted(push=push)
    destination = books.destination(exporter)
    now = asyncio.get_running_loop().time()
    accept(books, destination, payload(3, born=now))
    accept(books, destination, payload(1, born=now))
    await finish(books)
    assert books.terms() == {"accepted": 4, "delivered": 3, "dropped_queue_full": 1}


async def test_bytes_bound_the_queue_whatever_the_sizer():
    books, exporter = Books(), Scripted(push={"sending_queue": {"max_bytes": 5000, "batch": {"flush_timeout": "1h"}}})
    destination = books.destination(exporter)
    accept(books, destination, payload(1, size=3000, born=asyncio.get_running_loop().time()))
    assert not destination.queue.room(3000)
    await finish(books)
    assert destination.queue.bytes == 0


async def test_a_destination_that_is_down_gets_one_probe_at_a_time():
    books, exporter = Books(), Scripted(*[Retryable("down")] * 6, push={"sending_queue": {"batch": {"flush_timeout": "0", "max_size": 1}}, "retry_on_failure": {"initial_interval": "1ms", "max_interval": "5ms"}})  # fmt: skip
    destination = books.destination(exporter)
    destination._pulse._success -= 10
    for _ in range(10):
        accept(books, destination, payload())
    await eventually(lambda: exporter.items == 10)
    await finish(books)
    assert books.terms() == {"accepted": 10, "delivered": 10}


async def test_without_queue_the_client_learns_what_the_backend_said():
    push = {"sending_queue": {"enabled": False}, "retry_on_failure": {"enabled": False}}
    books, exporter = Books(), Scripted(None, Retryable("busy", after=7), Permanent("no"), push=push)
    destination = books.destination(exporter)
    await accept(books, destination, payload()).future
    with pytest.raises(Refused) as refusal:
        await accept(books, destination, payload()).future
    assert refusal.value.after >= 7
    with pytest.raises(Undeliverable):
        await accept(books, destination, payload()).future
    await finish(books)
    assert books.terms() == {"accepted": 3, "delivered": 1, "dropped_withdrawn": 1, "dropped_rejected": 1}


async def test_wait_for_result_answers_when_every_part_is_delivered():
    books, exporter = Books(), Scripted(Oversized("413"), push={**FAST, "sending_queue": {"wait_for_result": True}})
    outcome = accept(books, books.destination(exporter), payload(4))
    await outcome.future
    assert exporter.items == 4
    await finish(books)


async def test_what_is_left_at_the_end_is_counted_as_shutdown():
    books, exporter = (
        Books(),
        Scripted(push={"sending_queue": {"num_consumers": 1, "batch": {"max_size": 1, "flush_timeout": "0"}}}),
    )
    exporter.gate = asyncio.Event()
    destination = books.destination(exporter)
    for _ in range(3):
        accept(books, destination, payload())
    await eventually(lambda: exporter.most_at_once)
    await destination.drain(0.05)
    await destination.stop()
    await destination.stop()
    assert books.terms() == {"accepted": 3, "dropped_shutdown": 3}


async def test_an_exporter_without_queue_settings_gets_a_queue_too():
    class Plain(Exporter):
        async def send(self, item):
            got.append(item.items)
            return 0

    got: list[int] = []
    books = Books()
    accept(books, books.destination(Plain(Plain.Config(), settings())), payload(2))
    await finish(books)
    assert got == [2]


async def test_status_tells_fill_and_last_error_without_payload():
    books, exporter = Books(), Scripted(Retryable("connection refused"), push={"retry_on_failure": {"initial_interval": "1h", "max_interval": "1h"}, "sending_queue": {"batch": {"flush_timeout": "0"}}})  # fmt: skip
    destination = books.destination(exporter)
    accept(books, destination, payload(2))
    await eventually(lambda: destination.last_error)
    destination.refresh(Signal.TRACES, held=5)
    assert destination.status()["queued"] == {"traces": 2}
    assert destination.status()["last_error"] == "connection refused"
    assert books.meters.gauge("collector_queued_items", "", ("signal", "exporter")).value("traces", "out") == 7
    await destination.stop()


async def test_the_own_log_says_what_is_not_delivered_and_what_is_lost_at_the_end(caplog):
    push = {
        "retry_on_failure": {"initial_interval": "1h", "max_interval": "1h"},
        "sending_queue": {"batch": {"flush_timeout": "0"}},
    }
    books, exporter = Books(), Scripted(Retryable("connection refused"), push=push)
    destination = books.destination(exporter)
    accept(books, destination, payload(2))
    await eventually(lambda: destination.last_error)
    await destination.stop()
    kept, lost = (r for r in caplog.records if r.levelname == "WARNING")
    assert (kept.message, kept.error) == ("cannot deliver: kept in the queue and tried again", "connection refused")
    assert (lost.message, lost.dropped_items) == ("ends before all was delivered: items dropped", 2)
    assert books.terms() == {"accepted": 2, "dropped_shutdown": 2}


async def test_the_own_log_says_when_a_destination_takes_data_again(caplog):
    caplog.set_level("INFO")
    books, exporter = Books(), Scripted(Retryable("busy"), push=FAST)
    accept(books, books.destination(exporter), payload(2))
    await eventually(lambda: exporter.items == 2)
    await finish(books)
    assert [r.message for r in caplog.records] == ["cannot deliver: kept in the queue and tried again", "delivers again"]


WRONG = Permanent("HTTP 401: token expired", fix="check the token")


def one_by_one(interval, **queue):
    """Settings that send each record alone and pause for `interval`."""
    queue = {"num_consumers": 1, "batch": {"flush_timeout": "0", "max_size": 1}, **queue}
    return {"retry_on_failure": {"initial_interval": "1ms", "max_interval": interval}, "sending_queue": queue}


async def test_a_wrong_token_costs_three_records_and_the_rest_stay_in_the_queue():
    books, exporter = Books(), Scripted(*[WRONG] * 100, push=one_by_one("1h"))
    destination = books.destination(exporter)
    for _ in range(20):
        accept(books, destination, payload(2))
    await eventually(lambda: destination.status()["paused"])
    accept(books, destination, payload(2))
    await asyncio.sleep(0)
    assert destination.status()["down"]
    assert destination.status()["last_error"] == "HTTP 401: token expired"
    assert books.terms() == {"accepted": 42, "dropped_rejected": 6, "queued": 36}
    await destination.drain(0.02)
    await destination.stop()
    assert len(exporter.script) == 97
    assert books.terms() == {"accepted": 42, "dropped_rejected": 6, "dropped_shutdown": 36}


async def test_a_paused_destination_tries_one_small_record_at_a_time_and_goes_on_when_it_is_accepted(caplog):
    caplog.set_level("INFO")
    push = one_by_one("20ms", num_consumers=10, batch={"flush_timeout": "0"})
    books, exporter = Books(), Scripted(*[WRONG] * 5, push=push)
    destination = books.destination(exporter)
    started = asyncio.get_running_loop().time()
    for _ in range(3):
        accept(books, destination, payload())
        await eventually(lambda: not destination.queue.records)
    for _ in range(20):
        accept(books, destination, payload())
    await eventually(lambda: exporter.items == 18)
    assert asyncio.get_running_loop().time() - started >= 0.059
    assert exporter.most_at_once == 1
    assert exporter.sent[0].items == 1
    assert not destination.status()["paused"]
    await finish(books)
    assert books.terms() == {"accepted": 23, "delivered": 18, "dropped_rejected": 5}
    [told] = [r for r in caplog.records if r.message.startswith("paused")]
    assert (told.levelname, told.fix, told.error) == ("WARNING", "check the token", "HTTP 401: token expired")
    assert [r.levelname for r in caplog.records if "dropped" in r.message] == ["WARNING"] * 3 + ["INFO"] * 2
    assert [r.levelname for r in caplog.records if r.message == "delivers again"] == ["INFO"]


async def test_a_pause_costs_a_signal_that_was_not_refused_yet_one_record_only():
    books, exporter = Books(), Scripted(*[WRONG] * 100, push=one_by_one("1h", num_consumers=10))
    destination = books.destination(exporter)
    for _ in range(3):
        accept(books, destination, payload())
    await eventually(lambda: destination.status()["paused"])
    for _ in range(8):
        accept(books, destination, Payload(Signal.LOGS, b"x", 1))
    await eventually(lambda: len(exporter.script) == 96)
    await destination.drain(0.02)
    await destination.stop()
    logs = books.ledger.balance([])["logs"]["out"]
    assert (logs["accepted"], logs["dropped_rejected"], logs["dropped_shutdown"], logs["balance"]) == (8, 1, 7, 0)


async def test_a_backend_that_is_busy_in_a_pause_is_tried_no_more_often():
    books, exporter = Books(), Scripted(*[WRONG] * 3, Retryable("busy"), Retryable("busy"), push=one_by_one("30ms"))
    destination = books.destination(exporter)
    started = asyncio.get_running_loop().time()
    for _ in range(5):
        accept(books, destination, payload())
    await eventually(lambda: exporter.items == 2)
    assert asyncio.get_running_loop().time() - started >= 0.089
    await finish(books)
    assert books.terms() == {"accepted": 5, "delivered": 2, "dropped_rejected": 3}


async def test_data_that_is_refused_for_itself_never_pauses_a_destination():
    books, exporter = Books(), Scripted(WRONG, WRONG, Permanent("bad data"), WRONG, WRONG, push=one_by_one("1h"))
    destination = books.destination(exporter)
    for _ in range(9):
        accept(books, destination, payload())
    await eventually(lambda: exporter.items == 4)
    await finish(books)
    assert books.terms() == {"accepted": 9, "delivered": 4, "dropped_rejected": 5}


async def test_the_queue_of_a_paused_destination_stays_bounded():
    books, exporter = Books(), Scripted(*[WRONG] * 100, push=one_by_one("1h", queue_size=4, on_full="drop_oldest"))
    destination = books.destination(exporter)
    for _ in range(3):
        accept(books, destination, payload())
    await eventually(lambda: destination.status()["paused"])
    for number in range(10):
        accept(books, destination, payload(born=float(number)))
    assert books.terms() == {"accepted": 13, "dropped_rejected": 3, "dropped_queue_full": 6, "queued": 4}
    await destination.stop()
    assert books.terms() == {"accepted": 13, "dropped_rejected": 3, "dropped_queue_full": 6, "dropped_shutdown": 4}


async def test_a_signal_that_the_backend_does_not_take_does_not_hold_back_another_one():
    class TracesOnly(Scripted):
        async def send(self, item):
            if item.signal is Signal.LOGS:
                raise Permanent("UNIMPLEMENTED", fix="check the endpoint")
            return await super().send(item)

    books, exporter = Books(), TracesOnly(push=one_by_one("1h"))
    destination = books.destination(exporter)
    for _ in range(5):
        accept(books, destination, Payload(Signal.LOGS, b"x", 1))
    await eventually(lambda: destination.status()["paused"])
    for _ in range(5):
        accept(books, destination, payload())
        accept(books, destination, Payload(Signal.LOGS, b"x", 1))
    await eventually(lambda: not destination.queue.records)
    await finish(books)
    assert books.terms() == {"accepted": 5, "delivered": 5}
    logs = books.ledger.balance([])["logs"]["out"]
    assert (logs["accepted"], logs["dropped_rejected"], logs["balance"]) == (10, 10, 0)


async def test_a_client_that_waits_is_told_of_a_wrong_token_at_once():
    books, exporter = Books(), Scripted(*[WRONG] * 5, push=one_by_one("1h", wait_for_result=True))
    destination = books.destination(exporter)
    for _ in range(5):
        with pytest.raises(Undeliverable, match="token expired"):
            async with asyncio.timeout(5):
                await accept(books, destination, payload()).future
    assert not destination.status()["paused"]
    await finish(books)
    assert books.terms() == {"accepted": 5, "dropped_rejected": 5}


async def test_a_paused_destination_gives_its_queue_to_the_one_that_replaces_it():
    books, old = Books(), Scripted(*[WRONG] * 3, push=one_by_one("1h"))
    first = books.destination(old)
    for _ in range(9):
        accept(books, first, payload())
    await eventually(lambda: first.status()["paused"])
    new = Scripted(push=FAST)
    await first.hand_over(books.destination(new), 1)
    await eventually(lambda: new.items == 6)
    await finish(books)
    assert books.terms() == {"accepted": 9, "delivered": 6, "dropped_rejected": 3}


@pytest.mark.parametrize("waits", [False, True])
async def test_what_is_handed_over_is_cut_to_what_the_successor_takes(waits):
    push = {"sending_queue": {"wait_for_result": waits, "batch": {"flush_timeout": "0s"}}}
    books, smaller = Books(), Scripted(push=push)
    smaller.largest = 3000
    old, new = books.destination(Scripted(push=push)), books.destination(smaller)
    old.exporter.gate = asyncio.Event()
    large = traces(*(span("x" * 900) for _ in range(8))).SerializeToString()
    outcome = accept(books, old, Payload(Signal.TRACES, large, 8, asyncio.get_running_loop().time()))
    await eventually(lambda: old.exporter.most_at_once)
    await old.hand_over(new, 0)
    await eventually(lambda: smaller.items == 8)
    assert [len(each.data) <= 3000 for each in smaller.sent] == [True] * len(smaller.sent)
    if waits:
        async with asyncio.timeout(5):
            await outcome.future
    await finish(books)
    assert books.terms() == {"accepted": 8, "delivered": 8}


async def test_the_end_does_not_wait_for_a_record_whose_client_has_left():
    push = {**FAST, "retry_on_failure": {"initial_interval": "100ms"}}
    books, exporter = Books(), Scripted(Retryable("503"), push={**push, "sending_queue": {"wait_for_result": True}})
    destination = books.destination(exporter)
    outcome = accept(books, destination, payload())
    await eventually(lambda: len(destination.queue))
    outcome.future.cancel()
    async with asyncio.timeout(3):
        await destination.drain(60)
    await destination.stop()
    assert books.terms() == {"accepted": 1, "dropped_withdrawn": 1}


@pytest.mark.parametrize("ends", [False, True])
async def test_what_was_under_way_is_not_lost_when_the_successor_is_replaced_or_gone_meanwhile(ends):
    books = Books()
    old, middle, new = [books.destination(Scripted(push=FAST)) for _ in range(3)]
    old.exporter.gate = asyncio.Event()
    accept(books, old, payload())
    await eventually(lambda: old.exporter.most_at_once)
    leaving = asyncio.ensure_future(old.hand_over(middle, 0.1))
    await eventually(lambda: old._runner is None)
    await (middle.stop() if ends else middle.hand_over(new, 0))
    await leaving
    await new.drain(5)
    assert books.terms() == {"accepted": 1, "dropped_shutdown" if ends else "delivered": 1}
    await finish(books)


class Cancelled(Scripted):
    """Says of a cancelled send what clients may say: that it failed."""

    async def send(self, payload):
        try:
            return await super().send(payload)
        except asyncio.CancelledError:
            raise self.script.pop() from None


@pytest.mark.parametrize("error", [Retryable("cancelled"), Oversized("cancelled")])
async def test_a_send_that_fails_while_it_is_cancelled_is_handed_over_once(error):
    books = Books()
    old, new = books.destination(Cancelled(push=FAST)), books.destination(Scripted(push=FAST))
    old.exporter.gate = asyncio.Event()
    accept(books, old, payload(2))
    await eventually(lambda: old.exporter.most_at_once)
    old.exporter.script.append(error)
    await old.hand_over(new, 0)
    await new.drain(5)
    assert new.exporter.items == 2
    assert books.terms() == {"accepted": 2, "delivered": 2}
    await finish(books)
