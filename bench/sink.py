"""A gRPC backend in a process of its own that keeps what it is sent and says what it was: `python -m bench.sink`.

Commands on standard input, one JSON answer each: `count` - items so far, `report` - everything about them. The first line it
prints is its port. It decodes with the official classes, not with what is measured.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.client import METHODS
from bench.load import CANARY

COSTS = ("gen_ai.usage.cost", "llm.cost_usd")
"""Keys under which the programs write the price of a call."""


class Sink:
    """Counts as it is asked to, so that receiving stays cheap."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        self.items, self._seen = 0, 0
        self.spans: Counter[str] = Counter()
        self.priced, self.cost, self.canaries = 0, 0.0, 0
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 128 << 20)])
        for signal, path in METHODS.items():
            service, method = path[1:].split("/")
            handler = grpc.unary_unary_rpc_method_handler(lambda data, _, signal=signal: self._take(signal, data))
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _take(self, signal: str, data: bytes) -> bytes:
        self.bodies.append((signal, data))
        return b""

    def count(self) -> int:
        """Items so far."""
        while self._seen < len(self.bodies):
            signal, data = self.bodies[self._seen]
            self.bodies[self._seen] = (signal, b"")
            self._seen += 1
            self.canaries += data.count(CANARY.encode())
            self.items += getattr(self, f"_{signal}")(data)
        return self.items

    def report(self) -> dict[str, Any]:
        """All that arrived."""
        self.count()
        return {"items": self.items, "spans": self.spans, "priced": self.priced, "cost": self.cost, "canaries": self.canaries}

    def _traces(self, data: bytes) -> int:
        before = self.spans.total()
        for group in ExportTraceServiceRequest.FromString(data).resource_spans:
            for scope in group.scope_spans:
                self.spans.update([span.trace_id.hex() for span in scope.spans])
                for span in scope.spans:
                    if span.name.startswith("chat "):
                        self._price(span)
        return self.spans.total() - before

    def _price(self, span: Span) -> None:
        for entry in reversed(span.attributes):
            if entry.key in COSTS:
                self.priced += 1
                self.cost += entry.value.double_value
                return

    def _logs(self, data: bytes) -> int:
        groups = ExportLogsServiceRequest.FromString(data).resource_logs
        return sum(len(scope.log_records) for group in groups for scope in group.scope_logs)

    def _metrics(self, data: bytes) -> int:
        groups = ExportMetricsServiceRequest.FromString(data).resource_metrics
        return sum(_points(metric) for group in groups for scope in group.scope_metrics for metric in scope.metrics)


def _points(metric: Metric) -> int:
    return len(getattr(metric, metric.WhichOneof("data") or "gauge").data_points)


def main() -> None:
    """Serve until standard input ends."""
    sink = Sink()
    print(sink.port, flush=True)
    for line in sys.stdin:
        print(json.dumps(sink.count() if line.strip() == "count" else sink.report()), flush=True)


if __name__ == "__main__":
    main()
