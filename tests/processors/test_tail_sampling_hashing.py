"""The hash of tail_sampling's probabilistic policy: exact, alone and for many ids at once."""

from __future__ import annotations

import random
from decimal import Decimal, localcontext

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.processors.tail_sampling.hashing import DEFAULT_SALT, Look, Share, fnv1a, threshold, valid

pytestmark = pytest.mark.usefixtures("walker")
MAX = 2**64 - 1


@pytest.mark.parametrize(
    ("text", "value"), [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)]
)
def test_the_hash_gives_the_published_test_vectors(text, value):
    assert fnv1a(text) == value


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=40), st.floats(0, 100), st.text(max_size=3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_ids_at_once_are_judged_as_one_by_one(ids, percentage, salt):
    state, limit = fnv1a((salt or DEFAULT_SALT).encode()), threshold(percentage)
    assert Share(percentage, salt).pick(ids) == [trace_id for trace_id in ids if fnv1a(trace_id, state) <= limit]


@pytest.mark.parametrize("count", [15, 16, 17, 255, 256, 257, 600])
def test_the_hash_itself_is_the_last_that_a_threshold_takes_in(count, monkeypatch):
    ids = [random.Random(number).randbytes(16) for number in range(count)]
    share = Share(0)
    for last in (ids[0], ids[count // 2], ids[-1]):
        for limit in (fnv1a(last, share.state), fnv1a(last, share.state) - 1):
            monkeypatch.setattr(share, "threshold", limit)
            chosen = [trace_id for trace_id in ids if fnv1a(trace_id, share.state) <= limit]
            assert share.pick(ids) == chosen
            assert [t for t, bits in Look(0, [(share, 1)]).at((ids,), ())[0].items() if bits] == chosen


@given(st.lists(st.binary(max_size=20), min_size=4, max_size=20))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_of_other_lengths_are_hashed_too(ids):
    state, limit = fnv1a(DEFAULT_SALT.encode()), threshold(50)
    assert Share(50).pick(ids) == [trace_id for trace_id in ids if fnv1a(trace_id, state) <= limit]


@given(st.floats(0, 100))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_threshold_is_the_product_rounded_to_64_bits_and_cut(percentage):
    with localcontext() as context:
        context.prec = 2000
        product = Decimal(percentage / 100) * MAX
        if product:
            exponent = int(product).bit_length() if product >= 1 else 0
            while product < Decimal(2) ** (exponent - 1):
                exponent -= 1
            scale = Decimal(2) ** (64 - exponent)
            product = (product * scale).to_integral_value(rounding="ROUND_HALF_EVEN") / scale
        assert threshold(percentage) == int(product)


def test_the_borders_of_the_percentage():
    assert threshold(0) == threshold(-1) == 0
    assert threshold(100) == threshold(250) == MAX
    assert threshold(50) == 2**63 - 1


def test_salts_choose_different_traces_and_the_empty_one_is_the_default():
    ids = [random.Random(number).randbytes(16) for number in range(2000)]
    plain = Share(20).pick(ids)
    assert plain == Share(20, DEFAULT_SALT).pick(ids)
    assert plain != Share(20, "other").pick(ids)
    assert 300 <= len(plain) <= 500
    assert set(Share(10).pick(ids)) <= set(plain)


_ids = st.one_of(st.sampled_from([bytes(16), b"", b"short", b"x" * 17]), st.binary(min_size=16, max_size=16))


@given(
    st.lists(_ids, min_size=1, max_size=12).flatmap(
        lambda ids: st.tuples(
            st.lists(st.lists(st.sampled_from(ids), max_size=12), max_size=4),
            st.lists(st.dictionaries(st.sampled_from(ids), st.none()), max_size=5),
        )
    ),
    st.sampled_from([0, 1, 1 << 70]),
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 90)), max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_the_first_look_tells_new_ids_from_others_and_what_each_says_by_itself(ids_and_tables, always, shares):
    lists, tables = ids_and_tables
    rules = [(Share(percentage, str(bit)), 1 << bit) for percentage, bit in shares]
    new, seen = Look(always, rules).at(tuple(lists), tuple(tables))
    order = list(dict.fromkeys(trace_id for ids in lists for trace_id in ids))
    known = [t for t in order if not valid(t) or any(t in table for table in tables)]
    assert list(seen) == known
    assert list(new) == [t for t in order if t not in known]
    for trace_id, bits in (new | seen).items():
        expected = always
        for share, bit in rules:
            expected |= bit if fnv1a(trace_id, share.state) <= share.threshold else 0
        assert bits == expected
