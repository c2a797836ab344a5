"""The whole program: logs, metrics and traces of one call lead to each other."""

import json
import re
import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from bench.ports import free_port
from tests.exporters.servers import http_backend
from tests.scenarios.program import PROTOBUF, backend, delivered, program
from tests.support import any_value, eventually, span, traces

CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5, "gen_ai.server.time_to_first_token": 0.2}  # fmt: skip
SAMPLING = {"policies": [{"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}]}
HISTOGRAMS = {"llm_latency_seconds", "llm_cost_per_request_usd", "llm_time_to_first_token_seconds"}
EXEMPLAR = re.compile(r'(\w+)_bucket\{.*\} \S+ # \{trace_id="(\w+)"\} \S+ \d{10}\.\d+\n')


def logged(call):
    """A log line written during a call."""
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.time_unix_nano, record.trace_id, record.span_id = time.time_ns(), call.trace_id, call.span_id
    record.body.CopyFrom(any_value("asked"))
    return request


def calls():
    """Calls of three durations, each as one that an error keeps, the error, and one that the sampler drops."""
    for duration in (0.2, 3, 15):
        start = time.time_ns() - int(duration * 1e9)
        kept, dropped = (span("chat", CALL, start=start, duration=duration) for _ in range(2))
        yield kept, span(trace=kept.trace_id, error=True), dropped


async def test_a_log_line_and_the_buckets_of_histograms_lead_to_traces_that_the_backend_has(tmp_path):
    """R-109."""
    own, page, kept = free_port(), free_port(), []
    async with backend() as jaeger, http_backend() as loki, program(tmp_path) as sidecar:
        processors = {"llm_cost": {}, "tail_sampling": SAMPLING, "redaction": {}}
        configuration = sidecar.configuration(jaeger, processors=processors)
        configuration["exporters"] |= {
            "prometheus": {"endpoint": f"127.0.0.1:{page}"},
            "loki": {"endpoint": loki.url, "compression": "none", "sending_queue": {"batch": {"flush_timeout": "5ms"}}},
        }
        configuration["service"]["pipelines"] |= {
            "metrics": {"receivers": ["otlp"], "exporters": ["prometheus"]},
            "logs": {"receivers": ["otlp"], "processors": ["redaction"], "exporters": ["loki"]},
        }
        reader = {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": own}}}}
        configuration["service"]["telemetry"] = {"metrics": {"readers": [reader]}}
        await sidecar.start(configuration)

        async def send(path, request):
            url, body = f"http://127.0.0.1:{sidecar.http}/v1/{path}", request.SerializeToString()
            async with sidecar.session.post(url, data=body, headers=PROTOBUF) as answer:
                assert answer.status == 200

        async def read(port, accept):
            async with sidecar.session.get(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept}) as answer:
                return await answer.text()

        for call, error, dropped in calls():
            for each in (call, error, dropped):
                await send("traces", traces(each))
            kept.append(call)
        await send("logs", logged(kept[0]))
        await delivered(jaeger, {call.span_id for call in kept})
        (seen,) = await eventually(lambda: loki.seen)
        ((_, _, ids),) = json.loads(seen.body)["streams"][0]["values"]
        assert (ids["trace_id"], ids["span_id"]) == (kept[0].trace_id.hex(), kept[0].span_id.hex())
        for port in (own, page):
            found = EXEMPLAR.findall(await read(port, "application/openmetrics-text; version=1.0.0"))
            latency = [trace_id for family, trace_id in found if family == "llm_latency_seconds"]
            assert latency == [call.trace_id.hex() for call in kept]
            assert {family for family, _ in found} == HISTOGRAMS
            assert {trace_id for _, trace_id in found} <= set(latency)
            plain = await read(port, "text/plain")
            assert "llm_latency_seconds_bucket" in plain
            assert 'trace_id="' not in plain
        assert await sidecar.end() == 0
