"""The collectors that are measured, each with the configuration of its own that does a given work.

Works: `pass` - receive, batch, send; `default` - price LLM calls, keep traces with an error and ten percent of the rest, remove
personal data and secrets, send; `redact` - keep everything, remove personal data and secrets, send.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = Path(
    os.environ.get("OTEL_SIDECAR_PEERS", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "otel-sidecar/peers")
)
POLICIES = [
    {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
    {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}},
]
DECISION_WAIT = 5
RATES = {
    "gpt-4o": ("0.0000025", "0.00001"),
    "gpt-4o-mini": ("0.00000015", "0.0000006"),
    "gpt-4.1": ("0.000002", "0.000008"),
    "o3": ("0.000002", "0.000008"),
    "claude-sonnet-4-5": ("0.000003", "0.000015"),
}
"""USD per input and output token, for the peer, which has no price list."""
BLOCKED = [
    r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
    r"\b\d{3}-\d{2}-\d{4}\b",
    r"\b(?:4\d{3}|5[1-5]\d{2}|6011)[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}\b",
    r"\b3[47]\d{2}[ -]?\d{6}[ -]?\d{5}\b",
    r"\+\d{1,3}[ -]?\(?\d{1,4}\)?[ -]?\d{3,4}[ -]?\d{3,4}",
    r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"sk-[A-Za-z0-9_-]{20,}",
    r"gh[pousr]_[A-Za-z0-9]{36}",
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"glpat-[A-Za-z0-9_-]{20}",
    r"xox[abprs]-[A-Za-z0-9-]{10,}",
    r"AIza[A-Za-z0-9_-]{35}",
    r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    r"(?i)bearer [a-z0-9._~+/-]{16,}",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    r"(?i)(?:password|passwd|pwd|secret)\s*[=:]\s*\S+",
    r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b",
    r"[a-z]+://[^/\s:@]+:[^/\s:@]+@",
]
"""What the peer and the plain reference look for: twenty of the kinds that this product's defaults cover."""
_LIMITER: dict[str, Any] = {"memory_limiter": {"check_interval": "1s", "limit_percentage": 75}}
_SAMPLING: dict[str, Any] = {
    "tail_sampling": {"policies": POLICIES, "decision_wait": f"{DECISION_WAIT}s", "num_traces": 1_000_000}
}
STEPS: dict[str, dict[str, Any]] = {
    "pass": _LIMITER,
    "default": {**_LIMITER, "llm_cost": {}, **_SAMPLING, "redaction": {}},
    "redact": {**_LIMITER, "redaction": {}},
}
"""This product's processors for each work."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a program listens and where it sends to."""

    grpc: int
    http: int
    target: int


def command(program: str, work: str, ports: Ports, folder: Path, *, gzip: bool = False) -> Sequence[str]:
    """How to start a program for a work; writes its configuration into `folder`. `gzip`: compress what is sent."""
    if program == "rotel":
        return _rotel(ports, folder)
    config = folder / "config.yaml"
    steps = _otelcol(work) if program == "otelcol" else STEPS[work]
    config.write_text(json.dumps(_collector(ports, steps, gzip)))
    if program == "otelcol":
        return [str(PEERS / "otelcol"), "--config", str(config)]
    return [sys.executable, "-m", "collector", "run", "--config", str(config)]


def _otelcol(work: str) -> dict[str, Any]:
    """The peer's processors for a work."""
    batch: dict[str, Any] = {"batch": {}}
    redaction = {"redaction": {"allow_all_keys": True, "blocked_values": BLOCKED, "summary": "silent"}}
    steps: dict[str, dict[str, Any]] = {
        "pass": batch,
        "default": {"transform": {"trace_statements": _prices()}, **_SAMPLING, **redaction, **batch},
        "redact": {**redaction, **batch},
    }
    return steps[work]


def _prices() -> list[dict[str, Any]]:
    def tokens(kind: str) -> str:
        return f'Double(attributes["gen_ai.usage.{kind}_tokens"])'

    lines = [
        f'set(attributes["gen_ai.usage.cost"], {tokens("input")} * {paid} + {tokens("output")} * {got})'
        f' where attributes["gen_ai.response.model"] == "{model}"'
        for model, (paid, got) in RATES.items()
    ]
    return [{"context": "span", "statements": lines}]


def _collector(ports: Ports, steps: dict[str, Any], gzip: bool) -> dict[str, Any]:
    """The same file for both that read this format."""
    logs = {name: options for name, options in steps.items() if name not in ("llm_cost", "tail_sampling", "transform")}
    protocols = {
        "grpc": {"endpoint": f"127.0.0.1:{ports.grpc}", "max_recv_msg_size_mib": 64},
        "http": {"endpoint": f"127.0.0.1:{ports.http}", "max_request_body_size": 64 << 20},
    }
    target = {"endpoint": f"127.0.0.1:{ports.target}", "tls": {"insecure": True}, "compression": "gzip" if gzip else "none"}
    pipes = {"traces": list(steps), "logs": list(logs), "metrics": [name for name in logs if name != "redaction"]}
    return {
        "receivers": {"otlp": {"protocols": protocols}},
        "processors": steps,
        "exporters": {"otlp_grpc": target},
        "service": {
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "error"}},
            "pipelines": {
                signal: {"receivers": ["otlp"], "processors": names, "exporters": ["otlp_grpc"]}
                for signal, names in pipes.items()
            },
        },
    }


def _rotel(ports: Ports, folder: Path) -> Sequence[str]:
    options = {
        "pid-file": str(folder / "pid"),
        "otlp-grpc-endpoint": f"127.0.0.1:{ports.grpc}",
        "otlp-http-endpoint": f"127.0.0.1:{ports.http}",
        "otlp-grpc-max-recv-msg-size-mib": "64",
        "exporter": "otlp",
        "otlp-exporter-endpoint": f"http://127.0.0.1:{ports.target}",
    }
    return [str(PEERS / "rotel"), "start", *(part for name, value in options.items() for part in (f"--{name}", value))]
