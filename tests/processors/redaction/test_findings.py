"""Which findings count and which one speaks for several."""

import pytest

from collector.processors.redaction.config import RedactionConfig
from collector.processors.redaction.findings import Finding, with_numbers

REDACTOR = RedactionConfig().build({})


def test_overlapping_findings_go_as_a_whole_under_the_strongest():
    assert REDACTOR.text("password=anna@example.com") == "password=[SECRET:KV_SECRET]"
    assert REDACTOR.text("postgres://u:pw@db.example.com/x") == "postgres://u:[SECRET:URL_CREDENTIALS]@db.example.com/x"
    assert REDACTOR.text("postgres://anna@example.com:pw@h/x") == "postgres://[EMAIL]:[SECRET:URL_CREDENTIALS]@h/x"


@pytest.mark.parametrize(
    "text", ["[AKIAIOSFODNN7ABCDEFG]", "[DE89370400440532013000]", "<card:4111111111111111>", "[SECRET:AKIAIOSFODNN7ABCDEFG]"]
)
def test_brackets_around_a_finding_are_no_marker(text):
    """R-303."""
    assert text[1:-1].rpartition(":")[2] not in REDACTOR.text(text)


@pytest.mark.parametrize("text", ["call-212-555-0187", "msg-4111-1111-1111-1111", "resp-536-90-4399", "run 4111111111111111"])
def test_only_ids_in_one_piece_are_exempt(text):
    assert REDACTOR.text(text) != text
    assert REDACTOR.text("msg_536904399 call_4111111111111111") == "msg_536904399 call_4111111111111111"


def test_findings_in_one_bare_number_become_one_and_others_stay_as_they_are():
    text = '["a 12", -12.34, "x"]'
    rule = REDACTOR.rules[0]
    found = [Finding(4, 6, rule), Finding(10, 12, rule), Finding(13, 15, rule), Finding(18, 19, rule)]
    assert [text[f.start : f.end] for f in with_numbers(text, found)] == ["12", "-12.34", "x"]
