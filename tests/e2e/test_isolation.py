"""One of two trace destinations fails: what the other one, the client and the counters notice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.load import Sink, Steady, corpus, send
from tests.e2e.pipelines import two_destinations
from tests.e2e.stack import LOOPBACK, Sidecar, wait_for

OUTAGE = 20.0


@pytest.fixture
def sinks() -> Iterator[tuple[Sink, Sink]]:
    both = Sink().start(), Sink().start()
    yield both
    for sink in both:
        sink.stop()


def run(start_sidecar: Start, sinks: tuple[Sink, Sink], **queues: dict[str, Any]) -> Sidecar:
    well, ill = sinks
    return start_sidecar(two_destinations({"well": f"{LOOPBACK}:{well.port}", "ill": f"{LOOPBACK}:{ill.port}"}, **queues))


def test_a_destination_that_is_down_for_20_seconds_disturbs_nobody_and_gets_everything_later(
    start_sidecar: Start, sinks: tuple[Sink, Sink]
) -> None:
    """R-104, R-111, R-113."""
    well, ill = sinks
    sidecar = run(start_sidecar, sinks)
    load = Steady(sidecar.grpc, 2_000)
    load.start()
    wait_for(lambda: well.arrived and ill.arrived, 10, "both destinations reached")
    ill.stop()
    down = time.monotonic()
    wait_for(lambda: time.monotonic() > down + OUTAGE, OUTAGE + 5, "the outage")
    up = time.monotonic()
    ill.start()
    wait_for(lambda: time.monotonic() > up + 5, 10, "five more seconds")
    load.finish()
    assert not load.refused
    wait_for(lambda: load.sent.keys() <= well.arrived.keys(), 10, "everything at the healthy destination")
    wait_for(lambda: load.sent.keys() <= ill.arrived.keys(), 60, "everything at the destination that was down")
    during = sorted(well.arrived[key] - sent for key, sent in load.sent.items() if down < sent < up)
    slowest = during[int(len(during) * 0.99)]
    print(f"{len(during)} spans during the outage, at the healthy destination after {slowest * 1e3:.0f} ms (p99)")
    assert len(during) >= 0.9 * 2_000 * OUTAGE, "the load itself fell behind"
    assert slowest < 2.0
    assert well.copies == 0
    for name in ("otlp_grpc/well", "otlp_grpc/ill"):
        wait_for(lambda name=name: sidecar.balance("traces", name)["queued"] == 0, 10, "empty queues")
        books = sidecar.balance("traces", name)
        print(name, books)
        assert books["accepted"] == books["delivered"] + books["dropped"] + books["queued"] == len(load.sent)
        assert books["dropped"] == 0


def test_a_destination_that_hangs_disturbs_nobody_and_gets_everything_later(
    start_sidecar: Start, sinks: tuple[Sink, Sink]
) -> None:
    """R-104, R-112 (partly), R-113."""
    well, ill = sinks
    sidecar = run(start_sidecar, sinks)
    load = Steady(sidecar.grpc, 1_000)
    ill.answering.clear()
    load.start()
    wait_for(lambda: len(load.sent) >= 8_000, 15, "eight seconds of load")
    load.finish()
    assert not load.refused
    wait_for(lambda: load.sent.keys() <= well.arrived.keys(), 5, "everything at the healthy destination")
    late = sorted(well.arrived[key] - sent for key, sent in load.sent.items())
    assert late[int(len(late) * 0.99)] < 2.0
    assert sorted(load.acknowledged)[len(load.acknowledged) // 2] < 0.05, "the client does not wait for a destination"
    ill.answering.set()
    wait_for(lambda: load.sent.keys() <= ill.arrived.keys(), 40, "everything at the destination that hung")
    wait_for(lambda: sidecar.balance("traces", "otlp_grpc/ill")["queued"] == 0, 10, "an empty queue")
    books = sidecar.balance("traces", "otlp_grpc/ill")
    assert books["accepted"] == books["delivered"] == len(load.sent)


def test_a_full_queue_gives_up_its_oldest_data_and_counts_it(start_sidecar: Start, sinks: tuple[Sink, Sink]) -> None:
    """R-104, R-111."""
    well, ill = sinks
    ill.stop()
    sent = corpus(3_000, 0, "overflow", seed=5, size=100)
    sidecar = run(start_sidecar, sinks, ill={"queue_size": 20})
    send(sidecar.grpc, sent.requests)
    wait_for(lambda: len(well.arrived) == sent.spans(), 20, "everything at the healthy destination")
    ill.start()
    wait_for(lambda: sidecar.balance("traces", "otlp_grpc/ill")["queued"] == 0, 30, "an empty queue")
    books = sidecar.balance("traces", "otlp_grpc/ill")
    full = sidecar.total(
        "collector_items_total", own=True, signal="traces", exporter="otlp_grpc/ill", state="dropped", reason="queue_full"
    )
    assert full > 0
    assert books["dropped"] == full
    assert books["accepted"] == sent.spans() == books["delivered"] + books["dropped"]
    assert books["delivered"] == len(ill.arrived)


def test_what_was_acknowledged_before_a_termination_is_delivered(start_sidecar: Start, sinks: tuple[Sink, Sink]) -> None:
    """R-113."""
    well, ill = sinks
    sent = corpus(2_000, 0, "drained", seed=6)
    waiting = {"batch": {"flush_timeout": "60s", "min_size": 1_000_000}}
    sidecar = run(start_sidecar, sinks, well=waiting, ill=waiting)
    send(sidecar.grpc, sent.requests)
    assert sidecar.stop() == 0
    assert len(well.arrived) == len(ill.arrived) == sent.spans()
