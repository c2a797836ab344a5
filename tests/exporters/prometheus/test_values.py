"""Adding up numbers, buckets and quantiles without losing a count."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, HistogramDataPoint, NumberDataPoint, SummaryDataPoint

from collector.exporters.prometheus import values
from collector.exporters.prometheus.values import (
    MAX_BUCKETS,
    MAX_COUNT,
    Buckets,
    Exponential,
    Number,
    Quantiles,
    Unusable,
    plus,
    upper,
)
from tests.exporters.prometheus.build import bucket_point, exponential_point, point
from tests.support import attributes

COUNTS = st.integers(0, 1 << 40)
SIDES = st.dictionaries(st.integers(-200, 200), st.integers(1, 1000), max_size=12)


def exponential(scale: int, positive: dict[int, int], negative: dict[int, int] | None = None, **options: object) -> Exponential:
    return values.exponential(exponential_point(scale, positive, negative, **options))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-(1 << 62), 1 << 62), min_size=1, max_size=20))
def test_integers_add_up_exactly(numbers: list[int]) -> None:
    """R-509."""
    out = Number(0)
    for number in numbers:
        out = out.plus(values.number(point(number)))
    assert out.value == sum(numbers)


def test_a_number_without_value_is_malformed() -> None:
    with pytest.raises(Unusable, match="malformed"):
        values.number(NumberDataPoint())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_delta_that_is_no_finite_number_is_malformed(value: float) -> None:
    with pytest.raises(Unusable, match="malformed"):
        values.number(point(value), finite=True)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(COUNTS, min_size=4, max_size=4), min_size=1, max_size=8))
def test_buckets_add_up_exactly(rows: list[list[int]]) -> None:
    """R-509."""
    parts = [values.buckets(bucket_point([0.5, 1, 10], row, total=float(sum(row)))) for row in rows]
    out = parts[0]
    for part in parts[1:]:
        out = out.plus(part)
    assert list(out.counts) == [sum(column) for column in zip(*rows, strict=True)]
    assert out.count == sum(map(sum, rows))
    assert out.total == sum(float(sum(row)) for row in rows)


def test_buckets_of_different_bounds_add_up_over_the_bounds_both_have() -> None:
    left = values.buckets(bucket_point([1, 2, 5], [1, 2, 3, 4]))
    right = values.buckets(bucket_point([2, 3, 5], [10, 20, 30, 40]))
    assert left.plus(right) == Buckets(110, 0.0, (2.0, 5.0), (13, 53, 44))


def test_a_sum_that_one_side_does_not_know_is_not_known() -> None:
    unknown = values.buckets(HistogramDataPoint(count=1, explicit_bounds=[1], bucket_counts=[1, 0]))
    assert unknown.total is None
    assert unknown.plus(values.buckets(bucket_point([1], [1, 0], total=2.0))).total is None


def test_a_histogram_without_buckets_is_one_bucket() -> None:
    assert values.buckets(HistogramDataPoint(count=3, sum=1.5)) == Buckets(3, 1.5, (), (3,))


def test_an_infinite_last_bound_joins_the_overflow_bucket() -> None:
    assert values.buckets(bucket_point([1, math.inf], [1, 2, 0])) == Buckets(3, 0.0, (1.0,), (1, 2))


@pytest.mark.parametrize(
    "broken",
    [
        HistogramDataPoint(count=1, explicit_bounds=[1], bucket_counts=[1]),
        HistogramDataPoint(count=1, explicit_bounds=[2, 1], bucket_counts=[1, 0, 0]),
        HistogramDataPoint(count=1, explicit_bounds=[1, math.nan], bucket_counts=[1, 0, 0]),
        HistogramDataPoint(count=1, explicit_bounds=[1], bucket_counts=[2, 0]),
        HistogramDataPoint(count=MAX_COUNT + 1),
    ],
)
def test_buckets_that_do_not_fit_their_count_are_malformed(broken: HistogramDataPoint) -> None:
    with pytest.raises(Unusable, match="malformed"):
        values.buckets(broken)


def test_too_many_buckets_are_refused() -> None:
    with pytest.raises(Unusable, match="too_many_buckets"):
        values.buckets(bucket_point(list(range(1025)), [0] * 1026))


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.integers(0, 5), st.integers(-3, 3), SIDES, SIDES)
def test_exponential_buckets_add_up_without_losing_a_count(
    positive: dict[int, int], negative: dict[int, int], zero: int, scale: int, more: dict[int, int], less: dict[int, int]
) -> None:
    """R-509."""
    left, right = exponential(scale, positive, negative, zero=zero, sum=1.5), exponential(1, more, less, sum=2.0)
    out = left.plus(right)
    assert out.scale <= min(scale, 1)
    assert out.total == 3.5
    assert out.count == left.count + right.count == out.zero_count + sum(out.positive.values()) + sum(out.negative.values())


@settings(deadline=None, max_examples=60)
@given(SIDES, st.integers(-2, 8), st.integers(1, 4))
def test_a_coarser_scale_keeps_every_count_in_a_bucket_that_holds_the_finer_one(
    side: dict[int, int], scale: int, step: int
) -> None:
    fine = exponential(scale, side)
    coarse = fine.coarser(scale - step)
    for index, count in side.items():
        above = index >> step
        assert coarse.positive[above] >= count
        assert upper(above - 1, coarse.scale) <= upper(index - 1, scale) * (1 + 1e-12)
        assert upper(index, scale) <= upper(above, coarse.scale) * (1 + 1e-12)
    assert sum(coarse.positive.values()) == sum(side.values())


def test_a_finer_scale_is_not_invented() -> None:
    value = exponential(2, {1: 1})
    assert value.coarser(5) is value


def test_the_wider_zero_bucket_takes_what_lies_in_it() -> None:
    wide = exponential(0, {3: 5}, zero=1, zero_threshold=3.0)
    narrow = exponential(0, {-1: 1, 0: 2, 1: 3, 4: 7}, {0: 4})
    out = wide.plus(narrow)
    assert out.zero_threshold == 4.0  # 3 lies inside (2, 4]: the zero bucket grows to its end
    assert out.zero_count == 1 + 1 + 2 + 3 + 4
    assert out.positive == {3: 5, 4: 7}
    assert out.negative == {}
    assert narrow.plus(wide) == out


def test_a_wider_zero_bucket_below_all_buckets_moves_nothing() -> None:
    out = exponential(0, {3: 5}).plus(exponential(0, {3: 1}, zero_threshold=0.5))
    assert (out.zero_threshold, out.zero_count, out.positive) == (0.5, 0, {3: 6})


def test_buckets_beyond_the_limit_are_joined() -> None:
    value = exponential(4, dict.fromkeys(range(1000), 1))
    assert len(value.positive) <= MAX_BUCKETS
    assert value.count == sum(value.positive.values()) == 1000
    assert value.scale == 2


@pytest.mark.parametrize(
    "options",
    [{"count": 5}, {"count": 1, "zero_threshold": -1.0}, {"count": 1, "zero_threshold": math.nan}, {"count": 1, "scale": 1000}],
)
def test_exponential_counts_that_do_not_add_up_are_malformed(options: dict[str, float]) -> None:
    broken = exponential_point(0, {0: 1})
    for name, value in options.items():
        setattr(broken, name, value)
    with pytest.raises(Unusable, match="malformed"):
        values.exponential(broken)


def test_exponential_buckets_become_explicit_ones_at_their_exact_bounds() -> None:
    out = exponential(0, {0: 3, 2: 4}, {1: 1, 0: 2}, zero=5, sum=9.0).classic()
    assert out == Buckets(15, 9.0, (-2.0, -1.0, 0.0, 2.0, 8.0), (1, 2, 5, 3, 4, 0))


def test_an_explicit_bound_beyond_all_floats_is_the_overflow_bucket() -> None:
    out = exponential(-10, {0: 3, 2: 4}).classic()
    assert (out.bounds, out.counts) == ((), (7,))


def test_quantiles_of_the_newer_summary_stand() -> None:
    first = SummaryDataPoint(count=2, sum=3.0)
    first.quantile_values.add(quantile=0.5, value=1.0)
    second = SummaryDataPoint(count=1, sum=0.5)
    for quantile, value in ((0.9, 4.0), (0.5, 2.0), (1.5, 9.0)):
        second.quantile_values.add(quantile=quantile, value=value)
    out = values.quantiles(first).plus(values.quantiles(second))
    assert out == Quantiles(3, 3.5, ((0.5, 2.0), (0.9, 4.0)))


def test_a_summary_beyond_all_counts_is_malformed() -> None:
    with pytest.raises(Unusable, match="malformed"):
        values.quantiles(SummaryDataPoint(count=MAX_COUNT + 1))


def test_a_sum_of_counts_that_fits_no_format_starts_over() -> None:
    full = Buckets(MAX_COUNT, 0.0, (), (MAX_COUNT,))
    one = Buckets(1, 0.0, (), (1,))
    assert plus(full, one) == one
    assert plus(one, one).count == 2  # type: ignore[union-attr]


def test_an_exemplar_names_trace_and_span_and_keeps_to_128_characters() -> None:
    entry = Exemplar(
        as_double=1.5,
        time_unix_nano=1_500_000_000,
        trace_id=b"\x01" * 16,
        span_id=b"\x02" * 8,
        filtered_attributes=attributes({"user.tier": "gold", "long": "x" * 100, "trace_id": "other", "日": "x"}),
    )
    out = values.exemplar(entry)
    assert out.labels == {"trace_id": "01" * 16, "span_id": "02" * 8, "user_tier": "gold"}
    assert (out.value, str(out.timestamp)) == (1.5, "1.500000000")
    assert values.exemplar(Exemplar(as_int=2)) == ({}, 2.0, None)


def test_an_exemplar_sits_in_the_bucket_of_its_value() -> None:
    entry = bucket_point([1, 2], [0, 1, 1], exemplars=[Exemplar(as_double=2.0), Exemplar(as_double=7.0)])
    out = values.buckets(entry)
    assert {index: found.value for index, found in out.exemplars.items()} == {1: 2.0, 2: 7.0}
    more = values.buckets(bucket_point([1, 2], [0, 1, 0], exemplars=[Exemplar(as_double=1.5)]))
    assert {index: found.value for index, found in out.plus(more).exemplars.items()} == {1: 1.5, 2: 7.0}
