"""JSON in strings stays JSON with the same keys; GenAI messages keep roles, tools, ids and order."""

import json
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.processors.redaction import json_text
from collector.processors.redaction.config import RedactionConfig
from collector.processors.redaction.redactor import Report

REDACTOR = RedactionConfig().build({})
FINDINGS = [
    "anna@example.com",
    "4111 1111 1111 1111",
    "4111111111111111",
    "DE89370400440532013000",
    "536-90-4399",
    "postgres://u:hunter2x@db/x",
    "sk-proj-0123456789abcdefghijk",
    "-----BEGIN PRIVATE KEY-----\nMIIabc",
    "password='a b c d'",
]
PLAIN = ["hello", 'line\nbreak "quoted" back\\slash', "naïve 😀", "", "\u2028", "tab\there", "C:\\new\\table"]


def structure(value):
    """Everything but the text of leaves."""
    if isinstance(value, dict):
        return {key: structure(each) for key, each in value.items()}
    if isinstance(value, list):
        return [structure(each) for each in value]
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return structure(json.loads(value))
        except ValueError:
            return "text"
    return "text" if isinstance(value, str) else "number"


def message(rnd, depth=0):
    text = " ".join(rnd.choice(FINDINGS + PLAIN) for _ in range(rnd.randrange(1, 4)))
    if depth == 0 and rnd.random() < 0.4:
        arguments = json.dumps({"to": text, "n": 4111111111111111, "list": [1, 4111111111111111], "next": json.dumps([text, 7])})
        return {
            "role": "assistant",
            "parts": [
                {"type": "tool_call", "id": f"call_{rnd.randrange(10**15, 10**16)}", "name": "send_mail", "arguments": arguments}
            ],
            "finish_reason": "tool_calls",
        }
    return {
        "role": rnd.choice(["system", "user", "tool"]),
        "parts": [{"type": "text", "content": text, "n": rnd.choice([1, 2.5, 4111111111111111])}],
    }


@pytest.mark.parametrize("ascii_only", [True, False])
def test_generated_messages_stay_json_with_roles_tools_ids_and_order(ascii_only):
    """R-311."""
    rnd = random.Random(11)
    for _ in range(400):
        messages = [message(rnd) for _ in range(rnd.randrange(1, 4))]
        text = json.dumps(messages, ensure_ascii=ascii_only, indent=rnd.choice([None, 1]))
        report = Report()
        edited = REDACTOR.edit(text, "gen_ai.input.messages", REDACTOR.masks.all, report)
        assert not report.failures, text
        after = json.loads(edited)
        for before, now in zip(messages, after, strict=True):
            assert now["role"] == before["role"]
            assert now.get("finish_reason") == before.get("finish_reason")
            for old, new in zip(before["parts"], now["parts"], strict=True):
                assert list(old) == list(new)
                assert [new.get(k) for k in ("type", "name", "id")] == [old.get(k) for k in ("type", "name", "id")]
                if "arguments" in old:
                    same_shape(json.loads(old["arguments"]), json.loads(new["arguments"]))
        for finding in (
            "anna@example.com",
            "4111 1111 1111 1111",
            "4111111111111111",
            "hunter2x",
            "sk-proj-0",
            "MIIabc",
            "536-90",
        ):
            assert finding not in edited.replace("call_4111111111111111", "")


def same_shape(old, new):
    assert type(old) is type(new) or (isinstance(old, int | float) and isinstance(new, str))
    if isinstance(old, dict):
        assert list(old) == list(new)
        for key in old:
            same_shape(old[key], new[key])
    elif isinstance(old, list):
        assert len(old) == len(new)
    elif isinstance(old, str) and old[:1] == "[":
        same_shape(json.loads(old), json.loads(new))


values = st.recursive(
    st.sampled_from(FINDINGS + PLAIN)
    | st.integers()
    | st.just(4111111111111111)
    | st.none()
    | st.booleans()
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "password", "api_key", "content"]), inner, max_size=3)
        | inner.map(json.dumps)
    ),
    max_leaves=9,
)


@pytest.mark.parametrize("number", ["100010001", "-100010001", "100010001.5", "-100010001e2", "1.100010001"])
@pytest.mark.parametrize("outer", ['{"ssn": %s, "b": 1}', '["ssn", %s]', '{"a": "{\\"ssn\\": %s}"}'])
def test_a_finding_in_a_number_takes_the_whole_number(number, outer):
    text = outer % number
    edited = REDACTOR.text(text)
    same_shape(json.loads(text), json.loads(edited))
    assert "100010001" not in edited or edited == text
    assert "json]" not in edited
    assert REDACTOR.text(edited) == edited


def test_two_findings_in_one_number_are_one():
    assert REDACTOR.text('["card", 4111111111111111.4111111111111111]') == f'["card", "{"*" * 29}1111"]'


@settings(max_examples=100, deadline=None)
@example(["536-90-4399", -100010001], False)
@given(values.filter(lambda v: isinstance(v, dict | list)), st.booleans())
def test_any_document_stays_a_document_and_a_second_pass_changes_nothing(value, ascii_only):
    """R-311."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    edited = REDACTOR.text(text)
    after = json.loads(edited)
    assert type(after) is type(value)
    if isinstance(value, dict):
        assert list(after) == list(value)
    else:
        assert len(after) == len(value)
    assert REDACTOR.text(edited) == edited


def test_a_document_without_findings_keeps_every_byte():
    for text in ('{"b": 1.0, "a": 1e3,  "a": "\\u00e9"}', "[1,2 ,3]", '{"cut": "of'):
        assert REDACTOR.text(text) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"password": "x"}', '{"password": "[REDACTED]"}'),
        ('{"password": 12}', '{"password": "[REDACTED]"}'),
        ('{"password": ""}', '{"password": ""}'),
        ('{"password": null}', '{"password": null}'),
        ('{"password": {"a": ["}", 1]}, "b": 2}', '{"password": "[REDACTED]", "b": 2}'),
        ('{"password": [1, [2]], "b": 2}', '{"password": "[REDACTED]", "b": 2}'),
        ('{"password": "a\\"b"}', '{"password": "[REDACTED]"}'),
        ('{"password": "a\\\\"}', '{"password": "[REDACTED]"}'),
        ('{"password": "cut off he', '{"password": "[REDACTED]'),
        ('{"password": [1, "cut', '{"password": "[REDACTED]"'),
        ('{"j": "{\\"password\\": \\"a\\\\\\"b\\"}"}', '{"j": "{\\"password\\": \\"[REDACTED]\\"}"}'),
        ('{"j": "{\\"password\\": [1, \\"]\\"]}"}', '{"j": "{\\"password\\": \\"[REDACTED]\\"}"}'),
        ('{"j": "{\\"password\\": \\"cut", "k": 1}', '{"j": "{\\"password\\": \\"[REDACTED]", "k": 1}'),
        ('{"j": "{\\"password\\": [1", "k": 1}', '{"j": "{\\"password\\": \\"[REDACTED]\\"", "k": 1}'),
        ('{"tokens": 5, "prompt_tokens": 7}', '{"tokens": 5, "prompt_tokens": 7}'),
        ("[4111111111111111]", '["************1111"]'),
        ('{"n": [1,4111111111111111 ]}', '{"n": [1,"************1111" ]}'),
        ('{"j": "[4111111111111111]"}', '{"j": "[\\"************1111\\"]"}'),
        ('{"j": "n: 4111111111111111"}', '{"j": "n: ************1111"}'),
        ('{"j": "a, 4111111111111111, b"}', '{"j": "a, ************1111, b"}'),
        ('{"j": "say \\"hi\\", 4111111111111111, b", "n": 4111111111111111}', '{"j": "say \\"hi\\", ************1111, b", "n": "************1111"}'),
        ('{"n": 4111111111111111, "cut', '{"n": "************1111", "cut'),
        ('{"n": "x4\\n4111111111111111"}', '{"n": "x4\\n************1111"}'),
        ('{"anna@example.com": 1}', '{"[EMAIL]": 1}'),
    ],
)  # fmt: skip
def test_members_and_bare_numbers(text, wanted):
    """R-311."""
    assert REDACTOR.text(text) == wanted


def test_what_cannot_stay_json_is_replaced_as_a_whole(monkeypatch):
    """R-310."""
    shapes = iter([1, 0, 0])
    monkeypatch.setattr(json_text, "shape", lambda text: next(shapes))
    report = Report()
    assert REDACTOR.edit('{"to": "a@example.com"}', "", REDACTOR.masks.all, report) == '"[REDACTED:json]"'
    assert report.failures["json"] == 1


def test_shape_counts_documents_at_every_level():
    assert json_text.shape('{"a": "[1, {\\"b\\": \\"{}\\"}]", "c": "[cut", "d": ["{}"]}') == 4
    assert json_text.shape("{cut") == json_text.shape("[" * 100_000) == 0
