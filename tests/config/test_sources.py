from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from collector.config.nodes import Node, parse
from collector.config.problems import Report, Source
from collector.config.sources import gather, merge, unfold
from tests.config.conftest import BASE, Load, codes, shape


def gathered(*uris: str, sets: tuple[str, ...] = (), env: dict[str, str] | None = None) -> tuple[object, Report]:
    report = Report()
    return gather(uris, sets, env or {}, report).plain(), report


def test_a_path_a_file_uri_a_variable_and_text_are_sources_merged_from_left_to_right(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: {x: 1, y: [1, 2]}\nb: 1")
    (tmp_path / "b.yaml").write_text("a: {y: [3]}")
    value, report = gathered(
        str(tmp_path / "a.yaml"), f"file:{tmp_path}/b.yaml", "env:CONF", "yaml:a::deep::k: 5", env={"CONF": "b: 2\na: {z: 9}"}
    )
    assert not report.failed()
    assert value == {"a": {"x": 1, "y": [3], "z": 9, "deep": {"k": 5}}, "b": 2}


def test_standard_input_is_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a: 1")))
    assert gathered("-")[0] == {"a": 1}


def test_set_wins_over_all_sources_and_reads_yaml() -> None:
    value, report = gathered("yaml:{a: {b: 1, c: 2}}", sets=("a.b=[x, 7]", "n::m=", "p=a=b"))
    assert not report.failed()
    assert value == {"a": {"b": ["x", 7], "c": 2}, "n": {"m": None}, "p": "a=b"}


def test_a_set_without_equal_sign_is_an_error() -> None:
    _, report = gathered("yaml:{}", sets=("a.b", "=3"))
    assert [p.text() for p in report.of("C")] == [
        "--set a.b: missing equal sign for set flag - write --set processors.batch.timeout=2s [C006]",
        "--set =3: missing equal sign for set flag - write --set processors.batch.timeout=2s [C006]",
    ]


def test_null_erases_what_came_before_and_an_empty_map_erases_nothing() -> None:
    value, report = gathered("yaml:{processors: {a: 1}, exporters: {b: 2}}", "yaml:{processors: , exporters: {}}")
    assert value == {"processors": None, "exporters": {"b": 2}}
    assert codes(report.of("W")) == ["W107"]
    assert [p.message for p in report.of("W")] == ["'processors' is null and erases 1 earlier definitions"]
    assert gathered("yaml:{processors: }", "yaml:{processors: {a: 1}}")[0] == {"processors": {"a": 1}}


def test_an_empty_source_changes_nothing() -> None:
    assert gathered("yaml:{a: 1}", "yaml:", "yaml:# nothing")[0] == {"a": 1}
    assert gathered("yaml:", "yaml:")[0] is None
    assert gathered()[0] is None


@pytest.mark.parametrize(
    ("uri", "code", "message"),
    [
        ("https://example.com/c.yaml", "C007", "remote configuration is not supported"),
        ("http://example.com/c.yaml", "C007", "remote configuration is not supported"),
        ("HTTP://example.com/c.yaml", "C007", "remote configuration is not supported"),
        ("env:MISSING", "C008", "environment variable 'MISSING' is not set"),
        ("s3:bucket", "C006", 'scheme "s3" is not supported'),
        ("/nowhere/c.yaml", "C006", "cannot be read: No such file or directory"),
        ("file:/nowhere/c.yaml", "C006", "cannot be read: No such file or directory"),
        ("/", "C006", "cannot be read: Is a directory"),
        ("yaml:[1]", "C001", "a configuration is a mapping of receivers, exporters, service ..."),
        ("yaml:endpoint:1", "C001", "a configuration is a mapping of receivers, exporters, service ..."),
    ],
)
def test_an_unusable_source_is_an_error(uri: str, code: str, message: str) -> None:
    _, report = gathered(uri)
    (problem,) = report.of("C")
    assert (problem.code, problem.message) == (code, message)


def test_a_file_whose_name_looks_like_a_scheme_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prod:eu.yaml").write_text("a: 1")
    assert gathered("prod:eu.yaml")[0] == {"a": 1}


def test_size_encoding_and_number_of_sources_are_bounded(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_text("a: " + "x" * (1 << 20))
    assert [p.message for p in gathered(str(big))[1].of("C")] == ["larger than 1 MiB"]
    assert [p.message for p in gathered("env:B", env={"B": "y" * (1 << 21)})[1].of("C")] == ["larger than 1 MiB"]
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: 1\nb: \xff\xfe")
    (problem,) = gathered(str(binary))[1].of("C")
    assert (problem.line, problem.message) == (2, "not UTF-8 text at byte 8")
    assert codes(gathered(*["yaml:{}"] * 101)[1].of("C")) == ["C006"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert gathered(str(tmp_path / "bom.yaml"))[0] == {"a": 1}


def node(text: str) -> Node:
    found = parse(Source("f", text), Report())
    assert found is not None
    return found


def test_the_key_delimiter_works_at_the_top_level_only() -> None:
    assert unfold(node("a::b: 1\na::c: 2\n'::': 3\nd: {e::f: 4}")).plain() == {"a": {"b": 1, "c": 2}, "::": 3, "d": {"e::f": 4}}
    long = "::".join("x" * 100)
    assert unfold(node(f"{long}: 1")).plain() == {long: 1}


def test_the_place_of_a_merged_value_is_where_it_was_written_last() -> None:
    merged = merge(node("a: {b: 1}\n"), node("\n\na: {c: 2}\n"))
    child = merged.child("a")
    assert child is not None
    assert child.keys["b"].line == 1
    assert child.keys["c"].line == 3


def test_errors_of_several_files_name_each_file(load_text: Load) -> None:
    loaded = load_text(BASE, "processors: {shape: {numbr: 1}}\nexporters: {outlt: {}}", sets=["processors.shape.switch=no"])
    assert [(Path(p.file).name, p.code) for p in loaded.errors] == [
        ("b.yaml", "C003"),
        ("b.yaml", "C010"),
        ("--set processors.shape.switch", "C004"),
    ]
    assert loaded.errors[2].text().startswith("--set processors.shape.switch: 'processors::shape::switch' expected type 'bool'")


def test_what_set_wrote_is_told_at_set_though_a_whole_block_is_wrong(load_text: Load) -> None:
    text = BASE.replace("{intake: {}}", "{otlp: {protocols: {grpc: {endpoint: 'localhost:4317'}}}}").replace("[intake]", "[otlp]")
    (problem,) = load_text(text, sets=["receivers.otlp.protocols.grpc.endpoint=nowhere"]).errors
    assert problem.text().startswith(
        "--set receivers.otlp.protocols.grpc.endpoint: 'receivers::otlp::protocols::grpc::endpoint' 'nowhere' is not an address"
    )
    (problem,) = load_text(text.replace("'localhost:4317'", "nowhere")).errors
    assert (Path(problem.file).name, problem.line, problem.column) == ("a.yaml", 1, 49)


def test_a_block_stands_where_it_was_named_though_set_changes_a_part_of_it(load_text: Load) -> None:
    text = BASE.replace("outlet", "otlp")
    (note,) = load_text(text, sets=["exporters.otlp.endpoint=localhost:1"]).notes
    assert "older name" in note.message
    assert (Path(note.file).name, note.line) == ("a.yaml", 3)


def test_set_reaches_the_settings(load_text: Load) -> None:
    assert shape(load_text(BASE, sets=["processors.shape.inner.count=7"])).inner.count == 7
