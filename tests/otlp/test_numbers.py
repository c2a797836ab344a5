"""The compiled search finds exactly what the patterns of numbers match, wherever they may begin."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.otlp import numbers, scan
from collector.otlp.scan import Scanner
from hatch_build import compile_module, lacking

NAMES = tuple(range(len(numbers.KINDS)))
PATTERNS = [re.compile(kind) for kind in numbers.KINDS]
needed = pytest.mark.skipif(numbers.compiled is None, reason="the search for numbers is not compiled here")
PIECES = [*(b"%d" % n for n in (1, 23, 456, 7890, 4111, 123456)), *map(bytes, zip(b" -.()+!AZaBC\n")), b"AB12", b"\x18", b"\xff" * 4,
    b"4111 1111 1111 1111", b"3782-822463-1000", b"+1(2)3.4 5", b"(212) 555-0187", b"536-90-4399", b"NO93 8601 1117 947", b"x" * 50,
    b"\x18\xff\xff\xff\xff\xff\x01", b"!1234567B", b"!1234567\xc3", b"\0"]  # fmt: skip
texts = st.lists(
    st.sampled_from(PIECES) | st.binary(max_size=3) | st.integers(0, 10**19).map(lambda n: b"%d" % n), max_size=12
).map(b"".join)


@pytest.fixture(scope="module", params=["as built", "byte by byte"])
def search(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The search as it is built here, and as it is built for a machine without SSE2."""
    if request.param == "as built":
        return pytest.skip("not compiled here") if numbers.compiled is None else numbers.compiled.search
    if lacking():
        pytest.skip(f"nothing to compile with: {lacking()}")
    folder, name = tmp_path_factory.mktemp("numbers"), "otlp/_numbers.abi3.so"
    assert compile_module(name, folder, "-DNUMBERS_BY_BYTE") == ""
    found = importlib.util.spec_from_file_location("_numbers", folder / name)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.search


def matches(data: bytes) -> list[tuple[int, int, int]]:
    """Every match, tried at every byte."""
    return [
        (name, start, match.end())
        for start in range(len(data))
        for name, pattern in enumerate(PATTERNS)
        if (match := pattern.match(data, start))
    ]


@settings(max_examples=300, deadline=None)
@given(data=texts, padding=st.integers(0, 130))
def test_every_match_of_every_pattern_is_found_once_and_nothing_else(search: Any, data: bytes, padding: int) -> None:
    data = b"." * padding + data
    assert sorted(search(data, NAMES, 10**5), key=lambda found: (found[1], found[0])) == matches(data)


@pytest.mark.parametrize("kind", NAMES)
def test_whatever_a_pattern_can_produce_is_found_across_every_border_of_a_block(search: Any, kind: int) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.from_regex(PATTERNS[kind], fullmatch=True))
    def check(match: bytes) -> None:
        for padding in (0, *range(64 - len(match), 65)):
            assert (kind, padding, padding + len(match)) in search(b"x" * padding + match, NAMES, 10**5)

    check()


def test_no_more_than_one_match_over_the_limit_is_given(search: Any) -> None:
    data = b"536-90-4399 " * 50
    assert [len(search(data, NAMES, limit)) for limit in (0, 7, 49, 50, 1000)] == [1, 8, 50, 50, 50]


def test_a_limit_that_no_text_reaches_takes_no_memory(search: Any) -> None:
    assert search(b"536-90-4399", NAMES, 1 << 56) == [(2, 0, 11)]
    assert search(b"", NAMES, 1 << 56) == []


def test_matches_bear_the_names_they_are_given_and_those_without_are_left_out(search: Any) -> None:
    data = b"536-90-4399 x 411111111111"
    assert search(data, ("card", None, "ssn", None, None, None), 9) == [("ssn", 0, 11), ("card", 14, 26)]
    assert search(data, ("card", None, None, None, None, None), 9) == [("card", 14, 26)]
    assert search(data, (None,) * 6, 9) == []


@pytest.mark.parametrize("arguments", [((0,) * 5, 9), ((0,) * 6, -1), ((0,) * 6, 2**63 - 1)])
def test_a_search_without_sense_is_refused(search: Any, arguments: tuple[tuple[int, ...], int]) -> None:
    with pytest.raises(ValueError, match="six names and a limit"):
        search(b"", *arguments)


WORD = rb"anna@[a-z]{3}"


@needed
def test_numbers_are_taken_out_of_a_set_of_patterns_that_holds_others() -> None:
    find = numbers.searcher([WORD, numbers.SSN, numbers.CARD])
    assert find is not None
    assert find(b"536-90-4399 x 411111111111", 9) == [(1, 0, 11), (2, 14, 26)]
    assert numbers.searcher([WORD]) is None
    assert numbers.searcher([numbers.SSN]) is None


def test_without_the_compiled_search_numbers_are_patterns_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "compiled", None)
    assert numbers.searcher([WORD, numbers.SSN]) is None


def scanner(monkeypatch: pytest.MonkeyPatch, *, compiled: bool) -> Scanner:
    with monkeypatch.context() as patch:
        patch.setattr(scan, "_known", {})
        if not compiled:
            patch.setattr(numbers, "compiled", None)
        made = Scanner([WORD, *numbers.KINDS, rb"zz"], engine="hyperscan")
        assert made.engine == "hyperscan"
    return made


@needed
def test_a_scanner_marks_the_same_with_the_compiled_search_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = scanner(monkeypatch, compiled=True), scanner(monkeypatch, compiled=False)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(texts | st.just(b"anna@example zz"), max_size=6))
    def check(items: list[bytes]) -> None:
        found, expected = fast.scan(items), slow.scan(items)
        assert found.marks == expected.marks
        for position, ends in expected.ends.items():
            assert set(found.ends[position]) == set(ends)

    check()


@needed
def test_too_many_numbers_are_a_flood_with_the_compiled_search_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [b"clean", b"536-90-4399 " * 60, b"anna@example " * 8 + b"536-90-4399 " * 4, b"anna@exa"]
    for compiled in (True, False):
        hits = scanner(monkeypatch, compiled=compiled).scan(items, max_hits=10)
        assert hits.floods == {1, 2}
        assert hits.marks.keys() == {1, 2, 3}
