"""The report says what the figures are, and which goals they miss."""

from __future__ import annotations

import json

from bench import __main__ as bench
from bench import report
from bench.measure import Result, Wrong
from bench.workloads import OTELCOL, OURS, ROTEL, WORKLOADS


def result(workload, program, cpu_us, **figures):
    usual = {"cores": 1.0, "items": 1, "rate": 1.0, "delivered": 1, "rss_idle": 70.0, "rss_peak": 90.0, "p50": 1.0, "p99": 2.0}
    return Result(workload=workload, program=program, cpu_us=cpu_us, **(usual | figures))


def test_the_median_of_the_rounds_counts_and_ratios_are_multiples_of_ours():
    figures = report.Figures([result("pass-512", OURS, cpu) for cpu in (1.0, 2.0, 9.0)] + [result("pass-512", ROTEL, 8.0)])
    assert figures.get("pass-512") == 2.0
    assert figures.ratio("pass-512", ROTEL) == 4.0
    assert figures.ratio("pass-512", OTELCOL) is None
    assert figures.get("pass-64") is None


def test_goals_are_met_missed_or_not_measured():
    results = [result("default-512", OURS, 2.0), result("default-512", OTELCOL, 40.0)]
    results += [result("pass-512", OURS, 2.0), result("pass-512", OTELCOL, 4.0)]
    made = report.claims(report.Figures(results), {"stall_ms": 200.0})
    by_text = {claim.text: claim for claim in made}
    assert by_text["default, 512 spans, full load: less CPU than otelcol"].met is True
    assert by_text["pass-through, 512 spans: less CPU than otelcol"].met is False
    assert by_text["longest stall with 20 requests of 64 MiB"].found == "200.0 ms"
    assert by_text["pass-through, 64 spans: less CPU than otelcol"].met is None
    text = report.claims_table(made)
    assert "| >= 15x | 20.0x | met |" in text
    assert "| >= 4x | 2.0x | **missed** |" in text


def test_cost_per_span_and_per_byte_leave_fixed_costs_out():
    results = [result("default-1", OURS, 100.0), result("default-64", OURS, (99 + 64 * 4) / 64)]
    figures = report.Figures([*results, result("default-512", OURS, (98 + 512 * 2) / 512)])
    costs = report.per_span(figures)
    assert round(costs[64], 1) == 4.0
    assert round(costs[512], 1) == 2.0
    assert round(report.spread(costs), 1) == 2.0
    assert report.spread({}) is None
    assert report.spread_bytes([(0.1, 1.0), (1.0, 2.0), (10.0, 50.0)]) == 2.5
    assert report.spread_bytes([]) is None


def test_the_picture_has_a_bar_of_each_program_for_each_drawn_workload_that_was_measured():
    results = [result("default-512", OURS, 2.0), result("default-512", OTELCOL, 40.0)]
    results += [result("pass-512", program, cpu) for program, cpu in ((OURS, 1.0), (OTELCOL, 4.25), (ROTEL, 112.4))]
    results += [result("default-1", OURS, 9.0), result("pass-64", OTELCOL, 9.0)]  # not drawn; ours not measured
    titles, drawn = report.bars(report.Figures(results))
    assert titles == ["pass-through, 512 spans", "default, 512 spans"]
    assert [(each.program, each.values, each.labels) for each in drawn] == [
        (OURS, [1.0, 2.0], ["1.00", "2.00"]),
        (OTELCOL, [4.25, 40.0], ["4.25", "40.0"]),
        (ROTEL, [112.4, 0.0], ["112", ""]),
    ]
    assert drawn[0].offset > drawn[1].offset > drawn[2].offset
    assert set(report._PLOTTED) <= {workload.name for workload in WORKLOADS}


def test_table_json_and_picture_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "PEERS", tmp_path)
    monkeypatch.setattr(bench, "run", lambda workload, program, first: result(workload.name, program, 2.5, items=first))
    monkeypatch.setattr(bench, "plot", lambda figures, path: path.write_text("<svg/>"))
    assert bench.main(["--only", "pass-512,default-512", "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/results.md").read_text()
    assert "| pass-through, 512 spans | 2.50 | – | – |" in text
    assert "idle: memory" in text
    runs = json.loads((tmp_path / "out/results.json").read_text())["runs"]
    assert len(runs) == 4  # two rounds each, of the one program that is installed
    assert len({each["items"] for each in runs}) == 4
    assert text in capsys.readouterr().out


def test_a_program_that_was_wrong_is_a_failure_and_a_missed_goal_only_when_strict(tmp_path, monkeypatch, capsys):
    def fails(workload, program, first):
        if workload.name == "pass-512":
            raise Wrong("3 items missing")
        return result(workload.name, program, 2.0, rss_idle=300.0)

    monkeypatch.setattr(bench, "PEERS", tmp_path)
    monkeypatch.setattr(bench, "plot", lambda figures, path: None)
    monkeypatch.setattr(bench, "run", fails)
    out = ["--out", str(tmp_path / "out")]
    assert bench.main(["--only", "default-512", *out]) == 0
    assert bench.main(["--only", "default-512", "--strict", *out]) == 1
    assert bench.main(["--only", "pass-512", *out]) == 1
    assert "WRONG: 3 items missing" in capsys.readouterr().out


def test_the_quick_run_takes_the_marked_rows_once(capsys):
    options = ["--list"]
    assert bench.main(options) == 0
    assert "default-512 " in capsys.readouterr().out
    quick = list(bench.runs(bench.selected(_options(quick=True)), quick=True))
    assert {workload.name for workload, _ in quick} >= {"default-512", "pass-512", "redact-512"}
    assert max(workload.seconds for workload, _ in quick) <= 3
    assert len(bench.selected(_options(quick=False))) > 20


def _options(quick):
    import argparse

    return argparse.Namespace(only="", quick=quick)
