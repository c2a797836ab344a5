"""What the default pipeline costs per span, beside the same work done the obvious way, in one run: `make bench`.

Two comparisons on the same load: the chain of processors in this process, and the whole programs with gRPC in and out. Delivery
is checked: exactly the traces with an error and the ten percent leave, complete, priced to the cent, and no planted address.
Absolute times move with the machine; the ratio is what counts. Exit code 1 when something was wrong or the ratio is below --goal.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.load import CANARY, SPANS, Request, requests
from bench.measure import Watch, Wrong, until
from bench.naive import EXPORT, LIMIT, Naive, share_hash
from bench.ports import free_port
from bench.programs import STEPS, Ports, command

WARM_UP = 30
ROUNDS = 3
STEP = 0.25
"""Seconds of the samplers' time between two requests of the chain: held spans expire while it is measured."""


def expected(load: Iterable[Request]) -> dict[bytes, int]:
    """Trace ids that must leave and how many spans each."""
    return {
        trace: spans
        for request in load
        for trace, spans in request.traces.items()
        if trace in request.failed or share_hash(trace) <= LIMIT
    }


def check(name: str, load: Sequence[Request], out: Iterable[bytes]) -> int:
    """Compare what left with what must leave; returns the number of spans. Raises Wrong."""
    found: Counter[bytes] = Counter()
    for data in out:
        if CANARY.encode() in data:
            raise Wrong(f"{name}: a planted address left")
        for group in ExportTraceServiceRequest.FromString(data).resource_spans:
            found.update(span.trace_id for scope in group.scope_spans for span in scope.spans)
    wanted = expected(load)
    if found != wanted:
        missing = sum((Counter(wanted) - found).values())
        raise Wrong(f"{name}: {missing} spans missing, {sum((found - Counter(wanted)).values())} too many")
    return found.total()


class Chain:
    """The processors of the default pipeline as the service builds them."""

    def __init__(self) -> None:
        from collector.catalog import Catalog
        from collector.component import Settings
        from collector.meters import Meters

        self.meters, self.lost = Meters(), Counter[str]()
        self.stages: defaultdict[str, list[float]] = defaultdict(list)
        self._parts = []
        for name, config in STEPS["default"].items():
            if name == "memory_limiter":
                continue  # it watches a process, not spans
            cls: Any = Catalog().load("processors", name)
            settings = Settings(name, self.meters, logging.getLogger(name), None, self._drop)  # type: ignore[arg-type]
            self._parts.append(cls(cls.Config.model_validate(config), settings))
        self._parts[0].preload()

    def _drop(self, _: object, count: int, reason: str) -> None:
        self.lost[reason] += count

    def process(self, data: bytes, now: float) -> bytes | None:
        """An encoded request in, an encoded request out."""
        from collector.model import Signal
        from collector.otlp.request import open_request

        batch = self._timed("open", open_request, Signal.TRACES, data).batch
        for part in self._parts:
            batch = self._timed(part.settings.id, part.process, batch, now)
            if batch is None:
                return None
        encoded: bytes = self._timed("encode", batch.encode)
        return encoded

    def _timed(self, stage: str, work: Callable[..., Any], *arguments: object) -> Any:
        began = time.thread_time()
        result = work(*arguments)
        self.stages[stage].append(time.thread_time() - began)
        return result

    def cost(self) -> float:
        """USD counted."""
        return sum(self.meters._made["llm_cost_usd"].series().values())


def measure_chain(load: Sequence[Request]) -> dict[str, Any]:
    """Both chains in turn, ten requests each, so that both see the same moments of the machine."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as the service sets it, for both
    ours, naive = Chain(), Naive()
    times: dict[str, list[float]] = {"ours": [], "naive": []}
    out: dict[str, list[bytes]] = {"ours": [], "naive": []}
    programs: list[tuple[str, Callable[[bytes, float], bytes | None]]] = [("ours", ours.process), ("naive", naive.process)]
    for block in range(0, len(load), 10):
        for name, process in programs:
            for number, request in enumerate(load[block : block + 10], block):
                began = time.thread_time()
                data = process(request.data, number * STEP)
                times[name].append(time.thread_time() - began)
                if data is not None:
                    out[name].append(data)
    kept = {name: check(f"{name} chain", load, data) for name, data in out.items()}
    if abs(ours.cost() - naive.cost) > 1e-9 * naive.cost:
        raise Wrong(f"cost: {ours.cost()} USD counted, {naive.cost} true")
    spent = {name: median(values[WARM_UP:]) for name, values in times.items()}
    stages = {name: round(median(values[WARM_UP:]) / SPANS * 1e6, 2) for name, values in ours.stages.items()}
    return {**_result(spent, SPANS, kept["ours"], sum(request.spans for request in load)), "stages_us": stages}


def _result(seconds: dict[str, float], spans: int, kept: int, sent: int) -> dict[str, Any]:
    per_span = {f"{name}_us": round(spent / spans * 1e6, 2) for name, spent in seconds.items()}
    return {**per_span, "ratio": round(seconds["naive"] / seconds["ours"], 1), "kept": round(kept / sent, 4)}


class Sink:
    """A gRPC backend that keeps what it is sent."""

    def __init__(self) -> None:
        import grpc

        self.received: list[bytes] = []
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 64 << 20)])
        service, method = EXPORT[1:].split("/")
        handler = grpc.unary_unary_rpc_method_handler(self._take)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def _take(self, data: bytes, _: object) -> bytes:
        self.received.append(data)
        return b""

    def stop(self) -> None:
        """Close the port."""
        self._server.stop(0).wait()


def measure_program(name: str, command: Sequence[str], address: str, sink: Sink, load: Sequence[Request]) -> tuple[float, int]:
    """CPU seconds that a program needed for the load after its warm-up, and the spans that arrived."""
    import grpc

    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with grpc.insecure_channel(address) as channel:
                grpc.channel_ready_future(channel).result(timeout=20)
                send = channel.unary_unary(EXPORT)
                _send_all(send, load[:WARM_UP])
                watch = Watch(process.pid)
                began = watch.cpu()
                _send_all(send, load[WARM_UP:])
                until(lambda: len_spans(sink) >= sum(expected(load).values()), 5)
                spent = watch.cpu() - began
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
        except (grpc.RpcError, grpc.FutureTimeoutError, subprocess.TimeoutExpired) as error:
            log.seek(0)
            raise Wrong(f"{name}: {type(error).__name__} {log.read()[-2000:].decode(errors='replace')}") from None
        finally:
            process.kill()
            process.wait()
    return spent, check(f"{name} program", load, sink.received)


def _send_all(send: Callable[..., bytes], load: Iterable[Request]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda request: send(request.data, timeout=20), load))


def len_spans(sink: Sink) -> int:
    """Spans received so far."""
    from collector.model import Signal, open_envelope

    return sum(open_envelope(Signal.TRACES, data).count() for data in list(sink.received))


def measure_programs(load: Sequence[Request]) -> dict[str, Any]:
    """The whole sidecar and the naive program in turn, ROUNDS times each; the median counts."""
    spent: defaultdict[str, list[float]] = defaultdict(list)
    kept = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("naive", "ours") * ROUNDS:
            sink = Sink()
            ports = Ports(free_port(), free_port(), sink.port)
            address = f"127.0.0.1:{ports.grpc}"
            line: Sequence[str] = [sys.executable, "-m", "bench.naive", address, sink.address]
            if name == "ours":
                line = command(name, "default", ports, Path(folder))
            try:
                seconds, kept = measure_program(name, line, address, sink, load)
            finally:
                sink.stop()
            spent[name].append(seconds)
    middle = {name: median(values) for name, values in spent.items()}
    return _result(middle, (len(load) - WARM_UP) * SPANS, kept, sum(request.spans for request in load))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both comparisons; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.smoke", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--requests", type=int, default=150, help=f"requests of {SPANS} spans, {WARM_UP} of them warm-up")
    parser.add_argument("--goal", type=float, default=5.0, help="how many times less CPU than the naive program is asked for")
    parser.add_argument("--chain-only", action="store_true", help="leave the whole programs out")
    options = parser.parse_args(arguments)
    os.environ["GRPC_VERBOSITY"] = "ERROR"
    gc.set_threshold(20_000, 20, 20)  # as the service does; both sides gain
    load = list(itertools.islice(requests(1), max(options.requests, WARM_UP + 10)))
    size = sum(len(request.data) for request in load) / len(load) / SPANS
    report: dict[str, Any] = {"spans_per_request": SPANS, "bytes_per_span": round(size), "requests": len(load)}
    try:
        report["chain"] = measure_chain(load)
        if not options.chain_only:
            report["program"] = measure_programs(load)
    except Wrong as error:
        report["wrong"] = str(error)
    reached = [report[part]["ratio"] for part in ("chain", "program") if part in report]
    good = "wrong" not in report and min(reached) >= options.goal
    print(json.dumps({**report, "good": good}) if options.json else _text(report, options.goal, good))
    return 0 if good else 1


def _text(report: dict[str, Any], goal: float, good: bool) -> str:
    lines = [f"{report['requests']} requests of {report['spans_per_request']} spans, {report['bytes_per_span']} bytes a span"]
    lines.append(f"{'CPU us per span':28}{'ours':>8}{'naive':>8}{'ratio':>8}{'kept':>8}")
    for part, title in (("chain", "price + sample + redact"), ("program", "whole program, gRPC in/out")):
        if part in report:
            row = report[part]
            lines.append(f"{title:28}{row['ours_us']:8.2f}{row['naive_us']:8.2f}{row['ratio']:7.1f}x{row['kept']:8.1%}")
            lines += [f"  {stage:26}{spent:8.2f}" for stage, spent in row.get("stages_us", {}).items()]
    lines.append(f"WRONG: {report['wrong']}" if "wrong" in report else "delivery, cost and redaction checked")
    lines.append(f"goal of {goal:g}x {'reached' if good else 'MISSED'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
