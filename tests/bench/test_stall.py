"""bench.stall: what it sends is OTLP, what it says comes from the program."""

import pytest

from bench import stall
from bench.smoke import Wrong
from collector.model import Signal, open_envelope
from collector.otlp.request import open_request
from tests.support import REQUEST


@pytest.mark.parametrize("case", stall.CASES, ids=lambda case: case.name)
def test_every_case_sends_a_valid_request_of_its_size(case):
    size = 4 * case.size * 10
    body, items = case.body(size)
    assert size * 0.5 < len(body) <= size + 200
    opened = open_request(Signal(case.signal), body)
    assert (opened.rejected, opened.batch.count()) == (0, items)
    assert b"jane.doe@example.com" in body
    REQUEST[Signal(case.signal)].FromString(body)
    assert all(abs(len(item) - case.size) < 100 for item in open_envelope(Signal(case.signal), body).items())


def test_large_requests_at_once_are_all_answered_and_booked_and_the_loop_goes_on():
    case = stall.CASES[0]
    row = stall.measure(case, "http", requests=4, size=4 << 20)
    assert row["answers"] == {"200": 4}
    assert row["taken_of_refused"] == 0
    assert 0 < row["stall_ms"] < 1000
    assert "4 200" in stall.line(row)


def test_an_acknowledged_item_that_is_in_no_book_is_an_error(monkeypatch):
    monkeypatch.setattr(stall, "_accepted", lambda *_: 0.0)
    monkeypatch.setattr(stall, "until", _briefly)
    with pytest.raises(Wrong, match="acknowledged, 0 in the books"):
        stall.measure(stall.CASES[4], "grpc", requests=1, size=1 << 20)


until = stall.until


def _briefly(condition, timeout):
    until(condition, timeout if timeout > 10 else 0.5)
