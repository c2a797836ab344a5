"""What is kept, folded, refused and forgotten."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, Metric, SummaryDataPoint

from collector.exporters.prometheus import store as store_module
from collector.meters import OVERFLOW
from tests.exporters.prometheus.build import (
    API,
    DELTA,
    Under,
    bucket_point,
    exponential,
    exponential_point,
    gauge,
    histogram,
    point,
    summary,
    total,
)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 1 << 50), min_size=1, max_size=20))
async def test_delta_counters_become_their_exact_running_total(deltas: list[int]) -> None:
    """R-509."""
    under = Under()
    running = 0
    for number, delta in enumerate(deltas, 1):
        assert await under.send(total("calls", point(delta, time=number), temporality=DELTA)) == 0
        running += delta
        assert under.values("calls_total") == [float(running)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 1 << 40), min_size=3, max_size=3), min_size=1, max_size=8))
async def test_delta_histograms_become_their_exact_running_total(rows: list[list[int]]) -> None:
    """R-509."""
    under = Under()
    for number, row in enumerate(rows, 1):
        entry = bucket_point([1, 2], row, total=float(sum(row)), time_unix_nano=number)
        assert await under.send(histogram("took", entry, temporality=DELTA)) == 0
    columns = [sum(column) for column in zip(*rows, strict=True)]
    assert under.values("took_bucket") == [float(sum(columns[: i + 1])) for i in range(3)]
    assert under.values("took_sum") == [float(sum(columns))]


async def test_delta_exponential_histograms_of_different_scales_add_up() -> None:
    """R-509."""
    under = Under()
    await under.send(exponential("took", exponential_point(2, {0: 1, 7: 2}, time_unix_nano=1, sum=1.0), temporality=DELTA))
    await under.send(
        exponential("took", exponential_point(0, {0: 4, 3: 8}, zero=1, time_unix_nano=2, sum=2.0), temporality=DELTA)
    )
    assert under.values("took_count") == [16.0]
    assert under.values("took_sum") == [3.0]
    assert [value for _, value in under.samples()["took_bucket"]] == [1.0, 6.0, 8.0, 16.0, 16.0]


async def test_delta_up_down_sums_are_kept_as_a_gauge() -> None:
    under = Under()
    for number, delta in enumerate((5, -2, -1), 1):
        assert await under.send(total("inflight", point(delta, time=number), temporality=DELTA, monotonic=False)) == 0
    assert under.values("inflight") == [2.0]
    assert "# TYPE inflight gauge" in under.text()


async def test_a_delta_that_was_seen_already_is_not_counted_twice() -> None:
    under = Under()
    for time in (1, 2, 2, 1):
        await under.send(total("calls", point(10, time=time), temporality=DELTA))
    assert under.values("calls_total") == [20.0]
    assert under.rejected("out_of_order") == 2


async def test_a_cumulative_value_is_shown_as_it_was_sent_also_after_a_reset() -> None:
    """R-509."""
    under = Under()
    for time, value in ((1, 10), (2, 12), (3, 4)):
        await under.send(total("calls", point(value, time=time)))
        assert under.values("calls_total") == [float(value)]


async def test_an_older_cumulative_value_does_not_replace_a_newer_one() -> None:
    under = Under()
    await under.send(total("calls", point(12, time=5)))
    assert await under.send(total("calls", point(10, time=4))) == 0
    assert under.values("calls_total") == [12.0]


async def test_a_point_without_recorded_value_ends_its_series() -> None:
    under = Under()
    await under.send(gauge("load", point(1, {"cpu": "0"}), point(2, {"cpu": "1"})))
    await under.send(gauge("load", point(0, {"cpu": "0"}, flags=1), point(0, {"cpu": "9"}, flags=1)))
    assert under.samples()["load"] == [({"job": "api", "instance": "i-1", "cpu": "1"}, 2.0)]
    await under.send(gauge("load", point(0, {"cpu": "1"}, flags=1)), gauge("other", point(0, flags=1)))
    assert under.text() == ""
    assert not under.exporter.store.claims


async def test_every_series_names_job_and_instance_of_its_sender() -> None:
    """R-506."""
    under = Under()
    resource = {"service.namespace": "shop", "service.name": "api", "service.instance.id": "a", "host.name": "h1", "os": ""}
    await under.send(gauge("load", point(1)), resource=resource)
    assert under.samples() == {
        "load": [({"job": "shop/api", "instance": "a"}, 1.0)],
        "target_info": [({"job": "shop/api", "instance": "a", "host_name": "h1"}, 1.0)],
    }


async def test_resources_without_instance_id_do_not_overwrite_each_other() -> None:
    """R-506."""
    under = Under()
    for pid in (1, 2):
        await under.send(gauge("load", point(pid)), resource={"service.name": "api", "process.pid": pid})
    series = under.samples()["load"]
    assert [value for _, value in series] == [1.0, 2.0]
    assert len({labels["instance"] for labels, _ in series}) == 2
    again = Under()
    await again.send(gauge("load", point(1)), resource={"process.pid": 1, "service.name": "api"})
    assert again.samples()["load"][0][0] == series[0][0]  # stable, whatever the order of attributes


async def test_a_sender_without_name_is_an_unknown_service() -> None:
    under = Under()
    await under.send(gauge("load", point(1)), resource={})
    assert under.samples()["load"][0][0]["job"] == "unknown_service"
    assert "target_info" not in under.samples()


async def test_resources_of_the_same_job_and_instance_show_their_sum() -> None:
    under = Under()
    for pid, calls in ((1, 10), (2, 5)):
        resource = {**API, "process.pid": pid}
        await under.send(total("calls", point(calls, time=pid)), gauge("load", point(calls, time=pid)), resource=resource)
    assert under.values("calls_total") == [15.0]
    assert under.values("load") == [5.0]
    assert len(under.samples()["target_info"]) == 1


async def test_a_merged_counter_never_falls_when_one_of_its_senders_restarts_or_leaves() -> None:
    under = Under()

    async def send(pid: int, calls: int, time: int) -> float:
        await under.send(total("calls", point(calls, time=time)), resource={**API, "process.pid": pid})
        return under.values("calls_total")[0]

    assert await send(1, 10, 1) == 10
    assert await send(2, 5, 1) == 15
    assert await send(1, 3, 2) == 18  # restarted: 10 stay
    under.now += 200
    assert await send(2, 6, 3) == 19
    under.exporter.store.expire(under.now - 100)  # 1 has left
    assert under.values("calls_total") == [19.0]


async def test_a_merged_histogram_keeps_what_a_restarted_sender_had_counted() -> None:
    under = Under()
    for pid, counts, time in ((1, [2, 0], 1), (2, [1, 1], 1), (1, [1, 0], 2)):
        entry = bucket_point([1], counts, time_unix_nano=time)
        await under.send(histogram("took", entry), resource={**API, "process.pid": pid})
    assert under.values("took_bucket") == [4.0, 5.0]


async def test_a_gauge_of_two_senders_shows_the_one_that_is_left() -> None:
    under = Under()
    for pid in (1, 2):
        await under.send(gauge("load", point(pid, time=pid)), resource={**API, "process.pid": pid})
        under.now += 200
    under.exporter.store.expire(1100)
    assert under.values("load") == [2.0]


async def test_idle_series_expire_and_free_their_name() -> None:
    """R-509."""
    under = Under()
    await under.send(gauge("load", point(1, {"a": "x"}), point(2, {"b": "y"})))
    under.now += 200
    await under.send(gauge("load", point(2, {"b": "y"}, time=1)))
    under.exporter.store.expire(under.now - 100)
    assert under.values("load") == [2.0]
    assert set(under.exporter.store.families["load"].seen) == {"b"}
    under.now += 200
    under.exporter.store.expire(under.now - 100)
    assert under.text() == ""
    assert under.exporter.store.size == 0
    assert await under.send(total("load", point(1), monotonic=True)) == 0


async def test_scope_name_version_and_attributes_are_labels_of_every_series() -> None:
    under = Under()
    await under.send(gauge("load", point(1)), scope="lib")
    assert under.samples()["load"][0][0]["otel_scope_name"] == "lib"
    without = Under(without_scope_info=True)
    await without.send(gauge("load", point(1)), scope="lib")
    assert "otel_scope_name" not in without.samples()["load"][0][0]


async def test_an_attribute_named_like_a_label_of_ours_is_joined_to_it() -> None:
    under = Under()
    await under.send(gauge("load", point(1, {"job": "mine", "a.b": "1", "a_b": "2"})))
    assert under.samples()["load"] == [({"job": "api;mine", "instance": "i-1", "a_b": "1;2"}, 1.0)]


async def test_an_attribute_named_le_or_quantile_does_not_meet_the_buckets() -> None:
    under = Under()
    entry = SummaryDataPoint(count=1, sum=1.0)
    entry.attributes.extend(point(0, {"quantile": "x"}).attributes)
    entry.quantile_values.add(quantile=0.5, value=1.0)
    await under.send(histogram("took", bucket_point([1], [1, 0], values={"le": "x"})), summary("size", entry))
    found = under.samples()
    assert [(labels["le"], labels["key_le"]) for labels, _ in found["took_bucket"]] == [("1.0", "x"), ("+Inf", "x")]
    assert found["size"][0][0]["key_quantile"] == "x"


async def test_the_first_type_of_a_name_stays_and_the_other_is_counted() -> None:
    under = Under()
    await under.send(gauge("load", point(1)))
    assert await under.send(histogram("load", bucket_point([1], [1, 0]))) == 1
    assert await under.send(total("load", point(3), monotonic=False), gauge("took_sum", point(1))) == 0
    assert await under.send(histogram("took", bucket_point([1], [1, 0]))) == 1
    assert await under.send(gauge("target_info", point(1))) == 1
    assert under.values("load") == [3.0]
    assert (under.rejected("type_conflict"), under.rejected("name_conflict")) == (1, 2)


async def test_points_that_mean_nothing_are_refused_and_counted() -> None:
    under = Under()
    assert await under.send(total("calls", point(1), temporality=0)) == 1
    assert await under.send(total("calls", point(-1), temporality=DELTA)) == 1
    assert await under.send(gauge("日本", point(1))) == 1
    assert await under.send(Metric(name="nothing")) == 0
    reasons = {reason: under.rejected(reason) for reason in ("no_temporality", "malformed", "no_name")}
    assert reasons == {"no_temporality": 1, "malformed": 1, "no_name": 1}
    assert under.text() == ""


def test_bytes_that_are_no_metric_are_refused() -> None:
    under = Under()
    told: list[tuple[str, str]] = []
    store = under.exporter.store
    store.report(lambda label: None, lambda reason, name: told.append((reason, name)))
    origin = store.origin(store.target(b"", 1.0), b"")
    assert list(store.add(b"\xff", origin, 1.0)) == [False]
    broken = gauge("load").SerializeToString() + b"\x2a\x04\x0a\x02\xff\xff"
    assert list(store.add(broken, origin, 1.0)) == [False]
    assert told == [("malformed", ""), ("malformed", "load")]


async def test_values_of_a_label_beyond_99_share_the_overflow_series_and_sums_stay_exact() -> None:
    """R-504."""
    under = Under()
    await under.send(total("calls", *(point(n, {"user": f"u{n}", "ok": "y"}) for n in range(200))))
    series = under.samples()["calls_total"]
    assert len({labels["user"] for labels, _ in series}) == 99
    assert sum(value for _, value in series) == sum(range(200))
    assert [value for labels, value in series if labels["user"] == OVERFLOW] == [float(sum(range(98, 200)))]
    assert under.meters.counter("label_overflow", "", ("label",)).value("user") == 102
    await under.send(total("calls", *(point(n + 1, {"user": f"u{n}", "ok": "y"}, time=1) for n in range(200))))
    assert sum(under.values("calls_total")) == sum(range(200)) + 200


async def test_the_cap_of_label_values_is_a_setting() -> None:
    for limit, expected in ((2, 2), (0, 150)):
        under = Under(max_label_values=limit)
        await under.send(gauge("load", *(point(n, {"user": str(n)}) for n in range(150))))
        assert len(under.values("load")) == expected


async def test_job_and_instance_are_never_folded() -> None:
    under = Under()
    for n in range(120):
        await under.send(gauge("load", point(n)), resource={"service.name": "api", "service.instance.id": str(n)})
    assert len(under.values("load")) == 120


async def test_series_beyond_the_limit_of_a_metric_share_one_overflow_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-504."""
    monkeypatch.setattr(store_module, "MAX_SERIES", 5)
    under = Under()
    points = [point(1, {"user": str(n)}, time=1) for n in range(8)]
    assert await under.send(total("calls", *points, temporality=DELTA)) == 0
    assert under.values("calls_total") == [1.0] * 5 + [3.0]
    assert await under.send(total("calls", *(point(9, {"user": f"x{n}"}, time=2) for n in range(8)))) == 8
    assert under.rejected("series_limit") == 8
    assert under.meters.counter("label_overflow", "", ("label",)).value("__series__") == 3
    under.exporter.store.expire(under.now + 1)
    assert under.exporter.store.size == 0


async def test_resources_beyond_the_limit_are_shown_without_target_info(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_SERIES", 2)
    under = Under()
    for n in range(3):
        await under.send(gauge(f"load{n}", point(n)), resource={"service.name": str(n), "host": "h"})
    assert len(under.samples()["target_info"]) == 2
    assert under.values("load2") == [2.0]


async def test_the_state_never_outgrows_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_BYTES", 10_000)
    under = Under()
    refused = await under.send(*(gauge(f"load{n}", point(n)) for n in range(20)))
    assert refused == under.rejected("series_limit") > 0
    assert under.exporter.store.size < 14_000
    assert len(under.exporter.store.families) == 20 - refused


async def test_a_series_does_not_grow_beyond_the_bytes_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    under = Under()
    await under.send(histogram("took", bucket_point([], [1], time_unix_nano=1)))
    monkeypatch.setattr(store_module, "MAX_BYTES", 100)
    wide = bucket_point(list(range(50)), [1] * 51, time_unix_nano=2)
    assert await under.send(histogram("took", wide)) == 1
    assert await under.send(histogram("took", bucket_point([], [2], time_unix_nano=3))) == 0
    assert under.values("took_count") == [2.0]


async def test_resource_attributes_become_labels_where_the_user_asks_for_it() -> None:
    resource = {**API, "region": "eu", "host.name": "h"}
    chosen = Under(resource_constant_labels={"included": ["reg*", "host.*"], "excluded": ["host.name"]})
    await chosen.send(gauge("load", point(1, {"region": "mine"})), resource=resource)
    assert chosen.samples()["load"][0][0] == {"job": "api", "instance": "i-1", "region": "eu"}
    older = Under(resource_to_telemetry_conversion={"enabled": True, "exclude_service_attributes": True})
    await older.send(gauge("load", point(1)), resource=resource)
    assert older.samples()["load"][0][0] == {"job": "api", "instance": "i-1", "region": "eu", "host_name": "h"}
    everything = Under(resource_to_telemetry_conversion={"enabled": True})
    await everything.send(gauge("load", point(1)), resource=resource)
    assert everything.samples()["load"][0][0]["service_name"] == "api"


async def test_constant_labels_are_on_every_series() -> None:
    under = Under(const_labels={"team.name": "a"})
    await under.send(gauge("load", point(1)))
    assert under.samples()["load"][0][0]["team_name"] == "a"


def _mark(value: float, trace: int) -> Exemplar:
    return Exemplar(as_double=value, time_unix_nano=trace, trace_id=bytes([trace]) * 16, span_id=b"\2" * 8)


def _traces(under: Under) -> dict[str, list[str]]:
    """Sample -> first byte of the trace ids of its exemplars, as protobuf shows them."""
    found: dict[str, list[str]] = {}
    for line in under.openmetrics().splitlines():
        if " # {" in line:
            found.setdefault(line.split(" ")[0], []).append(re.findall(r'trace_id="(..)', line)[0])
    return found


async def test_exemplars_stay_until_newer_ones_come_or_the_count_starts_over() -> None:
    """R-501 (partly)."""
    under = Under()

    async def send(time: int, count: int, *marks: Exemplar) -> dict[str, list[str]]:
        calls = point(count, time=time)
        calls.exemplars.extend(marks)
        took = bucket_point([1, 2], [count, count, 0], time_unix_nano=time, exemplars=marks)
        await under.send(total("calls", calls), histogram("took", took))
        return {name.split("{")[0] + name[-6:-1]: traces for name, traces in _traces(under).items()}

    first = await send(1, 5, _mark(0.5, 1), _mark(1.5, 2))
    assert sorted(traces for traces in first.values()) == [["01"], ["02"], ["02"]]
    assert await send(2, 6) == first
    assert await send(3, 6) == first
    newer = await send(4, 7, _mark(1.2, 9))
    assert sorted(traces for traces in newer.values()) == [["01"], ["09"], ["09"]]
    assert await send(5, 1) == {}


async def test_exemplars_of_changed_bounds_and_of_exponential_histograms_are_kept_within_bounds() -> None:
    under = Under()
    await under.send(histogram("took", bucket_point([1, 2], [0, 1, 0], time_unix_nano=1, exemplars=[_mark(1.5, 3)])))
    await under.send(histogram("took", bucket_point([1, 1.2], [0, 0, 2], time_unix_nano=2)))
    assert [name for name in _traces(under) if "+Inf" in name] == list(_traces(under))
    for number in range(1, 15):
        entry = exponential_point(0, {0: number}, time_unix_nano=number, exemplars=[_mark(1.5, number)])
        await under.send(exponential("size", entry))
    value = next(iter(under.exporter.store.families["size"].sources.values())).value
    assert [exemplar.labels["trace_id"][:2] for exemplar in value.exemplars] == [f"{n:02x}" for n in range(5, 15)]
    await under.send(exponential("size", exponential_point(0, {0: 20}, time_unix_nano=20)))
    assert len(next(iter(under.exporter.store.families["size"].sources.values())).value.exemplars) == 10


async def test_summaries_are_replaced_as_they_are() -> None:
    under = Under()
    for time in (1, 2):
        await under.send(summary("old", SummaryDataPoint(count=time, sum=3.0, time_unix_nano=time)))
    assert under.values("old_count") == [2.0]
