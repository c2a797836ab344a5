"""The longest time the event loop was held while many large requests came at once: `python -m bench.stall [--json]`.

Each case starts the program with the shipped configuration, sends `--requests` bodies of `--size` MiB at the same moment and
reads from the program's own page how long its loop was held. Every answer must be a success or tell the client to come back, and
all that was acknowledged must be in the books (more may be: slices of a request that was refused half-way). Exit code 1 when that
is wrong or a stall is longer than `--goal`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from bench.measure import Wrong, until
from bench.ports import free_port
from bench.smoke import Sink

ROOT = Path(__file__).parent.parent
GOAL = 0.1
MOST_ITEMS = 100_000
_SERVICES = {"traces": "trace.v1.TraceService", "logs": "logs.v1.LogsService", "metrics": "metrics.v1.MetricsService"}
_TEXT = b"the order was packed and left our house this morning by train it should reach you before the weekend "


def field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field."""
    size, head = len(content), bytearray([number << 3 | 2])
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes([*head, size]) + content


def attribute(key: str, value: bytes) -> bytes:
    """An encoded KeyValue with a text."""
    return field(1, key.encode()) + field(2, field(1, value))


def _filled(empty: int, size: int, personal: bool) -> bytes:
    text = (_TEXT * (size // len(_TEXT) + 1))[: max(size - empty - 40, 1)]
    return b"jane.doe@example.com " + text[21:] if personal else text


def span(dice: random.Random, size: int, personal: bool) -> bytes:
    """A span of about `size` bytes."""
    start = field(1, dice.randbytes(16)) + field(2, dice.randbytes(8)) + field(5, b"GET /orders")
    times = b"\x39" + dice.randbytes(8) + b"\x41" + dice.randbytes(8)
    return start + times + field(9, attribute("app.note", _filled(80, size, personal)))


def record(dice: random.Random, size: int, personal: bool) -> bytes:
    """A log record of about `size` bytes."""
    return b"\x09" + dice.randbytes(8) + field(5, field(1, _filled(30, size, personal)))


def metric(dice: random.Random, size: int, personal: bool) -> bytes:
    """A gauge with one point, about `size` bytes; a thousand different names."""
    note = field(7, attribute("app.note", _filled(90, size, personal)))
    point = note + b"\x19" + dice.randbytes(8) + b"\x21" + bytes(6) + b"\x45\x40"
    return field(1, b"orders_%d" % dice.randrange(1000)) + field(5, field(1, point))


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent: items of `size` bytes each, one in `personal` with a mail address."""

    name: str
    signal: str
    item: Callable[[random.Random, int, bool], bytes]
    size: int
    personal: int = 100

    def body(self, size: int, seed: int = 1) -> tuple[bytes, int]:
        """One request of about `size` bytes, and the number of its items."""
        dice, count = random.Random(seed), min(size // (self.size + 8), MOST_ITEMS)
        items = b"".join(field(2, self.item(dice, self.size, not number % self.personal)) for number in range(count))
        resource = field(1, field(1, attribute("service.name", b"shop")))
        return field(1, resource + field(2, items)), count


CASES = [
    Case("small spans", "traces", span, 660),
    Case("tiny spans", "traces", span, 100),
    Case("large spans", "traces", span, 100_000),
    Case("spans full of personal data", "traces", span, 660, personal=1),
    Case("small records", "logs", record, 660),
    Case("large records", "logs", record, 100_000),
    Case("metrics", "metrics", metric, 660),
]


class _Loki(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def program() -> Iterator[dict[str, int]]:
    """The sidecar as it is shipped, with stand-ins for its backends; its ports by name, and `pid`."""
    sink, loki = Sink(), ThreadingHTTPServer(("127.0.0.1", 0), _Loki)
    Thread(target=loki.serve_forever, daemon=True).start()
    ports = {name: free_port() for name in ("grpc", "http", "health", "prometheus", "own")}
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    variables = {"OTLP_GRPC_ENDPOINT": at["grpc"], "OTLP_HTTP_ENDPOINT": at["http"], "HEALTH_ENDPOINT": at["health"],
                 "PROMETHEUS_ENDPOINT": at["prometheus"], "JAEGER_ENDPOINT": sink.address,
                 "LOKI_ENDPOINT": f"http://127.0.0.1:{loki.server_address[1]}"}  # fmt: skip
    command = [sys.executable, "-m", "collector", "run", "--config", str(ROOT / "config/collector.yaml"),
               f"--set=service.telemetry.metrics.address={at['own']}"]  # fmt: skip
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **variables}, stdout=log, stderr=log)
        try:
            ready = f"http://{at['health']}/readyz"
            until(lambda: process.poll() is not None or _get(ready) is not None, 20)
            if process.poll() is not None:
                log.seek(0)
                raise Wrong(log.read()[-2000:].decode(errors="replace"))
            yield {**ports, "pid": process.pid}
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            sink.stop()
            loki.shutdown()
            loki.server_close()


def _get(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def read(ports: dict[str, int]) -> dict[str, float]:
    """Name with labels -> value of everything on the program's own page."""
    text = _get(f"http://127.0.0.1:{ports['own']}/metrics") or b""
    lines = (line.rpartition(" ") for line in text.decode().splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def send_grpc(ports: dict[str, int], case: Case, body: bytes, count: int) -> list[str]:
    """The answers to `count` requests sent at once, as gRPC codes."""
    import grpc

    method = f"/opentelemetry.proto.collector.{_SERVICES[case.signal]}/Export"

    def one(number: int) -> str:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1), ("sidecar.client", number)]
        with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}", options=options) as channel:
            try:
                channel.unary_unary(method)(body, timeout=60)
            except grpc.RpcError as error:
                return str(error.code().name)
        return "OK"

    return _at_once(one, count)


def send_http(ports: dict[str, int], case: Case, body: bytes, count: int) -> list[str]:
    """The same over HTTP, as status codes."""
    url = f"http://127.0.0.1:{ports['http']}/v1/{case.signal}"

    def one(_: int) -> str:
        request = urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return str(answer.status)
        except urllib.error.HTTPError as error:
            return str(error.code)
        except OSError:
            return "503"  # refused before all was sent: the connection was closed, and the client tries again

    return _at_once(one, count)


def _at_once(one: Callable[[int], str], count: int) -> list[str]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


TRANSPORTS = {"grpc": send_grpc, "http": send_http}
_FINE, _COME_BACK = {"OK", "200"}, {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "503", "429"}


def measure(case: Case, transport: str, requests: int = 20, size: int = 64 << 20) -> dict[str, Any]:
    """Longest stall, answers, peak of the resident size. Raises Wrong when something acknowledged is not in the books."""
    body, items = case.body(size - 1024)
    with program() as ports:
        until(lambda: "collector_event_loop_longest_stall_seconds" in read(ports), 10)
        time.sleep(1)  # its warm-up is no part of this
        start = read(ports)["collector_event_loop_longest_stall_seconds"]
        answers = Counter(TRANSPORTS[transport](ports, case, body, requests))
        taken = sum(answers[code] for code in _FINE) * items
        if strange := set(answers) - _FINE - _COME_BACK:
            raise Wrong(f"{case.name} over {transport}: answered {strange}")
        until(lambda: _accepted(read(ports), case.signal) >= taken, 10)
        shown = read(ports)
        if (booked := _accepted(shown, case.signal)) < taken:
            raise Wrong(f"{case.name} over {transport}: {taken} items acknowledged, {booked:.0f} in the books")
        peak = next(line for line in Path(f"/proc/{ports['pid']}/status").read_text().splitlines() if "VmHWM" in line)
    return {
        "case": case.name,
        "transport": transport,
        "mib": round(len(body) / (1 << 20), 1),
        "items": items,
        "stall_ms": round(shown["collector_event_loop_longest_stall_seconds"] * 1e3, 1),
        "stalls": int(shown["collector_event_loop_stalls_total"]),
        "warm_up_ms": round(start * 1e3, 1),
        "answers": dict(answers),
        "taken_of_refused": int(booked - taken),
        "peak_mib": round(int(peak.split()[1]) / 1024),
    }


def _accepted(shown: dict[str, float], kind: str) -> float:
    wanted = (f'signal="{kind}"', 'state="accepted"')
    return sum(v for name, v in shown.items() if name.startswith("collector_items_total{") and all(w in name for w in wanted))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.stall", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    parser.add_argument("--requests", type=int, default=20, help="sent at once")
    parser.add_argument("--size", type=int, default=64, help="MiB of one request")
    parser.add_argument("--goal", type=float, default=GOAL, help="seconds that no stall may exceed")
    parser.add_argument("--case", help="only cases whose name holds this")
    parser.add_argument("--transport", choices=TRANSPORTS)
    options = parser.parse_args(arguments)
    os.environ["GRPC_VERBOSITY"] = "NONE"
    chosen = [case for case in CASES if (options.case or "") in case.name]
    rows = []
    for case, transport in itertools.product(chosen, [options.transport] if options.transport else TRANSPORTS):
        rows.append(measure(case, transport, options.requests, options.size << 20))
        if not options.json:
            print(line(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows, indent=2))
    return int(any(row["stall_ms"] > options.goal * 1e3 for row in rows))


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    answers = ", ".join(f"{number} {code}" for code, number in sorted(row["answers"].items()))
    return (
        f"{row['case']:28} {row['transport']:5} {row['mib']:5} MiB {row['items']:7} items  longest stall {row['stall_ms']:7} ms"
        f"  {row['stalls']:3} over 100 ms  peak {row['peak_mib']:4} MiB  {answers}"
    )


if __name__ == "__main__":
    sys.exit(main())
