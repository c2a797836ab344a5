"""pipeline.chain: processors in a row, failing closed."""

import asyncio
import logging

import pytest

from collector.component import Processor
from collector.errors import Refused
from collector.meters import Meters
from collector.model import Signal
from collector.pipeline.chain import Chain, order
from tests.pipeline.parts import Counting, Failing, Halving, Holding
from tests.support import batch, settings, span, traces


def chain(*classes):
    made = [cls(None, settings(cls.__name__.lower())) for cls in classes]
    return Chain(Signal.TRACES, made, Meters(), logging.getLogger("collector.test"))


def test_what_counts_everything_runs_before_the_first_sampler_whatever_the_order():
    """R-206."""
    made = [cls(None, settings()) for cls in (Holding, Halving, Failing, Counting)]
    assert [type(p) for p in order(made)] == [Holding, Counting, Halving, Failing]
    made = [cls(None, settings()) for cls in (Failing, Counting)]
    assert [type(p) for p in order(made)] == [Failing, Counting]


def test_a_processor_that_raises_drops_its_batch_counted_and_logs_no_payload(caplog):
    """R-310."""
    row = chain(Counting, Failing)
    assert row.run(batch(traces(span(), span())), 2, 0.0) == (None, 0)
    assert row.processors[1].settings.drop == {(Signal.TRACES, "processor_error"): 2}
    assert "4111" not in caplog.text
    assert caplog.records[0].processor == "failing"
    assert caplog.records[0].place.startswith("parts.py:")


def test_nothing_goes_on_when_nothing_is_left():
    class Emptying(Processor):
        def process(self, batch, now):
            return batch.replace([])

    row = chain(Emptying, Failing)
    assert row.run(batch(traces(span())), 1, 0.0) == (None, 0)


def test_a_refusal_reaches_the_client():
    class Full(Processor):
        def process(self, batch, now):
            raise Refused("full")

    with pytest.raises(Refused):
        chain(Full).run(batch(traces(span())), 1, 0.0)


def test_what_is_released_passes_the_rest_of_the_chain_only():
    row = chain(Halving, Holding, Halving)
    assert row.run(batch(traces(*(span() for _ in range(8)))), 8, 0.0) == (None, 0)
    assert row.held() == 4
    assert list(row.released(0.0)) == []
    row.processors[1].release = True
    assert [count for _, count in row.released(1.0)] == [2]
    assert row.held() == 0


def test_a_drain_leaves_out_what_works_on_elsewhere():
    row = chain(Holding)
    row.run(batch(traces(span())), 1, 0.0)
    assert list(row.released(0.0, drain=True, keep=row.processors)) == []
    assert [count for _, count in row.released(0.0, drain=True)] == [1]


def test_a_tick_that_raises_is_counted_and_does_not_stop_the_others():
    class Broken(Holding):
        def tick(self, now):
            self.batches.clear()
            raise RuntimeError

    row = chain(Broken, Holding)
    row.run(batch(traces(span(), span())), 2, 0.0)
    row.processors[1].process(batch(traces(span())), 0.0)
    row.processors[1].release = True
    assert [count for _, count in row.released(0.0)] == [1]
    assert row.processors[0].settings.drop == {(Signal.TRACES, "processor_error"): 2}


def test_items_in_and_out_are_counted_for_each_processor():
    """R-564 (partly)."""
    meters = Meters()
    made = [cls(None, settings(cls.__name__.lower())) for cls in (Counting, Halving)]
    Chain(Signal.TRACES, made, meters, logging.getLogger()).run(batch(traces(span(), span())), 2, 0.0)
    labels = ("processor", "otel_signal")
    assert meters.counter("otelcol_processor_incoming_items", "", labels).value("halving", "traces") == 2
    assert meters.counter("otelcol_processor_outgoing_items", "", labels).value("halving", "traces") == 1


class Watching(Processor):
    """Remembers what left the chain."""

    def __init__(self, config, settings):
        super().__init__(config, settings)
        self.seen = []

    def process(self, batch, now):
        return batch

    def kept(self, batch):
        self.seen.append(batch.count())


def test_a_processor_that_wants_it_is_shown_what_leaves_the_whole_chain_and_nothing_else():
    row = chain(Watching, Halving, Counting)
    out, _ = row.run(batch(traces(*(span() for _ in range(8)))), 8, 0.0)
    assert row.processors[0].seen == [4] == [out.count()]
    row = chain(Watching, Failing)
    assert row.run(batch(traces(span())), 1, 0.0) == (None, 0)
    assert row.processors[0].seen == []


def test_what_is_released_later_is_shown_when_it_leaves():
    row = chain(Watching, Holding, Halving)
    row.run(batch(traces(*(span() for _ in range(4)))), 4, 0.0)
    assert row.processors[0].seen == []
    row.processors[1].release = True
    assert [count for _, count in row.released(1.0)] == [2]
    assert row.processors[0].seen == [2]
    row.run(batch(traces(*(span() for _ in range(6)))), 6, 2.0)
    assert [count for _, count in row.released(3.0, drain=True)] == [3]
    assert row.processors[0].seen == [2, 3]


def test_a_defect_in_looking_at_what_was_kept_costs_no_data_and_is_logged(caplog):
    class Blind(Watching):
        def kept(self, batch):
            raise RuntimeError("4111")

    row = chain(Blind, Watching)
    assert row.run(batch(traces(span(), span())), 2, 0.0)[1] == 2
    assert row.processors[1].seen == [2]
    assert [(r.message, r.processor, r.error) for r in caplog.records] == [
        ("processor failed on what was kept", "blind", "RuntimeError")
    ]
    assert "4111" not in caplog.text


def test_what_is_released_and_dropped_by_the_rest_of_the_chain_goes_nowhere():
    row = chain(Holding, Failing)
    row.run(batch(traces(span())), 1, 0.0)
    assert list(row.released(0.0, drain=True)) == []
    assert row.processors[1].settings.drop == {(Signal.TRACES, "processor_error"): 1}


def test_asyncio_is_not_needed():
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    assert chain(Counting).run(batch(traces(span())), 1, 0.0)[1] == 1


def test_where_nothing_ran_no_processor_is_blamed(caplog):
    chain().unusable(ValueError())
    assert caplog.records == []
