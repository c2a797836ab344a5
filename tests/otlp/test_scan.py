"""The shared scanner: a superset of the truth in all three engines."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.otlp import scan
from collector.otlp.scan import ENGINES, EngineFailed, Scanner

PATTERNS = [
    rb"[a-z]@[a-z]{3}",
    rb"\d{3}[ \-]\d\d",
    rb"(?i:bearer) [\w\-]{4}",
    rb"\x18[\x80-\xff]{5,8}[\x01-\x7f]",
    rb"://[^\s/]+@",
]
engines = pytest.mark.parametrize("engine", ENGINES)


@engines
def test_an_item_with_a_match_is_marked_and_the_others_are_not(engine):
    hits = Scanner(PATTERNS, engine=engine).scan([b"nothing", b"", b"mail a@bcd now", b"none", b"BeARer abcd"])
    assert set(hits.marks) == {2, 4}
    assert hits.marks[2] & 1
    assert hits.marks[4] & 4
    assert not hits.flooded


def test_hyperscan_names_the_patterns_and_the_others_name_all_of_them():
    items = [b"a@bcd", b"123-45"]
    assert Scanner(PATTERNS, engine="hyperscan").scan(items).marks == {0: 1, 1: 2}
    for engine in ("re2", "re"):
        assert Scanner(PATTERNS, engine=engine).scan(items).marks == {0: 31, 1: 31}


def test_hyperscan_tells_where_in_its_item_each_match_ends_and_the_others_do_not():
    items = [b"", b"a@bcd", b"", b"x 123-45 b@cde"]
    assert Scanner(PATTERNS, engine="hyperscan").scan(items).ends == {1: [(0, 5)], 3: [(1, 8), (0, 14)]}
    for engine in ("re2", "re"):
        assert Scanner(PATTERNS, engine=engine).scan(items).ends == {}


@engines
def test_a_longer_match_of_another_pattern_hides_nothing(engine):
    items = [b"x://u:123-45", b"a@bcd", b"plain"]  # the url match runs over two items and swallows the number
    marks = Scanner(PATTERNS, engine=engine).scan(items).marks
    assert marks[0] & 2
    assert marks[1] & 1
    assert 2 not in marks


@engines
@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("a1@-:/ b", max_size=30).map(str.encode), max_size=12))
def test_every_item_that_holds_a_match_is_marked_for_it(engine, items):
    marks = _shared(engine).scan(items).marks
    for position, item in enumerate(items):
        for index, pattern in enumerate(PATTERNS):
            if re.search(pattern, item):
                assert marks.get(position, 0) >> index & 1


_scanners: dict[str, Scanner] = {}


def _shared(engine):
    return _scanners.setdefault(engine, Scanner(PATTERNS, engine=engine))


@engines
def test_a_flood_is_narrowed_to_the_items_that_flood(engine):
    items = [b"clean"] * 20 + [b"a@bcd " * 500] + [b"also clean"] * 20
    hits = Scanner(PATTERNS, engine=engine).scan(items, max_hits=100)
    assert hits.flooded
    assert hits.floods == {20}
    assert hits.marks == {20: 31}


@engines
def test_many_hits_in_many_items_are_told_apart_without_a_flood(engine):
    hits = Scanner(PATTERNS, engine=engine).scan([b"a@bcd"] * 300 + [b"clean"] * 300, max_hits=100)
    assert set(hits.marks) == set(range(300))
    assert not hits.flooded


def test_the_work_of_narrowing_a_flood_is_bounded():
    hits = Scanner(PATTERNS, engine="hyperscan").scan([b"a@bcd " * 50] * 400, max_hits=10)
    assert len(hits.floods) == 400
    assert set(hits.marks.values()) == {31}


def test_no_items_or_no_patterns_give_no_marks():
    assert Scanner(PATTERNS).scan([]).marks == {}
    assert Scanner([]).scan([b"a@bcd"]).marks == {}


def test_threads_share_one_scanner():
    scanner = Scanner(PATTERNS, engine="hyperscan")
    seen = []

    def work():
        seen.extend(scanner.scan([b"x" * 5000, b"a@bcd"]).marks == {1: 1} for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 200
    assert all(seen)


def test_the_engine_can_be_forced_by_argument_and_environment(monkeypatch):
    assert Scanner(PATTERNS, engine="re2").engine == "re2"
    monkeypatch.setenv(scan.ENGINE_VARIABLE, "re")
    assert Scanner(PATTERNS).engine == "re"
    with pytest.raises(ValueError, match="none of hyperscan, re2, re"):
        Scanner(PATTERNS, engine="pcre")


def test_a_pattern_that_matches_nothing_at_all_is_refused():
    with pytest.raises(ValueError, match="empty string"):
        Scanner([b"a*"])


def test_an_engine_that_cannot_be_built_is_replaced(monkeypatch):
    monkeypatch.setattr(scan, "hyperscan_usable", lambda: False)
    monkeypatch.setattr(scan, "_known", {})
    assert Scanner(PATTERNS).engine == "re2"
    with pytest.raises(EngineFailed, match="does not run on this machine"):
        Scanner(PATTERNS, engine="hyperscan").scan([b"a"])


def test_an_engine_that_fails_while_scanning_is_replaced_at_once(monkeypatch):
    def broken(patterns):
        def search(data, limit):
            raise MemoryError

        return search

    monkeypatch.setitem(scan._COMPILERS, "hyperscan", broken)
    scanner = Scanner(PATTERNS)
    assert scanner.engine == "hyperscan"
    assert 0 in scanner.scan([b"a@bcd"]).marks
    assert scanner.engine == "re2"
    monkeypatch.setitem(scan._COMPILERS, "re2", broken)
    monkeypatch.setitem(scan._COMPILERS, "re", broken)
    with pytest.raises(EngineFailed, match="no pattern engine works"):
        Scanner(PATTERNS).scan([b"a@bcd"])


def test_two_threads_that_see_the_same_failure_skip_one_engine_only():
    scanner = Scanner(PATTERNS)
    search = scanner._compiled()
    scanner._give_up(search)
    scanner._give_up(search)
    assert scanner.engine == "re2"


def test_engines_are_loaded_on_first_use_only():
    code = (
        "import sys; from collector.otlp.scan import Scanner; s = Scanner([b'abc']);"
        "assert not {'hyperscan', 're2'} & set(sys.modules); s.scan([b'abc']); assert {'hyperscan', 're2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.fixture
def unknown_platform(monkeypatch, tmp_path):
    monkeypatch.setattr(scan, "_known_good", lambda: False)
    monkeypatch.setattr(scan, "_verdicts", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_an_unknown_platform_is_probed_once_in_a_process_of_its_own(unknown_platform, monkeypatch):
    assert scan.hyperscan_usable()
    monkeypatch.setattr(scan, "_verdicts", {})
    monkeypatch.setattr(scan, "_probe", lambda: pytest.fail("the verdict is kept in a file"))
    assert scan.hyperscan_usable()


@pytest.mark.parametrize("program", ["import os; os.kill(os.getpid(), 4)", "print('wrong')"])
def test_a_probe_that_dies_or_finds_nothing_means_unusable(unknown_platform, monkeypatch, program):
    monkeypatch.setattr(scan, "_PROBE", program)
    assert not scan.hyperscan_usable()
    assert [file.read_bytes()[32:] for file in (unknown_platform / "otel-sidecar").iterdir()] == [b"unusable"]


def test_a_probe_that_cannot_start_or_a_read_only_cache_is_no_error(unknown_platform, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(unknown_platform / "missing"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert not scan.hyperscan_usable()


def test_a_machine_without_cpuinfo_or_package_has_a_key_too(monkeypatch):
    def no_file(*_args, **_kwargs):
        raise FileNotFoundError

    known = scan._platform_key()
    monkeypatch.setattr(Path, "read_text", no_file)
    assert scan._cpu_flags() == ""
    from importlib import metadata

    def no_package(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", no_package)
    assert scan._platform_key() not in ("", known)


def test_scanners_of_the_same_patterns_share_one_database() -> None:
    first, second = Scanner([b"shared[0-9]"]), Scanner([b"shared[0-9]"])
    assert first.engine == second.engine
    assert first._search is second._search


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "otel-sidecar"


@pytest.fixture
def compiled(monkeypatch):
    """Pattern sets that hyperscan has compiled."""
    import hyperscan

    seen = []

    class Database(hyperscan.Database):
        def compile(self, **options):
            seen.append(options["expressions"])
            return super().compile(**options)

    monkeypatch.setattr(hyperscan, "Database", Database)
    return seen


def search_again(patterns=PATTERNS):
    """A search as a new process would make it."""
    search = scan._hyperscan(patterns)
    return search(b"x a@bcd y", 10)


def test_patterns_are_compiled_once_and_read_by_the_next_start(cache, compiled):
    first = search_again()
    assert search_again() == first == ([(0, 0, 7)], False)
    assert compiled == [PATTERNS]
    assert len(list(cache.iterdir())) == 1


def test_other_patterns_or_another_machine_never_use_a_kept_database(cache, compiled, monkeypatch):
    search_again()
    assert search_again([*PATTERNS, rb"xyz"]) == search_again()
    monkeypatch.setattr(scan, "_platform_key", lambda: "another CPU")
    search_again()
    assert len(compiled) == 3


def test_a_kept_database_that_the_engine_refuses_is_compiled_again(cache, compiled):
    search_again()
    data = scan.kept.read("patterns", key := _key())
    middle = len(data) // 2
    wrong = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    scan.kept.write("patterns", key, wrong)  # our digest is right, the engine's own is not
    assert search_again() == ([(0, 0, 7)], False)
    assert len(compiled) == 2
    assert search_again() == ([(0, 0, 7)], False)
    assert len(compiled) == 2


def test_an_engine_that_cannot_write_its_database_down_searches_all_the_same(cache, monkeypatch):
    import hyperscan

    def fails(_):
        raise hyperscan.NoMemoryError

    monkeypatch.setattr(hyperscan, "dumpb", fails)
    assert search_again() == ([(0, 0, 7)], False)
    assert not cache.exists()


def _key():
    import hyperscan

    return repr((hyperscan.__version__, scan._platform_key(), PATTERNS)).encode()
