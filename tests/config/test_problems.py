from __future__ import annotations

import re
from pathlib import Path

from collector.config.problems import CODES, Mark, Report, Source, code_table, did_you_mean

ROOT = Path(__file__).parents[2]


def reported(text: str, line: int, column: int, *, message: str = "wrong", single: bool = False) -> str:
    report = Report()
    report.add("C004", Mark(Source("f.yaml", text, single), line, column), ("a", 1), message, "do so")
    return report.of("C")[0].render()


def test_a_problem_shows_its_line_with_a_caret_under_the_place() -> None:
    assert reported("a: 1\n  b: yes", 2, 6) == "f.yaml:2:6: wrong - do so [C004]\n     2 |   b: yes\n       |      ^"
    assert reported("\tb: yes", 1, 2).endswith("     1 | \tb: yes\n       | \t^")


def test_a_flag_is_shown_without_position() -> None:
    assert reported("a: 1", 1, 4, single=True) == "f.yaml: wrong - do so [C004]"


def test_control_characters_of_a_file_never_reach_the_terminal() -> None:
    shown = reported("a: \x1b[2J\x07", 1, 4, message="bad \x1b[31m")
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_long_lines_are_cut() -> None:
    assert len(reported("x" * 100_000, 1, 3)) < 400


def test_colour_is_on_the_first_line_only() -> None:
    report = Report()
    report.add("W101", None, (), "unused")
    assert report.of("W")[0].render(color=True) == "\x1b[33mconfiguration: unused [W101]\x1b[0m"


def test_the_json_form_has_stable_keys() -> None:
    report = Report()
    report.add("C004", Mark(Source("f", "a"), 1, 1), ("a", 0), "m", "h")
    assert report.of("C")[0].to_json() == {
        "code": "C004", "file": "f", "line": 1, "column": 1, "path": "a::0", "message": "m", "hint": "h",
        "url": "docs/config-errors.md#c004",
    }  # fmt: skip


def test_problems_are_sorted_by_source_and_position_and_told_once() -> None:
    report = Report()
    first, second = Source("z", "a\nb\nc"), Source("a", "a")
    report.register(first)
    for mark in (Mark(second, 1, 1), Mark(first, 3, 1), Mark(first, 1, 2), Mark(first, 1, 1), Mark(first, 3, 1)):
        report.add("C001", mark, (), "m")
    assert [(p.file, p.line, p.column) for p in report.of("C")] == [("z", 1, 1), ("z", 1, 2), ("z", 3, 1), ("a", 1, 1)]
    assert report.failed()


def test_a_near_word_is_suggested_and_a_far_one_is_not() -> None:
    assert did_you_mean("endpont", ["endpoint", "timeout"]) == 'did you mean "endpoint"?'
    assert did_you_mean("ERROR", ["error", "ok"]) == 'did you mean "error"?'
    assert did_you_mean("zzz", ["endpoint"]) == ""


def test_every_code_is_raised_somewhere_and_every_raised_code_is_explained() -> None:
    sources = [p for p in (ROOT / "collector/config").glob("*.py") if p.name != "problems.py"]
    used = {code for path in sources for code in re.findall(r'"([CWN][0-9]{3})"', path.read_text())}
    assert used == set(CODES)


def test_every_code_has_a_test_that_names_it() -> None:
    tests = "".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    assert not [code for code in CODES if code not in tests]


def test_the_page_of_error_codes_is_fresh() -> None:
    assert (ROOT / "docs/config-errors.md").read_text().strip() == code_table().strip()
