"""An application that calls an LLM with the openai library and its real OpenTelemetry instrumentation.

Runs in its own environment (tests/e2e/build_clients.sh). Usage: llm.py BASE_URL. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys

import openai
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

ASK = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Write to bert.llm@example.org, please"}]}


def main(base_url: str) -> None:
    """A plain call, a stream with usage, a stream without, an embedding, and one that is rate-limited."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    with trace.get_tracer("app").start_as_current_span("process_request") as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
        client.chat.completions.create(**ASK)
        for options in ({"stream_options": {"include_usage": True}}, {}):
            for _ in client.chat.completions.create(**ASK, stream=True, **options):
                pass
        client.embeddings.create(model="text-embedding-3-small", input="a few words")
        try:
            client.chat.completions.create(**{**ASK, "model": "boom"})
        except openai.RateLimitError:
            pass
        else:
            raise SystemExit("the rate-limited call went through")
    provider.force_flush()
    provider.shutdown()
    print(json.dumps({"trace": trace_id, "cost": 0.00375 + 0.00375 + 0.00000016}))


if __name__ == "__main__":
    main(sys.argv[1])
