"""Configurations that the end-to-end tests run: the product's standard pipelines in front of real backends."""

from __future__ import annotations

from typing import Any

from tests.e2e.stack import LOOPBACK, Jaeger, Loki


def standard(jaeger: Jaeger, loki: Loki, share: float = 100, **exporters: dict[str, Any]) -> dict[str, Any]:
    """All three signals, the default order of processors, `share` percent of clean traces; more exporters by name."""
    policies = [
        {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
        {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": share}},
    ]
    more = list(exporters)
    return {
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_mib": 600, "spike_limit_mib": 100},
            "llm_cost": {},
            "tail_sampling": {"policies": policies},
            "redaction": {},
        },
        "exporters": {
            "otlp_grpc/jaeger": {"endpoint": f"{LOOPBACK}:{jaeger.grpc}", "tls": {"insecure": True}},
            "loki": {"endpoint": f"http://{LOOPBACK}:{loki.http}/loki/api/v1/push"},
            "prometheus": {},
            **exporters,
        },
        "service": {
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "llm_cost", "tail_sampling", "redaction"],
                    "exporters": ["otlp_grpc/jaeger", *more],
                },
                "metrics": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "redaction"],
                    "exporters": ["prometheus", *more],
                },
                "logs": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "redaction"],
                    "exporters": ["loki", *more],
                },
            }
        },
    }


def two_destinations(endpoints: dict[str, str], **queues: dict[str, Any]) -> dict[str, Any]:
    """Unsampled traces to several OTLP gRPC destinations, each with a queue of its own (settings by name)."""
    exporters = {
        f"otlp_grpc/{name}": {
            "endpoint": endpoint,
            "tls": {"insecure": True},
            "sending_queue": {"queue_size": 100_000, **queues.get(name, {})},
        }
        for name, endpoint in endpoints.items()
    }
    return {
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_mib": 600, "spike_limit_mib": 100},
            "llm_cost": {},
            "redaction": {},
        },
        "exporters": exporters,
        "service": {
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": ["memory_limiter", "llm_cost", "redaction"],
                    "exporters": list(exporters),
                }
            }
        },
    }
