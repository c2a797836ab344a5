from __future__ import annotations

import pytest
from pydantic import BaseModel

from collector.config.settings import fields_at, value_at
from tests.config.components.processors.shape import ShapeConfig
from tests.config.conftest import BASE, Load, lines, shape


def processor(body: str) -> str:
    return BASE.replace("shape: {}", f"shape: {{{body}}}")


@pytest.mark.parametrize(
    ("field", "raw", "value"),
    [
        ("text", "0123", "0123"),
        ("text", "true", "true"),
        ("text", "", ""),
        ("text", "~", "~"),
        ("text", '"quoted"', '"quoted"'),
        ("text", "a # b", "a # b"),
        ("text", "{a: b}", "{a: b}"),
        ("text", "[1, 2]", "[1, 2]"),
        ("text", "1e3", "1e3"),
        ("number", "0123", 83),
        ("number", "7", 7),
        ("ratio", "1e-1", 0.1),
        ("ratio", "1", 1.0),
        ("switch", "true", True),
        ("wait", "1m30s", 90.0),
        ("wait", '"5s"', 5.0),
        ("mode", '"strict"', "strict"),
        ("mode", "strict", "strict"),
        ("tags", "[a, b]", ["a", "b"]),
        ("either", "5", 5),
        ("either", "five", "five"),
    ],
)
def test_a_variable_has_the_type_of_its_setting(load_text: Load, field: str, raw: str, value: object) -> None:
    loaded = load_text(processor(f'{field}: "${{env:V}}"'), env={"V": raw})
    assert getattr(shape(loaded), field) == value


def test_variables_inside_lists_maps_and_secrets_keep_their_raw_text(load_text: Load) -> None:
    body = 'tags: ["${env:N}", x], labels: {a: "${env:N}", b: "${env:E}"}, key: "${env:K}"'
    config = shape(load_text(processor(body), env={"N": "0123", "E": "", "K": "a: #1"}))
    assert config.tags == ["0123", "x"]
    assert config.labels == {"a": "0123", "b": ""}
    assert config.key.get_secret_value() == "a: #1"


def test_a_value_written_in_the_file_is_never_turned_into_text(load_text: Load) -> None:
    assert lines(load_text(processor("text: 5")).errors) == [
        "2:43 C004 'processors::shape::text' expected type 'string', got unconvertible type 'int'"
    ]


def test_null_means_the_default_everywhere(load_text: Load) -> None:
    assert shape(load_text(processor("text: , inner: , tags: , policies: ~"))).model_dump() == ShapeConfig().model_dump()
    assert shape(load_text(BASE.replace("shape: {}", "shape: "))).model_dump() == ShapeConfig().model_dump()
    assert shape(load_text(processor("inner: {count: }"))).inner.count == 3


def test_an_empty_variable_is_null_that_is_the_default(load_text: Load) -> None:
    assert (
        shape(load_text(processor('number: "${env:E}", text: "${env:E}"'), env={"E": ""})).model_dump()
        == ShapeConfig(text="").model_dump()
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("switch: no", "2:45 C004 'processors::shape::switch' expected type 'bool', got unconvertible type 'string'"),
        ("switch: 1", "2:45 C004 'processors::shape::switch' expected type 'bool', got unconvertible type 'int'"),
        ("number: '5'", "2:45 C004 'processors::shape::number' expected type 'int', got unconvertible type 'string'"),
        ("number: 1.5", "2:45 C004 'processors::shape::number' expected type 'int', got unconvertible type 'float'"),
        ("number: [1]", "2:45 C004 'processors::shape::number' expected type 'int', got unconvertible type a list"),
        ("tags: a", "2:43 C004 'processors::shape::tags' expected type a list, got unconvertible type 'string'"),
        ("tags: [a, 1]", "2:47 C004 'processors::shape::tags::1' expected type 'string', got unconvertible type 'int'"),
        ("labels: []", "2:45 C004 'processors::shape::labels' expected type a mapping, got unconvertible type a list"),
        ("inner: 5", "2:44 C004 'processors::shape::inner' expected type a mapping, got unconvertible type 'int'"),
        ("inner: {count: 0}", "2:52 C004 'processors::shape::inner::count' input should be greater than or equal to 1"),
        ("wait: 5", "2:43 C022 'processors::shape::wait' a duration needs a unit"),
        ("wait: soon", "2:43 C004 'processors::shape::wait' 'soon' is not a duration"),
        ("mode: stict", "2:43 C004 'processors::shape::mode' is not one of gentle, strict"),
        ("either: []", "2:45 C004 'processors::shape::either' expected type 'int', got unconvertible type a list"),
        ("policies: [{}]", "2:48 C005 'processors::shape::policies::0' is missing name"),
        ("numbr: 5", "2:37 C003 'processors::shape' has invalid keys: numbr"),
        ("inner: {cuont: 5}", "2:45 C003 'processors::shape::inner' has invalid keys: cuont"),
        ("policies: [{name: a, nme: b}]", "2:58 C003 'processors::shape::policies::0' has invalid keys: nme"),
        ("text:abc: ", "2:37 C023 'processors::shape' has invalid keys: text:abc"),
        ("inner: 'count:5'", "2:44 C023 'processors::shape::inner' expected type a mapping, got unconvertible type 'string'"),
        ("numbr: ", "2:37 C003 'processors::shape' has invalid keys: numbr"),
        ("turbo: 5", "2:37 C004 'processors::shape' turbo is not supported: it is too fast"),
    ],
)
def test_a_wrong_setting_is_told_at_its_place(load_text: Load, body: str, error: str) -> None:
    assert lines(load_text(processor(body)).errors) == [error]


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("switch: no", "write true or false"),
        ("numbr: 5", "did you mean 'number'?"),
        ("inner: {cuont: 5}", "did you mean 'count'?"),
        ("inner: {zzz: 5}", "known: count, enabled"),
        ("mode: stict", 'did you mean "strict"?'),
        ("text:abc: ", "write a space: text: abc"),
        ("wait: 5", "write 5s or 5ms"),
        ("policies: [{}]", "add name: ..."),
        ("number: '5'", "write a whole number"),
    ],
)
def test_the_hint_says_what_to_write(load_text: Load, body: str, hint: str) -> None:
    assert load_text(processor(body)).errors[0].hint == hint


def test_all_errors_of_a_component_come_together(load_text: Load) -> None:
    loaded = load_text(processor("numbr: 1, switch: 3, inner: {count: 0, x: 1}, wait: 7"))
    assert [p.code for p in loaded.errors] == ["C003", "C004", "C004", "C003", "C022"]


def test_no_message_shows_a_secret(load_text: Load) -> None:
    loaded = load_text(processor('key: [hunter2], number: "${env:V}"'), env={"V": "hunter3"})
    assert len(loaded.errors) == 2
    assert not any("hunter" in p.message + p.hint for p in loaded.errors)


class Aliased(BaseModel):
    inner: list[ShapeConfig] | None = None


def test_known_names_and_values_are_found_by_path() -> None:
    assert list(fields_at(Aliased, ("inner", 0, "inner"))) == ["enabled", "count"]
    config = Aliased(inner=[ShapeConfig(tags=["a"], labels={"k": "v"})])
    assert value_at(config, ("inner", 0, "tags", 0)) == "a"
    assert value_at(config, ("inner", 0, "labels", "k")) == "v"
    assert value_at(config, ("inner", 5)) is None
    assert value_at(config, ("nothing", "here")) is None
