// An application with the unmodified Node SDK: everything about the destination comes from OTEL_* variables.
// Prints one line of JSON: the ids and numbers the test looks for.
import { trace, metrics, SpanStatusCode } from "@opentelemetry/api";
import { logs, SeverityNumber } from "@opentelemetry/api-logs";
import { NodeSDK } from "@opentelemetry/sdk-node";

const sdk = new NodeSDK();
sdk.start();

const tracer = trace.getTracer("node-client");
const counter = metrics.getMeter("node-client").createCounter("node.jobs", { unit: "{job}" });
const logger = logs.getLogger("node-client");
const traces = [];
for (let i = 0; i < 5; i++) {
  tracer.startActiveSpan("process_request", (parent) => {
    tracer.startActiveSpan("chat gpt-4o", (span) => {
      span.setAttributes({
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.id": `node-${process.pid}-${i}`,
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 200,
        "app.ratio": 0.5,
        "app.tags": ["a", "b"],
        "user.note": "write to anna.node@example.org",
      });
      if (i === 4) span.setStatus({ code: SpanStatusCode.ERROR, message: "boom" });
      logger.emit({ severityNumber: SeverityNumber.INFO, severityText: "INFO", body: `job ${i} done` });
      span.end();
    });
    counter.add(2, { queue: "fast" });
    traces.push(parent.spanContext().traceId);
    parent.end();
  });
}
await sdk.shutdown();
console.log(JSON.stringify({ traces, jobs: 10, calls: 5, cost: 5 * 0.0045 }));
