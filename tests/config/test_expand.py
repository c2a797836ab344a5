from __future__ import annotations

from pathlib import Path

import pytest

from collector.config.expand import Expander, pieces
from collector.config.nodes import parse
from collector.config.problems import Report, Source

ENV = {
    "X": "text", "N": "0123", "E": "", "NAME": "X", "Q": '"quoted"', "LIST": "[a, 7]", "MAP": "{k: v}", "REF": "${env:X}",
    "TWO": "a$$b", "LOOP": "${env:LOOP}", "T": "true", "BAD": "[unclosed", "INJECT": "x\nother: 1", "DEEP": '["${env:X}", {k: "${env:N}"}]',
    "SPACE": "  ", "ZERO": "0", "NL": "a\nb",
}  # fmt: skip


def expand(text: str, *, relax: bool = False) -> tuple[object, object, Report]:
    """Value and raw text of `v: <text>`."""
    report = Report()
    node = parse(Source("f", f"v: {text}"), report)
    assert node is not None
    found = Expander(ENV, report, relax=relax).tree(node).child("v")
    assert found is not None
    return found.plain(), found.raw, report


@pytest.mark.parametrize(
    ("text", "value", "raw"),
    [
        ("${env:X}", "text", "text"),
        ("${X}", "text", "text"),
        ("$X", "$X", None),
        ("a-${X}-b", "a-text-b", None),
        ("${env:N}", 83, "0123"),
        ("id-${env:N}", "id-0123", None),
        ("${env:T}", True, "true"),
        ("${env:ZERO}", 0, "0"),
        ("'${env:N}'", 83, "0123"),
        ("${env:E}", None, ""),
        ("${env:SPACE}", None, "  "),
        ("a${env:E}b", "ab", None),
        ("${env:Q}", "quoted", '"quoted"'),
        ("x${env:Q}", 'x"quoted"', None),
        ("${env:LIST}", ["a", 7], "[a, 7]"),
        ("${env:MAP}", {"k": "v"}, "{k: v}"),
        ("${env:BAD}", "[unclosed", "[unclosed"),
        ("${env:DEEP}", ["text", {"k": 83}], '["text", {k: "0123"}]'),
        ("${env:NOPE:-fallback}", "fallback", "fallback"),
        ("${NOPE:-fallback}", "fallback", "fallback"),
        ("${env:NOPE:-}", "", ""),
        ("${env:NOPE:-017}", 15, "017"),
        ("${env:E:-fallback}", None, ""),
        ("${env:NOPE:-${env:X}}", "text", "text"),
        ("${env:NOPE:-http://h:1}", "http://h:1", "http://h:1"),
        ("${env:${env:NAME}}", "text", "text"),
        ("${env:REF}", "text", "text"),
        ("<${env:REF}>", "<text>", None),
        ("$$", "$", None),
        ("$$X", "$X", None),
        ("$${env:X}", "${env:X}", None),
        ("$$${env:X}", "$text", None),
        ("${env:TWO}", "a$b", "a$b"),
        ("x${env:TWO}", "xa$b", None),
        ("'${'", "${", None),
        ("'${env:X'", "${env:X", None),
        ("a$", "a$", None),
        ("^[a-z]+$", "^[a-z]+$", None),
        ("'${yaml:[1, 2]}'", [1, 2], "[1, 2]"),
    ],
)
def test_a_variable_replaces_one_value_and_keeps_its_raw_text(text: str, value: object, raw: object) -> None:
    found, kept, report = expand(text)
    assert (found, kept) == (value, raw)
    assert not report.failed()


def test_a_value_cannot_add_keys_beside_itself() -> None:
    report = Report()
    node = parse(Source("f", "v: ${env:INJECT}\nw: a ${env:INJECT}"), report)
    assert node is not None
    assert Expander(ENV, report).tree(node).plain() == {"v": "x\nother: 1", "w": "a x\nother: 1"}


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("${env:NOPE}", "C008", 'environment variable "NOPE" is not set'),
        ("a${NOPE}", "C008", 'environment variable "NOPE" is not set'),
        ("${env:a-b}", "C009", 'environment variable "a-b" has invalid name: must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$'),
        ("${}", "C009", 'environment variable "" has invalid name: must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$'),
        ("${env:1X}", "C009", 'environment variable "1X" has invalid name: must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$'),
        ("${https://example.com}", "C007", "remote configuration is not supported"),
        ("${vault:secret}", "C009", 'scheme "vault" is not supported for uri "vault:secret"'),
        ("${env:LOOP}", "C009", "too many recursive expansions"),
        ("${file:/nowhere}", "C006", "file /nowhere: No such file or directory"),
    ],
)
def test_a_wrong_variable_is_an_error_at_its_place(text: str, code: str, message: str) -> None:
    problem = expand(text)[2].of("C")[0]
    assert (problem.code, problem.message, problem.line, problem.column) == (code, message, 1, 4)


def test_an_unset_variable_may_be_allowed_as_in_otelcol() -> None:
    value, _, report = expand("${env:NOPE}", relax=True)
    assert value is None
    assert not report.failed()
    assert [p.code for p in report.of("N")] == ["N204"]


def test_an_empty_variable_and_a_bare_dollar_are_noted() -> None:
    assert [(p.code, p.message) for p in expand("${env:E}")[2].of("N")] == [("N202", 'environment variable "E" is empty')]
    assert [(p.code, p.hint) for p in expand("$HOME/x")[2].of("N")] == [("N203", "write ${env:HOME}")]
    assert not expand("$$HOME/x")[2].of("N")


def test_a_file_inside_a_value_is_read_without_its_last_line_break(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    assert expand(f"${{file:{tmp_path}/token}}")[:2] == ("s3cret", "s3cret")
    (tmp_path / "big").write_text("x" * (1 << 21))
    assert expand(f"${{file:{tmp_path}/big}}")[2].of("C")[0].message.endswith("larger than 1 MiB")
    (tmp_path / "binary").write_bytes(b"\xff")
    assert expand(f"${{file:{tmp_path}/binary}}")[2].of("C")[0].message.endswith("not UTF-8 text")


def test_keys_are_never_expanded() -> None:
    report = Report()
    node = parse(Source("f", "${env:X}: ${env:X}"), report)
    assert node is not None
    assert Expander(ENV, report).tree(node).plain() == {"${env:X}": "text"}


def test_more_than_a_thousand_expansions_are_refused() -> None:
    report = Report()
    node = parse(Source("f", "v:\n" + "- ${env:X}\n" * 1001), report)
    assert node is not None
    Expander(ENV, report).tree(node)
    assert {p.message for p in report.of("C")} == {"too many recursive expansions"}


def test_pieces_take_nested_braces_as_one() -> None:
    assert list(pieces("a${b:-${c}}d$$${e")) == [("a", False), ("b:-${c}", True), ("d$${e", False)]
