"""A run is counted only when the program did its work, and the machine is read rightly."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from bench import measure
from bench.measure import Watch, Wrong, check, run, tree
from bench.ports import free_port
from bench.workloads import OURS, WORKLOADS

GOOD = {"items": 2, "spans": {"aa": 2}, "calls": 1, "cost": 0.5, "clean": True}
ANSWER = {"sent": [1], "failed": []}
FOUND = {"items": 2, "spans": {"aa": 2}, "priced": 1, "cost": 0.5, "canaries": 0}


def test_the_sidecar_is_measured_and_its_delivery_checked():
    short = replace(next(w for w in WORKLOADS if w.name == "default-64"), seconds=0.5)
    result = run(short, OURS)
    assert result.items > 0
    assert result.items % short.items == 0
    assert 0 < result.delivered < result.items
    assert 1 < result.cpu_us < 10_000
    assert 20 < result.rss_idle <= result.rss_peak < 1000
    assert 0 < result.p50 <= result.p99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": 1}, "2 items expected, 1 arrived"),
        ({"spans": {"bb": 2}}, "2 items expected"),
        ({"priced": 0}, "1 calls for 0.5 USD, found 0"),
        ({"cost": 0.500001}, "1 calls for 0.5 USD"),
        ({"canaries": 1}, "1 planted addresses left"),
    ],
)
def test_work_that_was_not_done_is_noticed(change, message):
    check("x", ANSWER, GOOD, FOUND)
    with pytest.raises(Wrong, match=message):
        check("x", ANSWER, GOOD, FOUND | change)


def test_refused_requests_and_an_empty_load_are_noticed():
    with pytest.raises(Wrong, match="requests failed: too bad"):
        check("x", {"sent": [1], "failed": ["too bad"]}, GOOD, FOUND)
    with pytest.raises(Wrong, match="nothing was sent"):
        check("x", {"sent": [], "failed": []}, GOOD, FOUND)


def test_a_program_that_does_not_listen_is_an_error_with_its_output(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_READY", 5.0)
    line = [sys.executable, "-c", "print('no such option')"]
    with pytest.raises(Wrong, match="no such option"), measure.started(line, [free_port()], tmp_path / "log"):
        pass


def test_cpu_and_memory_are_those_of_the_whole_process_tree():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(50 << 20)\\nwhile True: pass'])"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            watch = Watch(process.pid)
            measure.until(lambda: watch.cpu() > 0.3 and watch.rss() > 50, 20)
            assert len(tree(process.pid)) == 2
            assert watch.cpu() > 0.3
            assert watch.rss() > 50
        finally:
            for pid in reversed(tree(process.pid)):
                os.kill(pid, 9)
    assert Watch(process.pid).rss() == 0


def test_a_program_is_measured_after_it_has_come_to_rest():
    code = "import time; end = time.process_time() + 0.4\nwhile time.process_time() < end: pass\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            measure.rest(watch := Watch(process.pid))
            assert watch.cpu() > 0.38
        finally:
            process.kill()
