"""meters: instruments that survive a reload and never explode."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Counter

from collector.meters import OVERFLOW, Instrument, Meters, show_exemplar


def test_the_same_name_is_the_same_instrument():
    meters = Meters()
    meters.counter("a", "text", ("x",)).add(1, "1")
    meters.counter("a", "text", ("x",)).add(2, "1")
    assert meters.counter("a", "text", ("x",)).value("1") == 3
    assert meters.find("a") is meters.counter("a", "text", ("x",))
    assert meters.find("b") is None


def test_a_label_has_at_most_99_values_and_sums_stay_exact():
    """R-504 (partly)."""
    meters = Meters()
    counter = meters.counter("calls", "text", ("model",), derived=True)
    for number in range(500):
        counter.add(1, f"m{number}")
    series = counter.series()
    shown = {sample.labels["model"] for family in meters.derived.collect() for sample in family.samples}
    assert len(shown) == 99
    assert OVERFLOW in shown
    total = sum(sample.value for family in meters.derived.collect() for sample in family.samples)
    assert total == 500
    assert sum(series.values()) == 500
    assert meters.find("label_overflow").value("model") == 402


def test_a_closed_label_set_has_no_cap():
    counter = Meters().counter("items", "text", ("reason",), cap=0)
    for number in range(150):
        counter.add(1, str(number))
    assert len(counter.series()) == 150


def test_gauges_and_histograms_hold_values():
    meters = Meters()
    meters.gauge("g", "text").set(5)
    meters.histogram("h", "text", ("x",), buckets=(1, 2)).observe(1.5, "a", exemplar={"trace_id": "1"})
    assert meters.gauge("g", "text").value() == 5
    assert meters.gauge("g", "text", ()).value("no such series") == 0
    (family,) = [f for f in meters.own.collect() if f.name == "h"]
    assert {s.labels.get("le"): s.value for s in family.samples if s.name == "h_bucket"} == {"1.0": 0, "2.0": 1, "+Inf": 1}


def test_own_and_derived_families_are_apart():
    meters = Meters()
    meters.counter("own", "text").touch()
    meters.counter("derived", "text", derived=True).touch()
    assert "own" not in {f.name for f in meters.derived.collect()}
    assert "derived" not in {f.name for f in meters.own.collect()}


def test_a_wrong_number_of_labels_is_a_bug_that_shows():
    with pytest.raises(ValueError, match="label values"):
        Meters().counter("a", "text", ("x",)).add(1)


def test_many_observations_at_once_are_the_same_as_one_by_one():
    def samples(many: bool) -> dict[tuple[str, str | None], float]:
        meters = Meters()
        histogram = meters.histogram("h", "text", ("x",), buckets=(1, 2))
        values = [0.5, 1, 1.5, 2, 2.5, 1e9, 0.1]
        if many:
            histogram.observe_many(values, "a")
        else:
            for value in values:
                histogram.observe(value, "a")
        return {(s.name, s.labels.get("le")): s.value for family in meters.own.collect() for s in family.samples}

    assert samples(many=True) == pytest.approx(samples(many=False), rel=1e-15)


def test_many_observations_have_an_exactly_rounded_sum_and_respect_the_cap():
    meters = Meters(cap=2)
    histogram = meters.histogram("h", "text", ("x",), buckets=(1,))
    histogram.observe_many([0.1] * 10, "a")
    histogram.observe_many([1e16, 1.0, -1e16], "b")
    histogram.observe_many([5.0], "c")
    histogram.observe_many([], "d")
    sums = {s.labels["x"]: s.value for family in meters.own.collect() for s in family.samples if s.name == "h_sum"}
    assert sums == {"a": 1.0, OVERFLOW: 6.0}


def test_many_observations_tell_which_buckets_they_fell_into_and_their_largest_value_there():
    meters = Meters()
    histogram = meters.histogram("h", "text", ("x",), buckets=(1, 2, 3))
    touched = histogram.observe_many([2.5, 0.5, 9.0, 1, 0.7], "a")
    assert [value for _, value in touched] == [1, 2.5, 9.0]
    for number, (bucket, value) in enumerate(touched):
        show_exemplar(bucket, bytes(15) + bytes([number]), value, 100.0)
    (family,) = [f for f in meters.own.collect() if f.name == "h"]
    shown = {s.labels["le"]: s.exemplar for s in family.samples if s.exemplar is not None}
    assert {le: (e.labels["trace_id"][-2:], e.value) for le, e in shown.items()} == {
        "1.0": ("00", 1), "3.0": ("01", 2.5), "+Inf": ("02", 9.0),
    }  # fmt: skip
    assert histogram.observe_many([], "a") == []


def test_an_exemplar_older_than_the_one_shown_changes_nothing():
    histogram = Meters().histogram("h", "text", buckets=(1,))
    ((bucket, _),) = histogram.observe_many([0.5])
    for trace, at in ((b"a", 100.0), (b"b", 101.0), (b"c", 100.5), (b"d", 101.0)):
        show_exemplar(bucket, trace * 16, 0.5, at)
    shown = bucket.get_exemplar()
    assert (shown.labels, shown.value, shown.timestamp) == ({"trace_id": (b"d" * 16).hex()}, 0.5, 101.0)


def test_an_instrument_that_nobody_watches_is_capped_too():
    counter = Instrument(Counter("alone", "text", ("x",), registry=CollectorRegistry()), ("x",), 2, None)
    for label in ("a", "b", "c"):
        counter.add(1, label)
    assert {labels: value for labels, value in counter.series().items() if value} == {("a",): 1, (OVERFLOW,): 2}


@pytest.mark.parametrize("read", [
    lambda meters, counter: counter.value(),
    lambda meters, counter: counter.series()[()],
    lambda meters, counter: meters.own.get_sample_value("calls_total"),
    lambda meters, counter: next(f.samples[0].value for f in meters.derived.collect() if f.name == "seen"),
])  # fmt: skip
def test_what_is_owed_is_booked_once_before_anybody_reads(read):
    meters = Meters()
    counter, seen = meters.counter("calls", "text"), meters.counter("seen", "text", derived=True)

    def book():
        counter.add(1)
        seen.add(1)

    meters.owe(book)
    meters.owe(book)
    assert (read(meters, counter), read(meters, counter)) == (2, 2)


def test_another_thread_books_nothing_while_the_one_that_owes_may_be_counting():
    meters = Meters()
    counter = meters.counter("calls", "text")
    meters.owe(lambda: counter.add(1))
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(counter.value).result() == 0
        meters.settle()
        assert thread.submit(counter.value).result() == 1


def test_what_cannot_be_booked_is_logged_and_costs_neither_the_others_nor_the_reader(caplog):
    meters = Meters()
    counter = meters.counter("calls", "text")

    def broken():
        raise ZeroDivisionError("4111 1111 1111 1111")

    for book in (broken, lambda: counter.add(1)):
        meters.owe(book)
    assert meters.own.get_sample_value("calls_total") == 1
    (record,) = caplog.records
    assert (record.error, record.owed_by.rpartition(".")[2]) == ("ZeroDivisionError", "broken")
    assert "4111" not in caplog.text
    assert counter.value() == 1
    assert len(caplog.records) == 1
