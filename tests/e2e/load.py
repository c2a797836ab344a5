"""Traces with a known truth, a plain OTLP gRPC sender, and a sink that remembers every span."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.ports import free_port
from tests.e2e.stack import LOOPBACK
from tests.support import span, traces

EXPORT = "/opentelemetry.proto.collector.{0}.v1.{1}Service/Export"

FAILURES: list[dict[str, Any]] = [
    {"error": True},
    {"error": True},
    {"values": {"error.type": "TimeoutError"}},
    {"values": {"status": "error"}},
    {"values": {"status": "timeout"}},
    {"values": {"http.request.method": "GET", "http.response.status_code": 503}},
]
"""How a span says that it failed."""


@dataclass
class Corpus:
    """Traces by id with the ids of their spans, and the requests that carry them."""

    clean: dict[str, set[str]] = field(default_factory=dict)
    failed: dict[str, set[str]] = field(default_factory=dict)
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    def spans(self) -> int:
        """All spans."""
        return sum(len(ids) for ids in (*self.clean.values(), *self.failed.values()))


def corpus(clean: int, failed: int, service: str, *, seed: int = 1, size: int = 512) -> Corpus:
    """Traces of 1-8 spans, one of them failing in `failed` traces; each trace is spread over neighbouring requests."""
    rnd, out = random.Random(seed), Corpus()
    flags = [False] * clean + [True] * failed
    rnd.shuffle(flags)
    placed: list[tuple[float, Span]] = []
    for position, fails in enumerate(flags):
        made = one_trace(rnd, fails, len(out.failed))
        (out.failed if fails else out.clean)[made[0].trace_id.hex()] = {each.span_id.hex() for each in made}
        placed += [(position + rnd.uniform(0, 200), each) for each in made]
    placed.sort(key=lambda pair: pair[0])
    ordered = [each for _, each in placed]
    resource = {"service.name": service, "service.version": "1.0.0", "deployment.environment": "production"}
    out.requests = [traces(*ordered[i : i + size], resource=resource) for i in range(0, len(ordered), size)]
    return out


def one_trace(rnd: random.Random, fails: bool, number: int) -> list[Span]:
    """A root with up to seven children; when it fails, exactly one span says so, in one of the ways of FAILURES."""
    trace_id, root, count = rnd.randbytes(16), rnd.randbytes(8), rnd.randint(1, 8)
    bad = rnd.randrange(count) if fails else -1
    out = []
    for index in range(count):
        how = FAILURES[number % len(FAILURES)] if index == bad else {}
        values = {"http.route": "/chat", "step": index, **how.get("values", {})}
        parent = root if index else b""
        ident = rnd.randbytes(8) if index else root
        out.append(span(f"step {index}", values, trace=trace_id, parent=parent, span_id=ident, error=how.get("error", False)))
    return out


@contextmanager
def channel(port: int) -> Iterator[grpc.Channel]:
    """A client connection."""
    with grpc.insecure_channel(f"{LOOPBACK}:{port}") as connection:
        yield connection


SIGNALS = {"traces": ("trace", "Trace"), "metrics": ("metrics", "Metrics"), "logs": ("logs", "Logs")}


def send(port: int, requests: Iterable[Any], signal: str = "traces") -> None:
    """Send each request once over gRPC; a refusal raises grpc.RpcError."""
    with channel(port) as connection:
        call = connection.unary_unary(EXPORT.format(*SIGNALS[signal]), lambda request: request.SerializeToString(), bytes)
        for request in requests:
            call(request, timeout=20)


class Sink:
    """An OTLP gRPC trace backend that can be stopped and started again on the same port, or made to hang."""

    def __init__(self) -> None:
        self.port, self.arrived, self.copies = free_port(), dict[bytes, float](), 0
        self.answering = threading.Event()
        self.answering.set()
        self._server: grpc.Server | None = None
        self._lock = threading.Lock()

    def start(self) -> Self:
        """Listen."""
        path = EXPORT.format(*SIGNALS["traces"])
        handler = grpc.unary_unary_rpc_method_handler(
            self._take, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
        )
        service, _, method = path[1:].rpartition("/")
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        assert self._server.add_insecure_port(f"{LOOPBACK}:{self.port}") == self.port
        self._server.start()
        return self

    def stop(self) -> None:
        """Close the port at once."""
        self.answering.set()
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def _take(self, request: ExportTraceServiceRequest, _: object) -> ExportTraceServiceResponse:
        self.answering.wait()
        now = time.monotonic()
        with self._lock:
            for group in request.resource_spans:
                for scope in group.scope_spans:
                    for each in scope.spans:
                        self.copies += each.span_id in self.arrived
                        self.arrived.setdefault(each.span_id, now)
        return ExportTraceServiceResponse()


class Steady(threading.Thread):
    """Sends spans at a steady rate in requests of 50 until told to stop; fresh trace ids in every request."""

    def __init__(self, port: int, rate: int, seed: int = 3) -> None:
        super().__init__(daemon=True)
        self.port, self.rate, self.sent, self.refused = port, rate, dict[bytes, float](), list[str]()
        self.acknowledged: list[float] = []
        self._rnd, self._done = random.Random(seed), threading.Event()

    def run(self) -> None:
        """Send until `finish` is called."""
        with channel(self.port) as connection:
            call = connection.unary_unary(EXPORT.format("trace", "Trace"), lambda request: request.SerializeToString(), bytes)
            began, number = time.monotonic(), 0
            while not self._done.wait(max(0.0, began + number * 50 / self.rate - time.monotonic())):
                made = [each for _ in range(10) for each in self._trace()]
                sent = time.monotonic()
                try:
                    call(traces(*made, resource={"service.name": "steady"}), timeout=10)
                    self.acknowledged.append(time.monotonic() - sent)
                    self.sent.update((each.span_id, sent) for each in made)
                except grpc.RpcError as error:
                    self.refused.append(str(error))
                number += 1

    def _trace(self) -> list[Span]:
        trace_id = self._rnd.randbytes(16)
        return [span("work", {"step": i}, trace=trace_id, span_id=self._rnd.randbytes(8)) for i in range(5)]

    def finish(self) -> None:
        """Stop and wait for the last request."""
        self._done.set()
        self.join()
