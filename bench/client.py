"""A load client in a process of its own: `python -m bench.client` with a pickled `Plan` on standard input, JSON out.

Closed loop: `lanes` requests are under way at any time. With a rate, each request is due at its time, and its latency counts from
then, so that a server that falls behind cannot hide it.
"""

from __future__ import annotations

import http.client
import itertools
import json
import pickle
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.load import Template

TIMEOUT = 30.0
_COLLECTOR = "/opentelemetry.proto.collector"
METHODS = {
    "traces": f"{_COLLECTOR}.trace.v1.TraceService/Export",
    "logs": f"{_COLLECTOR}.logs.v1.LogsService/Export",
    "metrics": f"{_COLLECTOR}.metrics.v1.MetricsService/Export",
}
"""gRPC method of each signal."""
MEDIA = {"grpc": "", "http": "application/x-protobuf", "json": "application/json"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send where. `rate`: requests a second, 0 = closed loop; `first`: number of the first request."""

    address: str
    signal: str
    protocol: str
    gzip: bool
    templates: list[Template]
    seconds: float
    rate: float
    lanes: int
    first: int


class Client:
    """Sends requests 0, 1, 2 ... and notes what became of each."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sent: list[int] = []
        self.failed: list[str] = []
        self.latencies: list[float] = []
        self._numbers = itertools.count(plan.first)
        self._lock = threading.Lock()

    def run(self) -> dict[str, object]:
        """The whole load; sorted latencies in seconds."""
        self._began = time.monotonic() + 0.05
        lanes = [threading.Thread(target=self._lane) for _ in range(self.plan.lanes)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        took = time.monotonic() - self._began
        return {"sent": sorted(self.sent), "failed": self.failed[:5], "latencies": sorted(self.latencies), "seconds": took}

    def _lane(self) -> None:
        plan, send = self.plan, self._sender()
        while True:
            with self._lock:
                number = next(self._numbers)
            due = self._began + (number - plan.first) / plan.rate if plan.rate else time.monotonic()
            if due >= self._began + plan.seconds:
                return
            body = plan.templates[number % len(plan.templates)].fresh(number)
            time.sleep(max(0.0, due - time.monotonic()))
            began = due if plan.rate else time.monotonic()
            try:
                send(body)
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {error}"[:300])
                continue
            self.latencies.append(time.monotonic() - began)
            self.sent.append(number)

    def _sender(self) -> Callable[[bytes], object]:
        return self._grpc() if self.plan.protocol == "grpc" else self._http()

    def _grpc(self) -> Callable[[bytes], object]:
        import grpc

        with self._lock:
            if not hasattr(self, "_channel"):
                self._channel = grpc.insecure_channel(self.plan.address)
        call = self._channel.unary_unary(METHODS[self.plan.signal])
        compression = grpc.Compression.Gzip if self.plan.gzip else grpc.Compression.NoCompression
        return lambda body: call(body, timeout=TIMEOUT, compression=compression)

    def _http(self) -> Callable[[bytes], object]:
        from isal import igzip

        plan, connection = self.plan, http.client.HTTPConnection(self.plan.address, timeout=TIMEOUT)
        headers = {"content-type": MEDIA[plan.protocol]} | ({"content-encoding": "gzip"} if plan.gzip else {})

        def send(body: bytes) -> None:
            connection.request("POST", f"/v1/{plan.signal}", igzip.compress(body, 1) if plan.gzip else body, headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise OSError(f"HTTP {answer.status} {said[:200]!r}")

        return send


if __name__ == "__main__":
    json.dump(Client(pickle.load(sys.stdin.buffer)).run(), sys.stdout)
