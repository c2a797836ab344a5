"""What backends say is cut, made printable and logged at a bounded rate."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.exporters._replies import Notices, excerpt
from tests.support import settings as component_settings


@settings(max_examples=100, deadline=None)
@given(st.text() | st.binary())
def test_an_excerpt_is_one_printable_line_of_at_most_1_kib(text: str | bytes) -> None:
    found = excerpt(text)
    assert len(found.encode()) <= 1024
    assert found.isprintable()


def test_an_excerpt_never_ends_inside_a_character() -> None:
    assert excerpt("ä" * 5000) == "ä" * 512
    assert excerpt(("x" + "ä" * 5000).encode()) == "x" + "ä" * 511


def test_secrets_are_masked_but_not_values_too_short_to_be_one() -> None:
    assert excerpt("key abcdef1 of team 7", ["abcdef1", "7"]) == "key **** of team 7"


def test_a_secret_is_masked_before_the_text_is_cut() -> None:
    assert "abcdef" not in excerpt("x" * 1020 + "abcdef-secret", ["abcdef-secret"])


def test_notices_are_one_line_in_ten_seconds_with_the_sums(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    notices = Notices(component_settings(), lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            notices.partial_success(number, "no")
        now[0] = 10.0
        notices.partial_success(1, "still no")
    assert [(r.rejected, r.answers, r.said) for r in caplog.records] == [(0, 1, "no"), (11, 5, "still no")]
