"""otlp.answers: what servers say and how clients read it."""

from __future__ import annotations

from email.utils import formatdate

import orjson
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Malformed, Refused, TooLarge, Undeliverable
from collector.model import Signal
from collector.otlp.answers import (
    CODES,
    GRPC_CODE,
    HTTP_STATUS,
    RETRYABLE_CODES,
    RETRYABLE_STATUSES,
    failure,
    read_failure,
    read_retry_after,
    read_success,
    success,
)

BOTH = pytest.mark.parametrize("json", [False, True])
EACH = pytest.mark.parametrize("signal", list(Signal))


@BOTH
@EACH
def test_full_success_leaves_partial_success_unset(signal: Signal, json: bool) -> None:
    """Rule 8."""
    assert success(signal, json=json) == (b"{}" if json else b"")
    assert read_success(signal, success(signal, json=json), json=json) == (0, "")


@BOTH
@EACH
@pytest.mark.parametrize(("rejected", "message"), [(3, "bad ids"), (0, "a warning"), (1 << 40, "")])
def test_partial_success_is_read_as_it_was_written(signal: Signal, json: bool, rejected: int, message: str) -> None:
    """Rule 9."""
    assert read_success(signal, success(signal, rejected, message, json=json), json=json) == (rejected, message)


@BOTH
def test_own_messages_stay_short(json: bool) -> None:
    """Rule 6."""
    assert len(success(Signal.LOGS, 1, "x" * 5000, json=json)) < 1200
    assert len(failure(Malformed("x" * 5000)).body(json=json)) < 2400


@BOTH
def test_overload_is_unavailable_with_a_delay(json: bool) -> None:
    """Rules 13 and 17."""
    answer = failure(Refused("full", after=2.5))
    assert (answer.code, answer.http_status, answer.retry_after) == ("UNAVAILABLE", 503, "3")
    assert read_failure(answer.body(json=json), json=json) == ("full", 2.5)


def test_bad_data_is_invalid_argument_with_bad_request() -> None:
    """Rules 13 and 16."""
    answer = failure(Malformed("line 1"))
    assert (answer.code, answer.http_status, answer.retry_after) == ("INVALID_ARGUMENT", 400, None)
    detail = error_details_pb2.BadRequest()
    assert status_pb2.Status.FromString(answer.body()).details[0].Unpack(detail)
    assert detail.field_violations[0].description == "line 1"
    assert orjson.loads(answer.body(json=True))["details"][0]["fieldViolations"][0]["description"] == "line 1"


@BOTH
def test_too_large_has_no_retry_info(json: bool) -> None:
    """Rule 3."""
    answer = failure(TooLarge("over"))
    assert (answer.code, answer.http_status) == ("RESOURCE_EXHAUSTED", 413)
    assert read_failure(answer.body(json=json), json=json) == ("over", None)


def test_other_errors_do_not_tell_their_text() -> None:
    assert failure(RuntimeError("secret")).message == "internal error"
    assert failure(Undeliverable("backend said no")).message == "backend said no"


def test_code_tables_are_those_of_the_specification() -> None:
    """Rules 12 and 15."""
    assert {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"} == RETRYABLE_CODES
    assert {429, 502, 503, 504} == RETRYABLE_STATUSES
    assert [HTTP_STATUS.get(code, 500) for code in CODES] == [
        200, 503, 500, 400, 503, 500, 500, 403, 429, 500, 503, 503, 404, 500, 503, 503, 401]  # fmt: skip
    assert GRPC_CODE[503] == "UNAVAILABLE"
    assert 500 not in GRPC_CODE


def test_retry_after_is_read_in_both_forms() -> None:
    """Rule 17."""
    now = 1_700_000_000.0
    assert read_retry_after("7", now) == 7
    assert read_retry_after(formatdate(now + 30, usegmt=True), now) == 30
    assert read_retry_after(formatdate(now - 30, usegmt=True), now) == 0
    assert read_retry_after("99999999999999", now) == 86400


@pytest.mark.parametrize("header", [None, "", "soon", "-1", "1.5", "١", "Mon, 99 Foo 2026"])
def test_an_unreadable_retry_after_is_none(header: str | None) -> None:
    assert read_retry_after(header, 0) is None


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_retry_after_text_is_harmless(text: str) -> None:
    delay = read_retry_after(text, 1e9)
    assert delay is None or 0 <= delay <= 86400


@BOTH
@pytest.mark.parametrize(
    "body",
    [b"\xff", b"[]", b'{"details":5}', b'{"details":[5]}', b"<html>",
     b'{"details":[{"@type":"x/google.rpc.RetryInfo","retryDelay":"soon"}]}', b""],
)  # fmt: skip
def test_other_error_bodies_are_no_status(json: bool, body: bytes) -> None:
    assert read_failure(body, json=json) == ("", None)


def test_an_endless_delay_is_none() -> None:
    body = b'{"message":"m","details":[{"@type":"x"},{"@type":"x/google.rpc.RetryInfo","retryDelay":"nans"}]}'
    assert read_failure(body, json=True) == ("m", None)


@BOTH
@pytest.mark.parametrize("body", [b"\xff", b"[]", b'{"partialSuccess":[1]}', b'{"partialSuccess":{"rejectedSpans":["x"]}}', b"{"])
def test_a_broken_response_is_malformed(json: bool, body: bytes) -> None:
    if json or body in (b"\xff",):
        with pytest.raises(Malformed):
            read_success(Signal.TRACES, body, json=json)


def test_negative_rejected_counts_are_zero() -> None:
    assert read_success(Signal.TRACES, b'{"partialSuccess":{"rejectedSpans":-3}}', json=True) == (0, "")
