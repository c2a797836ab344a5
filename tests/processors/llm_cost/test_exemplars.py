"""llm_cost.exemplars: buckets lead to traces that were kept, through a real sampler in a real chain."""

import logging
import re
from itertools import count

import pytest
from google.protobuf.message import DecodeError
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from collector.component import Settings
from collector.exporters.prometheus import Prometheus
from collector.exporters.prometheus.exposition import OPENMETRICS, PROTOBUF, TEXT, Format
from collector.model import Signal
from collector.otlp.request import open_request
from collector.pipeline.chain import Chain
from collector.processors.llm_cost import exemplars
from collector.processors.tail_sampling import TailSampling
from collector.service.telemetry import exposition
from tests.processors.llm_cost.calls import NOW, call, made, raw
from tests.support import Drops, FakeHost, batch, build, traces

LATENCY, COST, TTFT = "llm_latency_seconds", "llm_cost_per_request_usd", "llm_time_to_first_token_seconds"
SLOW = {"name": "slow", "type": "latency", "latency": {"threshold_ms": 5000}}
ERRORS = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}


class Row:
    """llm_cost, and a sampler where policies are given, in a chain; time passes by the second."""

    def __init__(self, *policies):
        self.llm_cost = made()
        self.meters = self.llm_cost.settings.meters
        sampler = [build(TailSampling, {"policies": list(policies), "decision_wait": "5s"})] if policies else []
        self.chain = Chain(Signal.TRACES, [self.llm_cost, *sampler], self.meters, logging.getLogger("collector.test"))
        self.now = NOW

    def take(self, *spans, after=1.0):
        self.now += after
        request = batch(traces(*spans))
        return self.chain.run(request, request.count(), self.now)[1]

    def release(self, after):
        self.now += after
        return sum(left for _, left in self.chain.released(self.now))

    def shown(self, family=LATENCY):
        """Upper bound -> exemplar."""
        samples = [s for f in self.meters.derived.collect() if f.name == family for s in f.samples]
        return {s.labels["le"]: s.exemplar for s in samples if s.exemplar is not None}

    def traces(self, family=LATENCY):
        return {le: bytes.fromhex(exemplar.labels["trace_id"]) for le, exemplar in self.shown(family).items()}

    def waiting(self):
        self.meters.settle()
        return self.llm_cost._accounting.counters.exemplars._waiting


_ids = count(1)


def trace():
    return next(_ids).to_bytes(16, "big")


def test_a_bucket_leads_to_a_trace_that_the_sampler_kept_never_to_one_that_it_dropped():
    """R-109 (partly)."""
    row, kept, dropped = Row(ERRORS), trace(), trace()
    asked, answered = call(trace=kept, duration=0.3), raw({}, trace=kept, error=True)
    assert row.take(call(trace=dropped, duration=0.3, more={"gen_ai.server.time_to_first_token": 0.02}), asked, answered) == 2
    assert row.traces() == {}  # the candidate of this bucket is the one that was dropped
    assert dropped in row.waiting()
    assert row.take(call(trace=kept, duration=0.2, more={"gen_ai.server.time_to_first_token": 0.03})) == 1
    assert row.traces() == {"0.5": kept}
    assert row.traces(COST) == {"0.005": kept}
    assert row.traces(TTFT) == {"0.05": kept}
    assert row.release(6) == 0
    assert dropped in row.waiting()
    assert row.traces() == {"0.5": kept}


def test_the_last_confirmed_trace_is_shown_until_another_one_is_known_to_be_kept():
    """R-109 (partly)."""
    row, first, second, third = Row(ERRORS), trace(), trace(), trace()
    row.take(call(trace=first), raw({}, trace=first, error=True))
    assert row.traces() == {"0.1": first}
    assert row.take(call(trace=second), after=20) == 0
    assert row.take(call(trace=third)) == 0
    assert row.traces() == {"0.1": first}
    assert row.take(raw({}, trace=second, error=True)) == 2  # the held call goes on together with the error
    assert row.traces() == {"0.1": second}
    assert row.release(60) == 0
    assert row.traces() == {"0.1": second}


def test_a_trace_that_the_sampler_keeps_when_its_time_is_over_is_shown_then():
    """R-109 (partly)."""
    row, kept = Row({"name": "all", "type": "latency", "latency": {"threshold_ms": 1, "upper_threshold_ms": 60000}}), trace()
    assert row.take(call(trace=kept)) == 0
    assert (row.traces(), row.release(3)) == ({}, 0)
    assert row.release(3) == 1
    assert row.traces() == {"0.1": kept}
    assert row.waiting() == {}


def test_without_a_sampler_every_trace_is_kept():
    """R-109 (partly)."""
    row, kept = Row(), trace()
    assert row.take(call(trace=kept)) == 1
    assert row.traces() == {"0.1": kept}


def test_an_exemplar_has_the_calls_own_value_and_the_time_of_its_end():
    row, kept = Row(), trace()
    start = int((NOW - 10) * 1e9)
    row.take(call(trace=kept, start=start, duration=1.5, more={"gen_ai.usage.cost": 0.04}))
    latency, cost = row.shown()["2.0"], row.shown(COST)["0.05"]
    assert (latency.value, cost.value) == (1.5, 0.04)
    assert latency.labels == cost.labels == {"trace_id": kept.hex()}
    assert latency.timestamp == cost.timestamp == NOW - 8.5


def test_the_time_of_an_exemplar_is_never_ahead_of_the_clock():
    row = Row()
    row.take(call(trace=trace(), start=int((NOW + 500) * 1e9), duration=40))
    assert row.shown()["60.0"].timestamp <= row.now


def test_the_largest_value_of_a_batch_stands_for_its_bucket():
    row, slowest = Row(), trace()
    row.take(call(), call())  # from the third of its kind on calls are counted together
    row.take(call(trace=trace(), duration=6), call(trace=slowest, duration=9), call(trace=trace(), duration=7))
    assert (row.traces()["10.0"], row.shown()["10.0"].value) == (slowest, 9.0)


def test_a_bucket_takes_a_candidate_each_second_and_after_a_kept_one_every_15_seconds():
    row, ids = Row(SLOW), [trace() for _ in range(3)]
    row.take(call(trace=ids[0]))
    row.take(call(trace=ids[1]), after=0.5)
    row.take(call(trace=ids[2]), after=0.5)
    assert list(row.waiting()) == [ids[0], ids[2]]
    row, ids = Row(), [trace() for _ in range(3)]
    row.take(call(trace=ids[0]))
    row.take(call(trace=ids[1]), after=14.9)
    assert row.traces() == {"0.1": ids[0]}
    row.take(call(trace=ids[2]), after=0.1)
    assert row.traces() == {"0.1": ids[2]}


def test_an_id_that_is_no_trace_id_is_never_shown():
    row = Row()
    row.take(call(trace=bytes(16)), call(trace=b"short", duration=0.09), after=1)
    assert (row.traces(), row.waiting()) == ({}, {})
    kept = trace()
    row.take(call(trace=kept), after=0.1)
    assert row.traces() == {"0.1": kept}


def test_ids_are_known_from_the_receiver_or_from_the_spans_in_whatever_order_they_are_written():
    row = Row()
    first, second, third = trace(), trace(), trace()
    opened = open_request(Signal.TRACES, traces(call(trace=first)).SerializeToString()).batch
    row.chain.run(opened, 1, NOW)
    assert row.traces() == {"0.1": first}
    mixed = batch(traces(call(trace=second), raw({}, trace=third)))
    scope = mixed.groups[0].scopes[0]
    scope.items[0] = scope.items[0][18:] + scope.items[0][:18]
    row.chain.run(mixed, 2, NOW + 60)
    assert row.traces() == {"0.1": second}
    known = batch(traces(call(trace=third)))
    known.groups[0].scopes[0].trace_ids = [third]
    row.chain.run(known, 1, NOW + 120)
    assert row.traces() == {"0.1": third}


def test_candidates_that_nobody_keeps_are_bounded_also_within_one_endless_trace(monkeypatch):
    monkeypatch.setattr(exemplars, "_MOST", 10)
    row = Row(SLOW)
    oldest = trace()
    row.take(call(trace=oldest))
    for _ in range(10):
        row.take(call(trace=trace()))
    assert oldest not in row.waiting()
    assert sum(map(len, row.waiting().values())) == row.llm_cost._accounting.counters.exemplars._size <= 10
    row = Row(SLOW)
    for _ in range(50):
        row.take(call(trace=oldest))
    assert {trace_id: len(buckets) for trace_id, buckets in row.waiting().items()} == {oldest: 2}
    assert row.llm_cost._accounting.counters.exemplars._size == 2


def test_exemplars_are_shown_under_openmetrics_on_both_pages_and_the_text_format_stays_without():
    """R-109 (partly)."""
    row, kept = Row(), trace()
    row.take(call(trace=kept, duration=0.3))
    line = re.compile(
        r'llm_latency_seconds_bucket\{[^}]*le="0.5"[^}]*\} 1.0 # \{trace_id="' + kept.hex() + r'"\} 0.3 \d{10}\.\d+\n'
    )
    wanted = "application/openmetrics-text; version=1.0.0"
    config = Prometheus.Config.model_validate({"endpoint": "localhost:0"})
    exporter = Prometheus(config, Settings("prometheus", row.meters, logging.getLogger("collector.test"), FakeHost(), Drops()))
    pages = {
        "own": [exposition(row.meters, accept, own=True)[0].decode() for accept in (wanted, "text/plain")],
        "exporter": [exporter.exposition(Format(kind)).decode() for kind in (OPENMETRICS, TEXT)],
        "client": [openmetrics(row.meters.derived).decode(), generate_latest(row.meters.derived).decode()],
    }
    for page, (rich, plain) in pages.items():
        assert line.search(rich), page
        assert 'le="0.5"' in plain, page
        assert kept.hex() not in plain, page
    assert kept.hex().encode() in exporter.exposition(Format(PROTOBUF))


def test_while_no_call_waits_nothing_is_read_of_what_leaves():
    row = Row()
    leaving = batch(traces(raw({})))
    leaving.groups[0].scopes[0].items[0] = b"\xff"
    row.llm_cost.kept(leaving)
    row.take(call(trace=trace()))
    with pytest.raises(DecodeError):
        row.llm_cost.kept(leaving)
