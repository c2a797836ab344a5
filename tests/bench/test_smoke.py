"""The benchmark measures programs that do the work, and says so when one does not."""

from __future__ import annotations

import itertools
import json

import pytest

from bench import smoke
from bench.load import CANARY, SPANS, requests
from bench.naive import Naive
from tests.support import Signal, open_envelope


def load(count, seed=1):
    return list(itertools.islice(requests(seed), count))


def test_the_load_is_the_described_one_and_follows_from_the_seed():
    first, second = load(2)
    assert load(1)[0].data == first.data != load(1, seed=2)[0].data
    assert not first.traces.keys() & second.traces.keys()
    assert open_envelope(Signal.TRACES, first.data).count() == first.spans == sum(first.traces.values()) == SPANS
    sizes = [len(request.data) / SPANS for request in load(10)]
    assert 730 < sum(sizes) / 10 < 780
    failed = sum(len(request.failed) for request in load(10)) / sum(len(request.traces) for request in load(10))
    assert 0.005 < failed < 0.04
    assert any(CANARY.encode() in request.data for request in load(3))


def test_both_chains_do_the_same_work(capsys):
    assert smoke.main(["--json", "--chain-only", "--requests", "45", "--goal", "0.1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["good"]
    assert 0.05 < report["chain"]["kept"] < 0.2
    assert set(report["chain"]["stages_us"]) == {"open", "llm_cost", "tail_sampling", "redaction", "encode"}


def test_a_missed_goal_and_undone_work_fail(capsys, monkeypatch):
    assert smoke.main(["--chain-only", "--requests", "40", "--goal", "10000"]) == 1
    assert "MISSED" in capsys.readouterr().out
    monkeypatch.setattr(Naive, "process", lambda self, data, now: data)
    assert smoke.main(["--chain-only", "--requests", "40", "--goal", "0.1"]) == 1
    assert "WRONG: naive chain: a planted address left" in capsys.readouterr().out


def test_missing_and_surplus_spans_are_noticed():
    some = load(3)
    with pytest.raises(smoke.Wrong, match="x: 0 spans missing"):
        smoke.check("x", some[:1], [request.data.replace(CANARY.encode(), b"nobody") for request in some])
    with pytest.raises(smoke.Wrong, match="spans missing, 0 too many"):
        smoke.check("x", some, [])
