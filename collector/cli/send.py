"""`otel-sidecar send`: a sample LLM conversation, so that there is something to see. Standard library only."""

from __future__ import annotations

import http.client
import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import click

from collector.cli import Command

PROMPT = "Write to jane.doe@example.com that order 4711 ships today. My card is 4111 1111 1111 1111."
ANSWER = "Done: jane.doe@example.com knows that order 4711 ships today."
MODEL, INPUT_TOKENS, OUTPUT_TOKENS = "gpt-4o", 1000, 200


@click.command(cls=Command)
@click.option("--endpoint", default="http://127.0.0.1:4318", show_default=True, metavar="URL", help="An OTLP/HTTP receiver.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 10_000), help="How many conversations.")
@click.option("--error", is_flag=True, help="Let the LLM call fail.")
@click.option("--timeout", default=5.0, show_default=True, help="Seconds to wait for each answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def send(ctx: click.Context, endpoint: str, count: int, error: bool, timeout: float, as_json: bool) -> None:
    """Send one sample LLM conversation (a trace of three spans, a log record) with an e-mail address and a card number.

    What no pipeline of the receiver takes is skipped, and the output says so.

    The model is gpt-4o with 1000 input and 200 output tokens: the sidecar prices it and takes the personal data out.
    """
    results = []
    for _ in range(count):
        try:
            sent = send_one(endpoint, error=error, timeout=timeout)
        except ValueError as wrong:
            raise click.UsageError(str(wrong)) from wrong
        results += sent
        for result in sent if not as_json else ():
            click.echo(result.line())
    if as_json:
        click.echo(json.dumps({"schema": "otel-sidecar/send/v1", "sent": [asdict(result) for result in results]}, indent=2))
    if not any(result.status for result in results):
        click.echo("To start a sidecar there: otel-sidecar run --dev", err=True)
    ctx.exit(0 if all(result.status == 200 or result.skipped for result in results) else 1)


@dataclass(frozen=True)
class Sent:
    """One request and its answer; status 0 where there was none; `skipped`: other signals are taken there, this one is not."""

    signal: str
    trace_id: str
    status: int
    answer: str
    skipped: bool = False

    def line(self) -> str:
        """For people."""
        what = "3 spans" if self.signal == "traces" else "1 log record"
        if self.skipped:
            return f"skipped {what:<12} no pipeline takes {self.signal}"
        word = "sent" if self.status == 200 else "failed"
        outcome = f"{self.status} {'ok' if self.answer == '{}' else self.answer}" if self.status else self.answer
        return f"{word:<7} {what:<12} trace {self.trace_id}  {MODEL} {INPUT_TOKENS} + {OUTPUT_TOKENS} tokens  -> {outcome}"


def send_one(endpoint: str, *, error: bool, timeout: float) -> list[Sent]:
    """Send one conversation. Raises ValueError for an endpoint that is no http URL."""
    url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("--endpoint takes http://host:4318")
    trace_id = secrets.token_hex(16)
    results = []
    for signal, body in conversation(trace_id, time.time_ns(), error).items():
        path = f"{url.path.rstrip('/')}/v1/{signal}"
        results.append(Sent(signal, trace_id, *_post(url.scheme, url.netloc, path, body, timeout)))
    taken = any(result.status == 200 for result in results)  # else the whole address may be wrong
    return [replace(result, skipped=taken and result.status == 404) for result in results]


def _post(scheme: str, place: str, path: str, body: dict[str, Any], timeout: float) -> tuple[int, str]:
    """HTTP status and text of the answer; status 0 and the reason when there was none."""
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(place, timeout=timeout)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read(4096).decode(errors="replace").strip()
    except http.client.HTTPException:
        return 0, f"no HTTP answer from {place}: a gRPC port? The HTTP one is usually 4318"
    except OSError as failure:
        return 0, f"no answer from {place}: {failure.strerror or failure}"
    finally:
        connection.close()


def conversation(trace_id: str, now: int, error: bool) -> dict[str, dict[str, Any]]:
    """OTLP JSON for traces and logs. Names: OpenTelemetry semantic conventions for GenAI and HTTP."""
    request, call, tool = (secrets.token_hex(8) for _ in range(3))
    spans = [
        _span(trace_id, request, "", "POST /chat", 2, now, (2_000, 0), {"http.request.method": "POST", "http.route": "/chat"}),
        _span(trace_id, call, request, f"chat {MODEL}", 3, now, (1_900, 300), _call()),
        _span(trace_id, tool, request, "execute_tool mail", 1, now, (280, 20), {"gen_ai.tool.name": "mail"}),
    ]
    if error:
        spans[1]["status"] = {"code": 2, "message": "rate limited"}
        spans[1]["attributes"] += _attributes({"error.type": "rate_limit"})
    record = {
        "timeUnixNano": str(now),
        "severityNumber": 9,
        "severityText": "INFO",
        "body": {"stringValue": "sent mail to jane.doe@example.com"},
        "traceId": trace_id,
        "spanId": call,
    }
    resource = {"attributes": _attributes({"service.name": "sample-app", "service.instance.id": "sample-1"})}
    scope = {"name": "otel-sidecar.send"}
    return {
        "traces": {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]},
        "logs": {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": [record]}]}]},
    }


def _call() -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": f"chatcmpl-{secrets.token_hex(8)}",
        "gen_ai.usage.input_tokens": INPUT_TOKENS,
        "gen_ai.usage.output_tokens": OUTPUT_TOKENS,
        "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": PROMPT}]}]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}]}]),
    }


def _span(
    trace_id: str, span_id: str, parent: str, name: str, kind: int, now: int, ago: tuple[int, int], values: dict[str, Any]
) -> dict[str, Any]:
    """A span from `ago[0]` to `ago[1]` milliseconds before now."""
    return {
        "traceId": trace_id,
        "spanId": span_id,
        **({"parentSpanId": parent} if parent else {}),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(now - ago[0] * 1_000_000),
        "endTimeUnixNano": str(now - ago[1] * 1_000_000),
        "attributes": _attributes(values),
    }


def _attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": k, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": v}} for k, v in values.items()]
