from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.config.nodes import MAX_DEPTH, Node, core_value, parse
from collector.config.problems import Report, Source
from tests.config.conftest import lines


def tree(text: str, *, octal: bool = False) -> tuple[Node | None, list[str]]:
    report = Report()
    node = parse(Source("f", text), report, octal=octal)
    return node, lines(report.of("C"))


def data(text: str):
    node, errors = tree(text)
    assert not errors
    assert node is not None
    return node.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"),
        ("12:30", "12:30"), ("2026-01-02", "2026-01-02"), ("1_000", "1_000"), ("0b11", "0b11"),
        ("true", True), ("True", True), ("TRUE", True), ("tRUE", "tRUE"), ("false", False),
        ("~", None), ("null", None), ("Null", None), ("NULL", None), ("", None),
        ("0", 0), ("-0", 0), ("17", 17), ("-3", -3), ("+3", 3), ("0o17", 15), ("0x1F", 31), ("-0x1", "-0x1"),
        ("1e3", 1000.0), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("-1.5E-2", -0.015), (".", "."), ("1e", "1e"), ("-", "-"),
        (".inf", math.inf), ("-.INF", -math.inf), ("+.Inf", math.inf), ("9" * 70, "9" * 70),
    ],
)  # fmt: skip
def test_scalars_mean_what_the_core_schema_of_yaml_1_2_says(text: str, value: object) -> None:
    found = core_value(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number() -> None:
    assert math.isnan(core_value(".nan"))


def test_quoted_and_tagged_scalars_keep_or_change_their_type() -> None:
    assert data("a: '17'\nb: \"true\"\nc: !!str 17\nd: !!int 17\ne: |\n  17\nf: ! 17") == {
        "a": "17", "b": "true", "c": "17", "d": 17, "e": "17\n", "f": "17",
    }  # fmt: skip


def test_a_leading_zero_in_a_file_is_an_error_with_both_readings() -> None:
    node, errors = tree("port: 017\nbad: 089\nneg: -007")
    assert [e.split(" ", 1)[0] for e in errors] == ["1:7", "2:6", "3:6"]
    report = Report()
    parse(Source("f", "port: 017\nbad: 089"), report)
    first, second = report.of("C")
    assert first.code == second.code == "C018"
    assert first.hint == "write 17, 0o17 for octal, or quote it for text"
    assert second.hint == "write 89, or quote it for text"
    assert node is not None
    assert node.plain()["neg"] == -7


def test_a_leading_zero_in_a_variable_is_octal_as_in_otelcol() -> None:
    node, errors = tree("[0123, 089, 017]", octal=True)
    assert not errors
    assert node is not None
    assert node.plain() == [83, "089", 15]


def test_every_value_knows_its_place() -> None:
    node, _ = tree("a:\n  b: [1, {c: 2}]\n")
    assert node is not None
    places = {path: (n.mark.line, n.mark.column) for path, n in node.walk()}
    assert places == {
        (): (1, 1),
        ("a",): (2, 3),
        ("a", "b"): (2, 6),
        ("a", "b", 0): (2, 7),
        ("a", "b", 1): (2, 10),
        ("a", "b", 1, "c"): (2, 14),
    }
    assert node.child("a") is not None
    assert node.child(0) is None
    assert node.child("x") is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: 1\nb: 2\na: 3", "3:1 C002 duplicate key 'a', first on line 1"),
        ("a:\n\tb: 1", "2:1 C001 a tab indents this line"),
        ("a: b: c", "1:5 C001 not valid YAML: mapping values are not allowed in this context"),
        ("a:\n  endpoint:0.0.0.0:4317\n  size: 1", "2:3 C023 no space after endpoint:"),
        ("a: \x00", "1:4 C001 not valid YAML: control characters are not allowed"),
        ("a: 1\n---\nb: 2", "2:1 C001 a second document starts here"),
        ("a: *x", "1:4 C001 alias *x is not defined"),
        ("&a [*a]", "1:5 C019 alias *a contains itself"),
        ("? [a]\n: 1", "1:3 C001 a key must be plain text"),
        ("a: !!python/name:os.system x", "1:4 C001 unknown YAML tag tag:yaml.org,2002:python/name:os.system"),
        ("a: {<<: 3}", "1:4 C001 << needs a mapping or a list of mappings"),
        ('a: "x\nb: 1', "2:5 C001 not valid YAML: found unexpected end of stream"),
    ],
)
def test_what_is_wrong_with_the_text_is_told_with_its_place(text: str, error: str) -> None:
    assert tree(text)[1] == [error]


def test_the_first_of_two_equal_keys_stays() -> None:
    node, _ = tree("a: 1\na: 2")
    assert node is not None
    assert node.plain() == {"a": 1}


def test_merge_keys_add_what_is_not_written() -> None:
    assert data("x: &x {p: 1, q: 2}\ny: &y {r: 3}\nz: {<<: [*x, *y], q: 9}")["z"] == {"q": 9, "p": 1, "r": 3}
    assert data("x: &x {p: 1}\nz: {<<: *x}")["z"] == {"p": 1}
    assert data("'<<': 1") == {"<<": 1}


def test_an_anchor_on_a_key_names_its_text() -> None:
    assert data("&k name: 1\nother: *k") == {"name": 1, "other": "name"}


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 100_000, "- " * 100_000])
def test_deep_nesting_is_an_error_and_no_crash(text: str) -> None:
    node, errors = tree(text)
    assert node is None
    assert f"C019 more than {MAX_DEPTH} levels" in errors[0]


def test_an_alias_bomb_is_refused_before_it_unfolds() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    assert "C019 more than 50000 values (an alias bomb?)" in tree(bomb)[1][0]
    flat = "[" + "1," * 60_000 + "1]"
    assert "C019" in tree(flat)[1][0]
    wide = "{" + ",".join(f"k{i}: 1" for i in range(60_000)) + "}"
    assert "C019" in tree(wide)[1][0]


def test_an_empty_text_is_null() -> None:
    assert data("") is None
    assert data("# nothing\n") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(max_codepoint=0xD7FF)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(max_codepoint=0xD7FF), max_size=20), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_json_is_read_as_json(value: object) -> None:
    text = json.dumps(value)
    if '"<<"' not in text and not any(len(part) > 60 for part in text.split()):
        assert tree(text) == (tree(text)[0], [])
        assert data(text) == value


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from(" \n\t:-{}[]&*!|>'\"%@`,?#ab0<~.$\x00\x1b\u2028"), max_size=60))
def test_no_text_ever_raises(text: str) -> None:
    node, errors = tree(text)
    assert node is not None or errors
