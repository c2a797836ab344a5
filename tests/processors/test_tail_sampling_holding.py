"""Holding request by request means the same as a plain dictionary of traces would, and stays cheap and bounded in bad cases."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.model import Signal, open_envelope
from collector.otlp.request import open_request
from collector.processors.tail_sampling import TailSampling
from collector.processors.tail_sampling import chunk as chunks
from collector.processors.tail_sampling.evidence import Slice, widened
from collector.processors.tail_sampling.rules import UNDECIDED
from tests.support import batch, build, span, spans_of, traces

ERRORS = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
TENTH = {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}}
ALL = {"name": "all", "type": "always_sample"}
GOLD = {"type": "string_attribute", "name": "gold", "string_attribute": {"key": "kind", "values": ["gold"]}}
HEALTH = {"type": "string_attribute", "name": "health", "string_attribute": {"key": "kind", "values": ["health"]}}
NOT_HEALTH = {**HEALTH, "string_attribute": {**HEALTH["string_attribute"], "invert_match": True}}
VETO = {"name": "veto", "type": "drop", "drop": {"drop_sub_policy": [HEALTH]}}
SLOW = {"name": "slow", "type": "latency", "latency": {"threshold_ms": 1000}}
BAND = {"name": "band", "type": "latency", "latency": {"threshold_ms": 300, "upper_threshold_ms": 1200}}
NONE = {"name": "none", "type": "probabilistic", "probabilistic": {"sampling_percentage": 0}}
_dice = random.Random(11)


@dataclass
class Waiting:
    """One trace of the model."""

    since: float
    bits: int = 0
    times: tuple[int, int] = (0, 0)
    spans: list[tuple[str, str, bytes]] = field(default_factory=list)


class Model:
    """What the sampler means, trace by trace: bits and verdicts as in the sampler, everything held in one dictionary."""

    def __init__(self, config):
        self.rules = build(TailSampling, config)
        self.wait, self.limit = self.rules.config.decision_wait, self.rules.config.num_traces
        self.waiting: dict[bytes, Waiting] = {}
        self.sampled: set[bytes] = set()
        self.refused: dict[bytes, int] = {}
        self.drop: Counter[str] = Counter()
        self.early = 0

    def process(self, request, now):
        """Spans that go on, as (resource, scope, span)."""
        out, fresh = [], {}
        for resource, scope, item in _flat(request):
            trace = item[2:18]
            if trace in self.sampled:
                out.append((resource, scope, item))
            else:
                fresh.setdefault(trace, []).append((resource, scope, item))
        known = {trace: self._bits(request, trace) for trace in fresh}
        for trace, spans in fresh.items():
            out += self._judge(trace, spans, known[trace], now)
        return out + self.tick(now)

    def _bits(self, request, trace):
        """All bits and times of a trace that is not sampled."""
        evidence = self.rules._evidence
        known = self.waiting.get(trace, Waiting(0.0, self.refused.get(trace, 0)))
        slices = [Slice(group.header, scope) for group in request.groups for scope in group.scopes]
        bits = self._of(trace)
        if all(self.rules._so_far[self._of(t)] is not UNDECIDED for s in slices for t in s.ids):
            return bits, known.times
        times = known.times
        if self.rules._so_far[bits] is UNDECIDED and evidence.timed:
            times = widened(times, evidence.times(slices, {trace})[trace])
            bits |= evidence.lasting(*times)
        return bits | evidence.find(slices, {trace}).get(trace, 0), times

    def _of(self, trace):
        known = self.waiting[trace].bits if trace in self.waiting else self.refused.get(trace, 0)
        return known | self.rules._evidence.look.at(([trace],), ())[0][trace]

    def _judge(self, trace, spans, known, now):
        bits, times = known
        verdict = self.rules._so_far[bits]
        if verdict is UNDECIDED and trace not in self.refused:
            held = self.waiting.setdefault(trace, Waiting(now))
            held.bits, held.times = bits, times
            held.spans += spans
            return []
        held = self.waiting.pop(trace, Waiting(now))
        return self._settle(trace, self.rules._at_end[bits], bits, [*spans, *held.spans], "sampled")

    def _settle(self, trace, verdict, bits, spans, reason):
        self.refused.pop(trace, None)
        if verdict.sampled:
            self.sampled.add(trace)
            return spans
        self.refused[trace] = bits
        self.drop[reason] += len(spans)
        return []

    def tick(self, now):
        """Spans of traces whose time has come, or for which there is no room."""
        out = []
        while self.waiting and not now - self.wait < next(iter(self.waiting.values())).since <= now + self.wait:
            out += self._oldest("sampled")
        while len(self.waiting) > self.limit:
            self.early += 1
            out += self._oldest("buffer_full")
        return out

    def _oldest(self, reason):
        trace = next(iter(self.waiting))
        held = self.waiting.pop(trace)
        return self._settle(trace, self.rules._at_end[held.bits], held.bits, held.spans, reason)

    def held(self):
        return sum(len(held.spans) for held in self.waiting.values())


def _flat(request):
    return [(g.header, s.header, i) for g in request.groups for s in g.scopes for i in s.items] if request is not None else []


def _by_trace(flat):
    """Each trace's spans in order, per resource and scope."""
    out = {}
    for resource, scope, item in flat:
        out.setdefault((item[2:18], resource, scope), []).append(item)
    return out


POLICIES = [
    [ERRORS, TENTH],
    [ERRORS, TENTH, VETO],
    [NOT_HEALTH, ERRORS],
    [ALL, VETO],
    [SLOW, TENTH],
    [BAND, GOLD],
    [{**GOLD, "name": "g"}, NONE, ERRORS],
]
IDS = [_dice.randbytes(16) for _ in range(40)]
KINDS = ["plain"] * 6 + ["error", "gold", "health"]


def _plan(dice):
    """Some requests, with the seconds between them: traces that come back, several resources and scopes."""
    ids = dice.choice((5, 15, 40))
    return [
        (
            [
                (dice.randrange(ids), dice.choice(KINDS), dice.randrange(1500), dice.randrange(3))
                for _ in range(dice.randrange(30))
            ],
            dice.choice((0.0, 0.01, 0.5, 1.5, 4.0, -1.0)),
        )
        for _ in range(12)
    ]


def _request(plan):
    parts = {}
    for trace, kind, duration, place in plan:
        values = {"kind": kind} if kind in ("gold", "health") else {}
        item = span(values=values, trace=IDS[trace], error=kind == "error", start=10**18, duration=duration / 1000)
        parts.setdefault(place, []).append(item)
    message = traces()
    for place, items in parts.items():
        message.MergeFrom(traces(*items, resource={"service.name": f"s{place // 2}"}, scope=f"scope{place}"))
    return message


@given(
    st.sampled_from(POLICIES),
    st.randoms(use_true_random=True),
    st.sampled_from([1, 3, 10, 50_000]),
    st.sampled_from([2, 8, 1024]),
    st.sampled_from([0.5, 3, 20]),
)
@settings(max_examples=100, deadline=None)
def test_holding_by_request_means_the_same_as_a_dictionary_of_traces(policies, dice, limit, chunk, wait):
    """R-204, R-209."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_CHUNK", chunk)
        config = {"policies": policies, "num_traces": limit, "decision_wait": f"{round(wait * 1000)}ms"}
        component, model, now, sent = build(TailSampling, config), Model(config), 100.0, 0
        for plan, step in _plan(dice):
            now += step
            request, other = batch(_request(plan)), batch(_request([]))
            other.groups = open_envelope(Signal.TRACES, request.raw).groups
            sent += len(plan)
            _same(component, model, component.process(request, now), model.process(other, now))
        for later in (now + wait / 2, now + 100):
            _same(component, model, component.tick(later), model.tick(later))
        assert component.held() == component._held.size == 0
        assert not component._held.traces
        assert not component._held._chunks


def _same(component, model, out, expected):
    assert _by_trace(_flat(out)) == _by_trace(expected)
    assert component.settings.drop == {(Signal.TRACES, reason): count for reason, count in model.drop.items() if count}
    assert component.held() == model.held()
    assert {t: (c.since, c.bits[t]) for t, c in component._held.traces.items()} == {
        t: (w.since, w.bits) for t, w in model.waiting.items()
    }
    early = component.settings.meters._made["otelcol_processor_tail_sampling_sampling_trace_dropped_too_early"]
    assert early.value() == model.early
    assert component._held.size == sum(map(_measured, component._held._chunks))
    assert component._held.spans == sum(chunk.spans for chunk in component._held._chunks)


def _measured(chunk):
    """What a chunk's size must be."""
    later = [piece for pieces in chunk._later.values() for piece in pieces]
    headers = {id(group): len(group) for _, group, _ in chunk._edges}
    places = len(chunk._ids) // 16
    live = [item for _, _, items in chunk.pieces(chunk.bits) for item in items]
    assert chunk.spans == len(live)
    first = len(b"".join(live)) - sum(len(item) for _, _, items in later for item in items)
    assert first <= len(chunk._block) <= 2 * first, "no more room is kept than twice what is needed"
    return (
        chunks.CHUNK_OVERHEAD
        + chunks.TRACE_OVERHEAD * len(chunk.bits)
        + chunks.TIMES_OVERHEAD * len(chunk.times)
        + chunks.SPAN_OVERHEAD * places
        + len(chunk._block)
        + sum(headers.values())
        + sum(len(scope) + chunks.EDGE_OVERHEAD for _, _, scope in chunk._edges)
        + sum(map(chunks._size, later))
    )


def test_an_id_is_not_mistaken_for_the_end_of_one_and_the_start_of_the_next():
    component = build(TailSampling, {"policies": [ERRORS]})
    first, second, across = b"a" * 8 + b"b" * 8, b"c" * 16, b"b" * 8 + b"c" * 8
    held = [span(trace=t) for t in (first, second, across, first, second)]
    assert component.process(batch(traces(*held)), 0.0) is None
    failed = span(trace=across, error=True)
    assert spans_of(component.process(batch(traces(failed)), 1.0)) == [failed, held[2]]
    assert component.held() == 4


def test_large_requests_are_held_in_parts():
    component = build(TailSampling, {"policies": [ERRORS]})
    ids = [_dice.randbytes(16) for _ in range(700)]
    spans = [span(trace=t) for t in ids * 4]
    assert component.process(batch(traces(*spans)), 0.0) is None
    assert [chunk.spans for chunk in component._held._chunks] == [468] * 5 + [460]
    failed = span(trace=ids[350], error=True)
    assert len(spans_of(component.process(batch(traces(failed)), 1.0))) == 5
    assert component.held() == 2796
    component.tick(5.0)
    assert component.held() == component._held.size == 0


@pytest.mark.parametrize("limit", [1, 10, 31, 64, 97, 99])
def test_for_want_of_room_at_most_a_32nd_more_is_judged_than_must_be(limit):
    """R-209."""
    component = build(TailSampling, {"policies": [ERRORS], "num_traces": limit})
    component.process(batch(traces(*(span(trace=_dice.randbytes(16)) for _ in range(100)))), 0.0)
    assert limit - limit // 32 <= component.held() <= limit
    assert component.settings.drop == {(Signal.TRACES, "buffer_full"): 100 - component.held()}


@pytest.mark.parametrize("policies", [[ERRORS, TENTH], [SLOW]])
@pytest.mark.parametrize(("spans", "each", "size"), [(1, 1, 0), (50, 1, 0), (50, 1, 1000), (60, 6, 0), (400, 4, 100)])
def test_the_size_is_what_requests_of_any_shape_take_in_memory(policies, spans, each, size):
    """R-209."""
    component = build(TailSampling, {"policies": policies})
    dice = random.Random(3)
    requests = []
    for _ in range(3000 // spans):
        ids = [dice.randbytes(16) for _ in range(spans // each)]
        requests.append(traces(*(span(values={"k": "v" * size}, trace=t, duration=0.1) for t in ids * each)).SerializeToString())
    component.process(batch(traces(span(trace=_dice.randbytes(16)))), 0.0)
    tracemalloc.start()
    for request in requests:
        component.process(open_request(Signal.TRACES, request).batch, 0.0)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert component.held() > 2000
    assert used <= component._held.size <= 2 * used, component._held.size / used
