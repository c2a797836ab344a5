"""This collector, otelcol and rotel at the same work, in turn, on this machine: `make bench`, `make bench QUICK=1`.

Prints one line a run while it works, then the table, the goals and where the files are. Exit code 1 when a program did not do its
work; a missed goal is a finding, not a failure, unless --strict is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import oracle, stall
from bench.measure import Result, Wrong, run
from bench.programs import PEERS
from bench.report import Figures, claims, markdown, plot
from bench.workloads import OURS, STEADY, SUSTAINED, WORKLOADS, Workload

_QUICK_SECONDS = 2.5
_QUICK_REQUESTS = 1000


def runs(workloads: Sequence[Workload], *, quick: bool) -> Iterator[tuple[Workload, str]]:
    """Each workload's programs in turn, round by round."""
    for workload in workloads:
        for _ in range(1 if quick else workload.rounds):
            for program in workload.programs:
                if program == OURS or (PEERS / program).exists():
                    yield workload, program


def measure(workloads: Sequence[Workload], *, quick: bool) -> tuple[list[Result], list[str]]:
    """All runs; what was wrong with some."""
    results, wrong = [], []
    for number, (workload, program) in enumerate(runs(workloads, quick=quick)):
        try:
            result = run(workload, program, first=1 + number * 10_000_000)
        except Wrong as error:
            wrong.append(str(error))
            _say(f"WRONG: {error}")
            continue
        results.append(result)
        _say(
            f"{workload.title:44} {program:8} {result.cpu_us:9.2f} us  {result.rate:9,.0f}/s  {result.rss_peak:5.0f} MiB"
            f"  p99 {result.p99:6.1f} ms"
        )
    return results, wrong


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def selected(options: argparse.Namespace) -> list[Workload]:
    """The workloads that the options name."""
    if options.only:
        return [w for w in (*WORKLOADS, SUSTAINED, STEADY) if w.name in options.only.split(",")]
    if options.quick:
        return [_shorter(w) for w in WORKLOADS if w.quick]
    return [*WORKLOADS, SUSTAINED, STEADY]


def _shorter(workload: Workload) -> Workload:
    return replace(workload, seconds=_QUICK_SECONDS)


def findings(options: argparse.Namespace) -> dict[str, Any]:
    """What is measured beside the workloads. Raises oracle.Different."""
    if options.only:
        return {}
    found: dict[str, Any] = {
        "span_bytes": {w.name: len(w.templates()[0].data) / w.items for w in WORKLOADS if w.signal == "traces"}
    }
    count = _QUICK_REQUESTS if options.quick else 10_000
    _say(f"comparing {count:,} requests with the reference")
    found |= {**oracle.agree(count), "oracle_goal": count}
    if not options.quick:
        found["stalls"] = [_stalled(case, transport) for case in stall.CASES for transport in stall.TRANSPORTS]
        found["stall_ms"] = max(row["stall_ms"] for row in found["stalls"])
    return found


def _stalled(case: stall.Case, transport: str) -> dict[str, Any]:
    row = stall.measure(case, transport)
    _say(stall.line(row))
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the most important rows, once, in three minutes")
    parser.add_argument("--only", default="", help="names of workloads, with commas")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for results.md, results.json, results.svg")
    parser.add_argument("--strict", action="store_true", help="exit code 1 for a missed goal as well")
    parser.add_argument("--list", action="store_true", help="print the names of the workloads")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{w.name:24}{w.title}" for w in (*WORKLOADS, SUSTAINED, STEADY)))
        return 0
    os.environ["GRPC_VERBOSITY"] = "ERROR"
    began = time.monotonic()
    results, wrong = measure(selected(options), quick=options.quick)
    extra: dict[str, Any] = {}
    try:
        extra = findings(options)
    except oracle.Different as error:
        wrong.append(f"another result than the reference: {error}")
    except Wrong as error:
        wrong.append(str(error))
    figures = Figures(results)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    data = {"machine": machine, "runs": [result.asdict() for result in results], **extra}
    text = markdown(data, wrong) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.md").write_text(text)
    (options.out / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    if results:
        plot(figures, options.out / "results.svg")
    print(text)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes; written: {options.out}/results.md, results.json, results.svg")
    missed = any(claim.met is False for claim in claims(figures, extra))
    return 1 if wrong or (options.strict and missed) else 0


if __name__ == "__main__":
    sys.exit(main())
