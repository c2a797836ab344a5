"""Compares what the default chain makes of generated requests with what the plain reference makes of them.

`python -m bench.oracle`. The reference (`bench.naive`) decodes everything and loops over every attribute. Compared are the kept
spans, every attribute of each (personal data and secrets must be gone from both, and all text around them the same), and the cost
of each call to 1e-12 USD.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.load import Shape, requests
from bench.naive import Naive
from bench.smoke import Chain

STEP = 0.05
"""Seconds of the samplers' time between two requests."""
PLANTED = (
    "jane.doe@example.com",
    "4111 1111 1111 1111",
    "AKIAIOSFODNN7EXAMPLQ",
    "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8",
    "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
)
_MASK = "\N{WHITE SQUARE}"
_FAILURES: tuple[tuple[str, str | int], ...] = (
    ("error.type", "timeout"),
    ("http.response.status_code", 503),
    ("status", "error"),
)
_COST, _OWN = "gen_ai.usage.cost", ("llm.", "gen_ai.")


class Different(Exception):
    """The two do not agree."""


def vary(request: ExportTraceServiceRequest, dice: random.Random) -> bytes:
    """Failures of every kind and data of every kind planted, where chance wills."""
    for span in request.resource_spans[0].scope_spans[0].spans:
        if dice.random() < 0.01:
            key, value = dice.choice(_FAILURES)
            entry = next((e for e in span.attributes if e.key == key), None) or span.attributes.add(key=key)
            setattr(entry.value, "int_value" if isinstance(value, int) else "string_value", value)
        if dice.random() < 0.1:
            text = f"before {dice.choice(PLANTED)} after"
            span.attributes.add(key="app.planted").value.string_value = text
    return request.SerializeToString()


def generated(count: int, seed: int) -> Iterator[bytes]:
    """Encoded requests of one to 64 spans."""
    dice = random.Random(seed)
    streams = [requests(seed + size, size, Shape(personal=0.05)) for size in (1, 3, 16, 64)]
    for _ in range(count):
        yield vary(ExportTraceServiceRequest.FromString(next(dice.choice(streams)).data), dice)


def spans(data: bytes | None) -> dict[bytes, Span]:
    """Spans of a request by id."""
    groups = ExportTraceServiceRequest.FromString(data or b"").resource_spans
    return {span.span_id: span for group in groups for scope in group.scope_spans for span in scope.spans}


_TOKEN = re.compile(r"\*{4}(?:[ -]?\*{4})*(?:[ -]?\d{4})?|\[[A-Z_:]+\]")


def meaning(span: Span) -> tuple[dict[str, Any], float | None]:
    """A span with every mask of the same form and without what pricing adds; its cost."""
    fields = MessageToDict(span)
    cost, kept = None, {}
    for entry in span.attributes:
        value = getattr(entry.value, entry.value.WhichOneof("value") or "string_value")
        if entry.key in (_COST, "llm.cost.usd"):
            cost = value
        else:
            kept[entry.key] = _TOKEN.sub(_MASK, value) if isinstance(value, str) else value
    return {**fields, "attributes": kept, "traceState": ""}, cost


def compare(before: Span, ours: Span, reference: Span) -> None:
    """Raises Different."""
    (mine, my_cost), (theirs, their_cost) = meaning(ours), meaning(reference)
    known = {entry.key for entry in before.attributes}
    mine["attributes"] = {k: v for k, v in mine["attributes"].items() if k in known or not k.startswith(_OWN)}
    if mine != theirs:
        keys = [key for key in theirs if mine[key] != theirs[key]]
        raise Different(f"{keys}: {[mine[key] for key in keys]} and {[theirs[key] for key in keys]}")
    if (my_cost is None) != (their_cost is None) or (my_cost is not None and abs(my_cost - (their_cost or 0.0)) > 1e-12):
        raise Different(f"cost {my_cost} and {their_cost}")
    text = ours.SerializeToString()
    for secret in PLANTED:
        if secret.encode() in text:
            raise Different(f"{secret} left")


def agree(count: int, seed: int = 1) -> dict[str, int]:
    """Run both over `count` requests; counts of what was compared. Raises Different."""
    chain, naive = Chain(), Naive()
    seen: dict[bytes, Span] = {}
    kept: tuple[dict[bytes, Span], dict[bytes, Span]] = ({}, {})
    total = compared = 0
    for number, data in enumerate(generated(count, seed)):
        given = spans(data)
        total += len(given)
        seen |= given
        for out, process in zip(kept, (chain.process, naive.process), strict=True):
            out |= spans(process(data, number * STEP))
        if kept[0].keys() != kept[1].keys():
            raise Different(f"request {number}: {len(kept[0])} and {len(kept[1])} spans kept")
        for key, span in kept[0].items():
            compare(seen[key], span, kept[1][key])
        compared += len(kept[0])
        kept[0].clear()
        kept[1].clear()
        if number % 200 == 0:
            seen = dict(list(seen.items())[-20_000:])
    if abs(chain.cost() - naive.cost) > 1e-12 * max(1, naive.calls):
        raise Different(f"{chain.cost()} USD counted, {naive.cost} true")
    return {"oracle_requests": count, "spans": total, "kept": compared, "calls": naive.calls}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.oracle", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(agree(options.requests)))
    except Different as error:
        print(f"DIFFERENT: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
