"""Every call counts once, however many spans tell of it."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.processors.llm_cost.dedup import Dedup, Generations
from tests.processors.llm_cost.calls import NOW, START, call, made, raw, sums, through
from tests.support import attribute

TRACE = b"t" * 16


def one(
    span_id: bytes,
    parent: bytes = b"",
    answer: str | None = None,
    op: str = "chat",
    start: int = START,
    duration: float = 0.1,
    **more,
):
    more = {"gen_ai.operation.name": op, "gen_ai.response.id": answer, **more}
    return call(more=more, span_id=span_id.ljust(8, b"_"), parent=parent and parent.ljust(8, b"_"), trace=TRACE, start=start,
                duration=duration)  # fmt: skip


def counted(processor) -> float:
    return sums(processor, "requests").get((), 0)


def kinds(processor) -> dict[str, float]:
    return sums(processor, "duplicates", 1)


def test_the_same_response_id_counts_once_across_traces() -> None:
    """R-423."""
    processor = made()
    first, second = through(
        processor, call(more={"gen_ai.response.id": "chatcmpl-1234"}), call(more={"gen_ai.response.id": "chatcmpl-1234"})
    )
    assert sums(processor, "cost", -1) == {"computed": pytest.approx(0.0045)}
    assert kinds(processor) == {"response_id": 1}
    marks = sorted(str(attribute(span, "llm.cost.rollup")) for span in (first, second))
    assert marks == ["None", "True"]
    assert sum(attribute(span, "llm.cost_usd") is not None for span in (first, second)) == 1


def test_two_attempts_with_two_ids_are_two_calls() -> None:
    processor = made()
    through(processor, one(b"a", b"p", "attempt-one"), one(b"b", b"p", "attempt-two"))
    assert counted(processor) == 2


def test_short_ids_mean_nothing() -> None:
    processor = made()
    through(processor, one(b"a", answer="1"), one(b"b", answer="1"))
    assert counted(processor) == 2


def test_a_resent_span_gets_its_attributes_again_and_is_not_counted() -> None:
    """R-423."""
    processor = made()
    span = one(b"a", answer="chatcmpl-1234")
    first, again = through(processor, span), through(processor, span)
    assert first == again
    assert counted(processor) == 1
    assert kinds(processor) == {"resent": 1}


def test_a_parent_that_sums_its_children_adds_nothing() -> None:
    """R-423."""
    processor = made()
    agent = one(b"r", op="invoke_agent", start=START - 10**9, duration=5)
    after = through(processor, agent, one(b"a", b"r", "chatcmpl-1111"), one(b"b", b"r", "chatcmpl-2222"))
    assert counted(processor) == 2
    assert kinds(processor) == {"rollup": 1}
    assert attribute(after[0], "llm.cost.rollup") is True
    assert attribute(after[0], "llm.cost_usd") is None


def test_a_skipped_sum_does_not_claim_the_response_id_that_it_repeats() -> None:
    processor = made()
    agent = one(b"agent", answer="chatcmpl-number-2", op="invoke_agent", duration=3.0)
    first = one(b"first", b"agent", answer="chatcmpl-number-1")
    last = one(b"last", b"agent", answer="chatcmpl-number-2", start=START + 10**9)
    for each in (first, agent, last):
        through(processor, each)
    assert counted(processor) == 2
    assert kinds(processor) == {"rollup": 1}
    through(processor, last)
    assert counted(processor) == 2


def test_usage_climbs_through_a_chain_in_between() -> None:
    processor = made()
    chain = raw({"openinference.span.kind": "CHAIN"}, span_id=b"c_______", parent=b"r_______", trace=TRACE, duration=2)
    agent = one(b"r", op="AGENT", start=START - 10**9, duration=5)
    through(processor, agent, chain, one(b"a", b"c", "chatcmpl-1111"))
    assert counted(processor) == 1


def test_the_only_carrier_of_usage_counts_although_it_is_an_agent() -> None:
    processor = made()
    through(processor, one(b"r", op="invoke_agent"))
    assert counted(processor) == 1


def test_a_wrapper_of_the_sdks_own_span_counts_once() -> None:
    processor = made()
    wrapper = one(b"w", answer="msg_12345678", start=START - 10**6, duration=0.3)
    through(processor, wrapper, one(b"s", b"w", "msg_12345678"))
    assert counted(processor) == 1
    assert kinds(processor) == {"response_id": 1}


def test_a_child_that_comes_after_its_counted_parent_is_late() -> None:
    processor = made()
    through(processor, one(b"w"))
    through(processor, one(b"s", b"w"))
    through(processor, one(b"u", b"w", "chatcmpl-9999"))
    assert counted(processor) == 1
    assert kinds(processor) == {"late_child": 2}


def test_a_failed_call_and_its_failed_wrapper_are_one_error() -> None:
    processor = made()
    failed = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None, "error.type": "RateLimitError"}
    spans = one(b"w", duration=1, **failed), one(b"s", b"w", **failed)
    through(processor, *spans)
    through(processor, *spans)
    assert sums(processor, "requests", -1) == {"error": 1}
    assert sums(processor, "rate_limited") == {(): 1}
    late = made()
    through(late, spans[0])
    through(late, spans[1])
    assert counted(late) == 1


@given(st.integers(1, 4), st.integers(0, 3), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_tree_counts_its_real_calls_in_any_order_and_however_often_it_is_sent(
    calls: int, depth: int, order: random.Random, split: bool
) -> None:
    """R-423."""
    spans = []
    for depth_now in range(depth):
        parent = b"w%d" % (depth_now - 1) if depth_now else b""
        spans.append(
            one(b"w%d" % depth_now, parent, op="invoke_agent", start=START - 10**8 * (10 - depth_now), duration=9 - depth_now)
        )
    leaf_parent = b"w%d" % (depth - 1) if depth else b""
    spans += [one(b"c%d" % n, leaf_parent, f"chatcmpl-{n:04}", start=START + n) for n in range(calls)]
    order.shuffle(spans)
    processor = made()
    if split:
        spans.sort(key=lambda s: s.end_time_unix_nano)
        for span in spans:
            through(processor, span)
    else:
        through(processor, *spans)
    through(processor, *spans)
    assert counted(processor) == calls
    assert sum(sums(processor, "cost", -1).values()) == pytest.approx(calls * 0.0045)


def test_a_second_hop_keeps_attributes_and_counts_the_same_amount() -> None:
    first, second = made(), made()
    agent = one(b"r", op="invoke_agent", start=START - 10**9, duration=5)
    once = through(first, agent, one(b"a", b"r", "chatcmpl-1111"))
    twice = through(second, *once)
    assert twice == once
    assert sums(second, "cost", -1) == pytest.approx(sums(first, "cost", -1))
    assert counted(second) == counted(first) == 1


def test_marks_are_forgotten_after_their_time_and_bounded() -> None:
    marks: Generations[int] = Generations(10, 100)
    marks.age(NOW)
    for key in range(1000):
        marks.mark(key, 1, NOW)
    assert len(marks) <= 100
    assert marks.evicted > 0
    assert marks.get(999) == 1
    assert marks.get(0) == 0
    for later in (11, 22):
        marks.age(NOW + later)
    assert len(marks) == 0


def test_early_forgetting_is_counted() -> None:
    processor = made(dedup={"ttl": "10m", "max_entries": 100})
    for n in range(300):
        through(processor, one(b"%d" % n, answer=f"chatcmpl-{n:05}"))
    assert sums(processor, "evicted")[()] > 0


def test_ids_older_than_the_ttl_count_again() -> None:
    dedup = Dedup(10, 100)
    seen = [dedup.usage(b"%d" % n, b"", ("openai", "chatcmpl-1"), False, NOW) for n in range(2)]
    assert seen == ["", "response_id"]
    for later in itertools.accumulate([11, 11]):
        dedup.age(NOW + later)
    assert dedup.usage(b"9", b"", ("openai", "chatcmpl-1"), False, NOW + 22) == ""


def test_spans_without_an_id_are_never_taken_for_each_other() -> None:
    dedup = Dedup(10, 100)
    assert [dedup.usage(TRACE, TRACE, None, False, NOW) for _ in range(2)] == ["", ""]
    assert [dedup.call(TRACE, TRACE, NOW) for _ in range(2)] == [True, True]
