"""What an OTLP server answers and how a client reads it: google.rpc.Status, RetryInfo, BadRequest, partial success.

Sources: OTLP specification (Failures, Partial Success, HTTP Response); google/rpc/{status,code,error_details}.proto; RFC 9110
section 10.2.3 (Retry-After). Status bodies are protobuf or JSON, like the request they answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collector.errors import Malformed, Refused, Rejected
from collector.model import Signal

CODES = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
"""gRPC code names; the position is the number."""
RETRYABLE_CODES = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})
"""gRPC codes a client sends again after; RESOURCE_EXHAUSTED too, but only with RetryInfo."""
RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
"""HTTP statuses an OTLP client sends again after; no other."""
HTTP_STATUS = dict.fromkeys(RETRYABLE_CODES, 503) | {
    "OK": 200,
    "RESOURCE_EXHAUSTED": 429,
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "UNIMPLEMENTED": 404,
}
"""gRPC code -> HTTP status; 500 for what is not here (otelcol: receiver/otlpreceiver/internal/errors)."""
GRPC_CODE = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    405: "UNIMPLEMENTED",
    413: "RESOURCE_EXHAUSTED",
    415: "UNIMPLEMENTED",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}
"""HTTP status -> gRPC code; UNKNOWN for what is not here (otelcol: internal/statusutil)."""
_RESPONSE: dict[Signal, Any] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.LOGS: ExportLogsServiceResponse,
}
_REJECTED = {
    Signal.TRACES: ("rejected_spans", "rejectedSpans"),
    Signal.METRICS: ("rejected_data_points", "rejectedDataPoints"),
    Signal.LOGS: ("rejected_log_records", "rejectedLogRecords"),
}
_LONGEST = 1024  # OTLP: a server keeps its own answers short
_MAX_DELAY = 86400.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An error answer: gRPC code name, HTTP status, English message; `after` = seconds until the client may try again."""

    code: str
    http_status: int
    message: str
    after: float | None = None

    @property
    def retry_after(self) -> str | None:
        """The Retry-After header, whole seconds."""
        return None if self.after is None else str(max(1, math.ceil(self.after)))

    def body(self, *, json: bool = False) -> bytes:
        """google.rpc.Status; in protobuf it is also the value of gRPC's `grpc-status-details-bin`."""
        number, message = CODES.index(self.code), self.message[:_LONGEST]
        if json:
            return orjson.dumps({"code": number, "message": message, "details": self._details_json(message)})
        status = status_pb2.Status(code=number, message=message)
        if self.after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.after * 1e9))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        if self.code == "INVALID_ARGUMENT":
            violation = error_details_pb2.BadRequest.FieldViolation(field="body", description=message)
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        data: bytes = status.SerializeToString()
        return data

    def _details_json(self, message: str) -> list[dict[str, Any]]:
        details: list[dict[str, Any]] = []
        if self.after is not None:
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{self.after:.9g}s"})
        if self.code == "INVALID_ARGUMENT":
            violations = [{"field": "body", "description": message}]
            details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations})
        return details


def failure(error: BaseException) -> Failure:
    """The answer to an error; anything but our own classes becomes INTERNAL / 500 without its text."""
    if isinstance(error, Refused):
        return Failure("UNAVAILABLE", 503, str(error), error.after)
    if isinstance(error, Rejected):
        return Failure(error.grpc_code, error.http_status, str(error))
    return Failure("INTERNAL", 500, "internal error")


def success(signal: Signal, rejected: int = 0, message: str = "", *, json: bool = False) -> bytes:
    """The Export...ServiceResponse; partial_success is unset (and protobuf empty) when there is nothing to say."""
    snake, camel = _REJECTED[signal]
    message = message[:_LONGEST]
    if not rejected and not message:
        return b"{}" if json else b""
    if json:
        partial: dict[str, Any] = {camel: str(rejected)} if rejected else {}
        return orjson.dumps({"partialSuccess": partial | ({"errorMessage": message} if message else {})})
    response = _RESPONSE[signal]()
    setattr(response.partial_success, snake, rejected)
    response.partial_success.error_message = message
    data: bytes = response.SerializeToString()
    return data


def read_success(signal: Signal, body: bytes, *, json: bool = False) -> tuple[int, str]:
    """Rejected items and message of a response with status OK; (0, "") for full success. Raises Malformed."""
    snake, camel = _REJECTED[signal]
    if json:
        partial = _object(_loads(body).get("partialSuccess") or {})
        try:
            return max(0, int(partial.get(camel) or 0)), str(partial.get("errorMessage") or "")
        except (TypeError, ValueError):
            raise Malformed("the response is not an OTLP response") from None
    try:
        response = _RESPONSE[signal].FromString(body)
    except DecodeError:
        raise Malformed("the response is not an OTLP response") from None
    return max(0, getattr(response.partial_success, snake)), response.partial_success.error_message


def read_failure(body: bytes, *, json: bool = False) -> tuple[str, float | None]:
    """Message of a google.rpc.Status and its RetryInfo delay in seconds; ("", None) when the body is something else.

    For HTTP bodies and for gRPC's `grpc-status-details-bin`.
    """
    try:
        return _status_json(body) if json else _status_protobuf(body)
    except (DecodeError, Malformed, ValueError, TypeError, AttributeError):
        return "", None


def _status_protobuf(body: bytes) -> tuple[str, float | None]:
    status = status_pb2.Status.FromString(body)
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return status.message, _sane(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    return status.message, None


def _status_json(body: bytes) -> tuple[str, float | None]:
    status = _loads(body)
    message = str(status.get("message") or "")
    for detail in status.get("details") or ():
        if str(detail.get("@type", "")).endswith("/google.rpc.RetryInfo"):
            return message, _sane(float(str(detail.get("retryDelay", "")).removesuffix("s")))
    return message, None


def read_retry_after(header: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header, in either form; `now` is wall time. None when absent or unreadable."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return _sane(float(text[:12]))
    try:
        return _sane(parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _sane(delay: float) -> float | None:
    """A backend cannot make us wait for ever, nor send again at once by a time in the past."""
    return min(max(delay, 0.0), _MAX_DELAY) if math.isfinite(delay) else None


def _loads(body: bytes) -> dict[str, Any]:
    try:
        return _object(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise Malformed("the response is not JSON") from None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed("the response is not a JSON object")
    return value
