"""Patterns of users: found in every engine, never beyond what RE2 says, and cheap where their form allows."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.otlp import scan
from collector.processors.redaction import Redaction
from collector.processors.redaction.config import RedactionConfig
from collector.processors.redaction.patterns import byte_form, compiled
from tests.support import attribute, batch, build, span, spans_of, traces

KEY = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
engines = pytest.mark.parametrize("engine", scan.ENGINES)


def redacted(config, values):
    return spans_of(build(Redaction, config).process(batch(traces(span("op", values))), 0))[0]


@engines
def test_own_types_are_found_with_their_action_and_context(engine, monkeypatch):
    """R-303."""
    monkeypatch.setenv(scan.ENGINE_VARIABLE, engine)
    custom = [
        {"name": "employee_id", "pattern": r"EMP-\d{6}", "context": ["employee", "staff"], "action": "pseudonym"},
        {"name": "ticket", "pattern": r"(?i)tic-\d+"},
        {"name": "street", "pattern": r"\p{Lu}\p{Ll}+straße \d+"},
    ]
    values = {
        "staff": "EMP-123456",
        "note": "EMP-123456",
        "far": "employee " + "x" * 40 + " EMP-123456",
        "t": "TIC-77",
        "s": "Hauptstraße 5",
    }
    out = redacted({"custom": custom, "pseudonym": {"key": KEY}}, values)
    assert attribute(out, "staff").startswith("<employee_id:")
    assert attribute(out, "note") == "EMP-123456"
    assert attribute(out, "far") == values["far"]
    assert attribute(out, "t") == "[TICKET]"
    assert attribute(out, "s") == "[STREET]"


@engines
def test_blocked_values_go_unless_an_allowed_match_covers_them(engine, monkeypatch):
    monkeypatch.setenv(scan.ENGINE_VARIABLE, engine)
    config = {"blocked_values": [r"\bACME-\d{5}\b", "secretword"], "allowed_values": ["ACME-0000."]}
    out = redacted(config, {"a": "ACME-12345 and ACME-00001", "b": "a secretword", "c": "XACME-12345"})
    assert attribute(out, "a") == "**** and ACME-00001"
    assert attribute(out, "b") == "a ****"
    assert attribute(out, "c") == "XACME-12345"


@engines
def test_blocked_keys_lose_their_value_at_every_level_and_ignored_ones_do_not(engine, monkeypatch):
    monkeypatch.setenv(scan.ENGINE_VARIABLE, engine)
    config = {"blocked_key_patterns": [".*badge$", "^Straße"], "ignored_keys": ["good_badge", "m.note"]}
    values = {"my_badge": 5, "good_badge": "x", "Straße 1": "y", "m": {"badge": ["z"], "note": "a@example.com"}, "badges": 1}
    out = redacted(config, values)
    assert attribute(out, "my_badge") == attribute(out, "Straße 1") == "****"
    assert attribute(out, "good_badge") == "x"
    assert attribute(out, "badges") == 1
    members = {pair.key: pair.value.string_value for pair in attribute(out, "m").values}
    assert members == {"badge": "****", "note": "a@example.com"}
    again = build(Redaction, config)
    once = again.process(batch(traces(span("op", values))), 0)
    assert again.process(once, 0).encode() == once.encode()


def test_binary_values_survive_patterns_that_look_everywhere():
    given = batch(traces(span("op", {"blob": b"\xff\x00\xfe", "note": "plain"})))
    raw = given.raw
    assert build(Redaction, {"blocked_values": ["é"]}).process(given, 0).encode() == raw


def test_two_types_may_share_a_name_and_patterns_of_both_costs():
    both = RedactionConfig.model_validate({"blocked_values": ["abc", "x.z", "def"]}).build({})
    assert both.text("abc xyz def") == "**** **** ****"
    assert both.masks.always


@pytest.mark.parametrize(
    ("pattern", "form"),
    [
        (r"EMP-\d{6}", rb"EMP-\d{6}"),
        (r"\bACME\b", rb"ACME"),
        (r"^.*token$", rb"token"),
        (r"token.+", rb"token"),
        (r"a.*b", rb"a[\x00-\xff]*b"),
        (r"a[^@]+?b", rb"a[^@]+b"),
        (r"(?P<x>a|b)c+", rb"(?:a|b)c"),
        (r"a\+", rb"a\+"),
        (r"(?i)abc", rb"(?i:abc)"),
        (r"(?i)ask", None),
        (r"(?i:a)", None),
        (r"straße", None),
        (r"a.b", None),
        (r"a[^b]", None),
        (r"\pL+", None),
        (r"a|.*", None),
        (r"[b-a]", None),
    ],
)  # fmt: skip
def test_byte_forms(pattern, form):
    assert byte_form(pattern) == form


PATTERNS = [r"EMP-\d{2}", r"\bab+c\b", r"x.*y", r"(?:foo|ba[rz])[0-9]?q", r"[^@\s]+@ab", r"(?i)cde", r"a\.b{2,}"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*"abcqxy@. .0é1", "EMP-", "foo", "bar", "CDE", "cde", "a.bb", "abbc"]), max_size=8).map("".join))
def test_the_byte_form_matches_wherever_the_pattern_does(text):
    for pattern in PATTERNS:
        form = byte_form(pattern)
        assert form is not None
        if compiled(pattern).search(text) is not None:
            assert re.search(form, text.encode()), (pattern, text)
