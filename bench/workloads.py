"""What is measured: each row is one load on the programs that can do the work."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

from bench.load import USUAL, Request, Shape, Template, logs, metrics, requests
from collector.model import Signal
from collector.otlp.mapping import to_json

OURS, OTELCOL, ROTEL = "ours", "otelcol", "rotel"
BOTH, ALL = (OURS, OTELCOL), (OURS, OTELCOL, ROTEL)
_TEMPLATES, _BYTES = 24, 24 << 20


@dataclass(frozen=True, slots=True)
class Workload:
    """One row. `items` a request; `rate` items a second, 0 = as fast as it goes; `rounds` of `seconds`, the median counts."""

    name: str
    title: str
    work: str
    items: int
    programs: tuple[str, ...] = BOTH
    signal: str = "traces"
    shape: Shape = USUAL
    protocol: str = "grpc"
    gzip_in: bool = False
    gzip_out: bool = False
    rate: float = 0.0
    seconds: float = 3.0
    rounds: int = 1
    lanes: int = 4
    quick: bool = False
    pinned: bool = False

    def templates(self) -> list[Template]:
        """The requests that the load is made of."""
        return _templates(self.signal, self.items, self.shape, self.protocol == "json")


@cache
def _templates(signal: str, items: int, shape: Shape, json: bool) -> list[Template]:
    if signal != "traces":
        make = logs if signal == "logs" else metrics
        return [make(seed, items) for seed in range(4)]
    stream = requests(1, items, shape)
    first = next(stream)
    count = max(2, min(_TEMPLATES * max(1, 64 // items), _BYTES // len(first.data)))
    made = [first, *itertools.islice(stream, count - 1)]
    return [Template.of(request, _text(request) if json else b"") for request in made]


def _text(request: Request) -> bytes:
    return to_json(Signal.TRACES, request.data)


_SHAPES = {
    "no attributes": (512, Shape(own=False, personal=0.0)),
    "100 x 50 B": (64, Shape(100, 50)),
    "10 x 1 KB": (64, Shape(10, 1000)),
    "20 x 5 KB": (8, Shape(20, 5000)),
}
WORKLOADS = [
    Workload("default-512", "default, 512 spans", "default", 512, rounds=2, quick=True),
    Workload("default-512-paced", "default, 512 spans, 5,000 spans/s", "default", 512, rate=5_000, seconds=8.0),
    Workload("default-64", "default, 64 spans", "default", 64),
    Workload("default-1", "default, 1 span, 1,000 requests/s", "default", 1, rate=1_000, quick=True),
    Workload("default-8192", "default, 8,192 spans", "default", 8192),
    Workload("pass-512", "pass-through, 512 spans", "pass", 512, ALL, rounds=2, quick=True),
    Workload("pass-512-paced", "pass-through, 512 spans, 5,000 spans/s", "pass", 512, ALL, rate=5_000, seconds=8.0),
    Workload("pass-64", "pass-through, 64 spans", "pass", 64, ALL),
    Workload("pass-1", "pass-through, 1 span, 1,000 requests/s", "pass", 1, ALL, rate=1_000, quick=True),
    Workload("pass-8192", "pass-through, 8,192 spans", "pass", 8192, ALL),
    Workload("redact-512", "everything kept, 10 % personal data, 512", "redact", 512, shape=Shape(personal=0.10), quick=True),
    *(
        Workload(f"default-{name}", f"default, {name} a span, {items} spans", "default", items, shape=shape)
        for name, (items, shape) in _SHAPES.items()
    ),
    Workload("http-1", "default, 1 span, 1,000 requests/s, HTTP protobuf in", "default", 1, protocol="http", rate=1_000),
    Workload("http-pass-1", "pass-through, 1 span, 1,000 requests/s, HTTP in", "pass", 1, protocol="http", rate=1_000),
    Workload("http-512", "default, 512 spans, HTTP protobuf in", "default", 512, protocol="http"),
    Workload("http-gzip-512", "default, 512 spans, HTTP protobuf gzip in", "default", 512, protocol="http", gzip_in=True),
    Workload("json-512", "default, 512 spans, HTTP JSON in", "default", 512, protocol="json"),
    Workload("gzip-out-512", "pass-through, 512 spans, gzip out", "pass", 512, ALL, gzip_out=True),
    Workload("logs-1", "logs, redaction, 1 record, 1,000 requests/s", "redact", 1, signal="logs", rate=1_000),
    Workload("logs-512", "logs, redaction, 512 records", "redact", 512, signal="logs"),
    Workload("metrics-400", "metrics, pass-through, 400 points", "pass", 400, signal="metrics"),
]
SUSTAINED = Workload(
    "sustained", "default, 150,000 spans/s on one core", "default", 512, (OURS,), rate=150_000, seconds=10.0, pinned=True
)
STEADY = Workload("steady", "default, 5,000 spans/s for a minute", "default", 512, (OURS,), rate=5_000, seconds=60.0)
