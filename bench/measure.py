"""One run: start a program, send it a load, check what came out, and read what it cost the machine."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.client import Plan
from bench.load import Template
from bench.naive import LIMIT, share_hash
from bench.ports import free_port
from bench.programs import DECISION_WAIT, RATES, Ports, command
from bench.workloads import Workload

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_READY, _ARRIVE, _QUIET = 30.0, 60.0, 0.5
_COSTS = 1e-9


class Wrong(Exception):
    """A program did not do the work it was measured for, or the machine could not be read."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run. CPU in microseconds per item of all that was sent; sizes in MiB; times in milliseconds."""

    workload: str
    program: str
    cpu_us: float
    cores: float
    items: int
    rate: float
    delivered: int
    rss_idle: float
    rss_peak: float
    p50: float
    p99: float

    def asdict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def run(workload: Workload, program: str, first: int = 1) -> Result:
    """Measure. `first`: the number of the first request, so that no two runs send the same. Raises Wrong."""
    with tempfile.TemporaryDirectory() as name, _sink() as sink:
        ports = Ports(free_port(), free_port(), sink.port)
        line = command(program, workload.work, ports, Path(name), gzip=workload.gzip_out)
        with started(line, [ports.grpc, ports.http], Path(name) / "log", pinned=workload.pinned) as watch:
            return _load(workload, program, first, ports, sink, watch)


def _load(workload: Workload, program: str, first: int, ports: Ports, sink: Sink, watch: Watch) -> Result:
    templates, address = workload.templates(), f"127.0.0.1:{ports.grpc if workload.protocol == 'grpc' else ports.http}"
    rate = workload.rate / workload.items
    plan = Plan(
        address, workload.signal, workload.protocol, workload.gzip_in, templates, workload.seconds, rate, workload.lanes, first
    )
    idle, began, start = watch.rss(), watch.cpu(), time.monotonic()
    with watch.peak() as peak:
        answer = client(plan)
        sent = answer["sent"]
        expected = _expected(workload, templates, sent)
        sink.wait(expected["items"], _ARRIVE)
        if workload.work == "default":  # what is held costs something when it is let go, too
            time.sleep(max(0.0, DECISION_WAIT + 1 - (time.monotonic() - start - answer["seconds"])))
    spent, items = watch.cpu() - began, len(sent) * workload.items
    found = sink.report()
    check(f"{workload.name}, {program}", answer, expected, found)
    latencies = answer["latencies"]
    return Result(
        workload=workload.name,
        program=program,
        cpu_us=spent / items * 1e6,
        cores=spent / answer["seconds"],
        items=items,
        rate=items / answer["seconds"],
        delivered=found["items"],
        rss_idle=idle,
        rss_peak=peak[0],
        p50=latencies[len(latencies) // 2] * 1e3,
        p99=latencies[int(len(latencies) * 0.99)] * 1e3,
    )


def client(plan: Plan) -> dict[str, Any]:
    """Send a load from a process of its own. Raises Wrong."""
    done = subprocess.run([sys.executable, "-m", "bench.client"], input=pickle.dumps(plan), capture_output=True, check=False)
    if done.returncode:
        raise Wrong(f"the client failed: {done.stderr.decode()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _expected(workload: Workload, templates: list[Template], sent: list[int]) -> dict[str, Any]:
    """What must arrive of the requests that were answered."""
    if workload.signal != "traces":
        return {"items": len(sent) * workload.items, "spans": {}, "calls": 0, "cost": 0.0, "clean": workload.work != "pass"}
    spans: dict[str, int] = {}
    calls, cost = 0, 0.0
    for number in sent:
        template = templates[number % len(templates)]
        for trace, (trace_id, size) in enumerate(zip(template.ids(number), template.sizes, strict=True)):
            if workload.work == "default" and trace not in template.failed and share_hash(trace_id) > LIMIT:
                continue
            spans[trace_id.hex()] = size
            for model, paid, got in template.calls.get(trace, ()) if workload.work == "default" else ():
                calls += 1
                cost += paid * float(RATES[model][0]) + got * float(RATES[model][1])
    return {"items": sum(spans.values()), "spans": spans, "calls": calls, "cost": cost, "clean": workload.work != "pass"}


def check(name: str, answer: dict[str, Any], expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Compare what was sent with what arrived. Raises Wrong."""
    if answer["failed"]:
        raise Wrong(f"{name}: requests failed: {answer['failed'][0]}")
    if not answer["sent"] or not expected["items"]:
        raise Wrong(f"{name}: nothing was sent")
    if found["items"] != expected["items"] or found["spans"] != expected["spans"]:
        raise Wrong(f"{name}: {expected['items']} items expected, {found['items']} arrived")
    if found["priced"] != expected["calls"] or abs(found["cost"] - expected["cost"]) > _COSTS * max(1.0, expected["cost"]):
        raise Wrong(f"{name}: {expected['calls']} calls for {expected['cost']} USD, found {found['priced']} for {found['cost']}")
    if expected["clean"] and found["canaries"]:
        raise Wrong(f"{name}: {found['canaries']} planted addresses left")


class Sink:
    """The backend process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return json.loads(self._answer())

    def wait(self, items: int, timeout: float) -> None:
        """Until that many items have arrived, or `timeout` seconds are over."""
        until(lambda: self._ask("count") >= items, timeout)

    def report(self) -> dict[str, Any]:
        """Everything that arrived."""
        found: dict[str, Any] = self._ask("report")
        return found


@contextmanager
def _sink() -> Iterator[Sink]:
    command = [sys.executable, "-m", "bench.sink"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Sink(process)
        finally:
            process.kill()


class Watch:
    """Reads what a process and its children use."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu(self) -> float:
        """CPU seconds since its start, ended threads and children too."""
        return sum(sum(map(int, _stat(pid)[11:15])) for pid in tree(self._pid)) / _TICK

    def rss(self) -> float:
        """Resident MiB now."""
        return sum(int(_stat(pid)[21]) for pid in tree(self._pid)) * _PAGE / (1 << 20)

    @contextmanager
    def peak(self) -> Iterator[list[float]]:
        """Watch the resident size; the list holds its largest value at the end."""
        found, over = [self.rss()], threading.Event()

        def look() -> None:
            while not over.wait(0.1):
                found[0] = max(found[0], self.rss())

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield found
        finally:
            over.set()
            watcher.join()


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for each in found:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, path.read_text().split())
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third one on, zeros when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["0"] * 50


@contextmanager
def started(line: Any, ports: list[int], log: Path, *, pinned: bool = False) -> Iterator[Watch]:
    """A running program that listens and has come to rest; `pinned`: on one core. Raises Wrong."""
    with log.open("wb") as out:
        process = subprocess.Popen(line, stdout=out, stderr=out)
    watch = Watch(process.pid)
    try:
        if pinned:
            os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        until(lambda: process.poll() is not None or all(map(listens, ports)), _READY)
        if process.poll() is not None or not all(map(listens, ports)):
            raise Wrong(f"{line[0]} does not listen: {log.read_text(errors='replace')[-2000:]}")
        rest(watch)
        yield watch
    finally:
        process.kill()
        process.wait()


def rest(watch: Watch) -> None:
    """Wait until a program that has just started does nothing any more."""
    deadline, before = time.monotonic() + _READY, -1.0
    while time.monotonic() < deadline:
        now = watch.cpu()
        if now - before < 0.02:
            return
        before = now
        time.sleep(_QUIET)


def until(condition: Callable[[], bool], timeout: float) -> None:
    """Wait for a condition, at most `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
