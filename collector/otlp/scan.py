"""One search for many byte patterns over many encoded items at once: which items are worth decoding.

The answer is a superset of the truth: a mark says "look inside", never "this is a finding". Engines: hyperscan reports every
match end, so its marks name patterns; google-re2 and the standard library report non-overlapping matches, so every item such a
match touches is marked with all patterns (a real match always touches a reported one). Patterns are byte regexes of the common
subset: no anchors, look-around or back-references, no way to match the empty string.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from collector.otlp import kept
from collector.otlp.numbers import KINDS, searcher

ENGINES = ("hyperscan", "re2", "re")
"""In order of preference."""
ENGINE_VARIABLE = "OTEL_SIDECAR_SCAN_ENGINE"
"""Environment variable that forces one engine."""

Span = tuple[int, int, int]
_Search = Callable[[bytes, int], tuple[list[Span], bool]]
_Compiler = Callable[[Sequence[bytes]], _Search]
_PROBE = r"""
import hyperscan
db = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
db.compile(expressions=[rb"[a-z]{3,40}@[a-z]{3}", rb"(?i:bearer) [\w\-]{16}"], ids=[0, 1], elements=2, flags=[0, 0])
found = []
db.scan(b"x" * 999 + b"anna@example.com BeARer 0123456789abcdef", match_event_handler=lambda i, *_: found.append(i))
print("usable" if {0, 1} <= set(found) else "wrong")
"""
_verdicts: dict[str, bool] = {}


class EngineFailed(Exception):
    """Every engine failed; nothing is known about the items."""


@dataclass(slots=True)
class Hits:
    """`marks`: item position -> bit mask of pattern indices. `floods`: positions with too many hits, fully marked.

    `ends`, where the engine names the pattern of every match: item position -> (pattern index, end of the match in the item).
    `size`: bytes of all items.
    """

    marks: dict[int, int] = field(default_factory=dict)
    floods: set[int] = field(default_factory=set)
    ends: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    size: int = 0

    @property
    def flooded(self) -> bool:
        """Some item had too many hits to be told apart."""
        return bool(self.floods)


class Scanner:
    """A set of patterns, compiled on first use and shared by threads. Nothing is imported before that."""

    def __init__(self, patterns: Sequence[bytes], *, engine: str | None = None) -> None:
        """`engine` forces one of ENGINES. Raises ValueError for an unknown one or a pattern that matches nothing at all."""
        engine = engine or os.environ.get(ENGINE_VARIABLE) or None
        if engine is not None and engine not in ENGINES:
            raise ValueError(f"scan engine {engine!r} is none of {', '.join(ENGINES)}")
        for pattern in patterns:
            if re.compile(pattern).match(b""):
                raise ValueError(f"pattern {pattern!r} matches the empty string")
        self._patterns = tuple(patterns)
        self._all = (1 << len(patterns)) - 1
        self._candidates = [engine] if engine else list(ENGINES)
        self._search: _Search | None = None
        self._name = ""
        self._lock = threading.Lock()

    @property
    def engine(self) -> str:
        """The engine in use; compiles if that has not happened yet. Raises EngineFailed."""
        self._compiled()
        return self._name

    def scan(self, items: Sequence[bytes], max_hits: int = 2000) -> Hits:
        """Mark the items that may hold a match. An item with more than `max_hits` is marked with every pattern.

        An engine that fails is replaced by the next one for good. Raises EngineFailed when none is left.
        """
        hits = Hits()
        if not items or not self._patterns:
            return hits
        while True:
            search = self._compiled()
            try:
                self._mark(hits, search, items, max_hits)
                return hits
            except Exception:
                self._give_up(search)
                hits = Hits()

    def _mark(self, hits: Hits, search: _Search, items: Sequence[bytes], max_hits: int) -> None:
        allowance = 16 * max_hits
        ranges = [(0, len(items))]
        while ranges:
            low, high = ranges.pop()
            part = items if (low, high) == (0, len(items)) else items[low:high]
            data = b"".join(part)
            hits.size = max(hits.size, len(data))
            found, full = search(data, max_hits)
            allowance -= len(found)
            if not full and not found:
                continue
            if not full:
                self._spread(hits, found, list(accumulate(map(len, part), initial=0)), low)
            elif high - low > 1 and allowance > 0:
                middle = (low + high) // 2
                ranges += [(low, middle), (middle, high)]
            else:
                hits.marks.update(dict.fromkeys(range(low, high), self._all))
                hits.floods.update(range(low, high))

    def _spread(self, hits: Hits, found: list[Span], borders: list[int], offset: int) -> None:
        last = floor = ceiling = 0
        marks, ends = hits.marks, hits.ends
        for pattern, start, end in found:
            if not floor < end <= ceiling:  # most hits lie in the item of the one before
                last = bisect_left(borders, end) - 1
                floor, ceiling = borders[last], borders[last + 1]
            position = offset + last
            if pattern < 0:
                marks.update(dict.fromkeys(range(offset + bisect_right(borders, start) - 1, position + 1), self._all))
            elif position in marks:
                marks[position] |= 1 << pattern
                ends[position].append((pattern, end - floor))
            else:
                marks[position] = 1 << pattern
                ends[position] = [(pattern, end - floor)]

    def _compiled(self) -> _Search:
        search = self._search
        if search is not None:
            return search
        with self._lock:
            while self._search is None:
                if not self._candidates:
                    raise EngineFailed("no pattern engine works")
                name = self._candidates[0]
                try:
                    self._search, self._name = _compile(name, self._patterns), name
                except Exception as error:
                    self._candidates.pop(0)
                    if not self._candidates:
                        raise EngineFailed(f"{name}: {type(error).__name__}: {error}") from error
            return self._search

    def _give_up(self, search: _Search) -> None:
        with self._lock:
            if self._search is search:
                self._search = None
                self._candidates.pop(0)


def _hyperscan(patterns: Sequence[bytes]) -> _Search:
    if not hyperscan_usable():
        raise OSError("hyperscan does not run on this machine")
    import hyperscan

    numbers = searcher(patterns)
    places = [place for place, pattern in enumerate(patterns) if numbers is None or pattern not in KINDS]
    database = _database(hyperscan, [patterns[place] for place in places])
    local = threading.local()  # a scratch shared by two threads gives failed scans

    def search(data: bytes, limit: int) -> tuple[list[Span], bool]:
        scratch = getattr(local, "scratch", None)
        if scratch is None:
            scratch = local.scratch = hyperscan.Scratch(database)
        found: list[Span] = []
        add = found.append

        def on_match(pattern: int, start: int, end: int, flags: int, context: object) -> bool:
            add((places[pattern], start, end))
            return len(found) > limit

        try:
            database.scan(data, match_event_handler=on_match, scratch=scratch)
        except hyperscan.ScanTerminated:
            return found, True
        if numbers is not None:
            found += numbers(data, limit - len(found))
        return found, len(found) > limit

    return search


def _database(hyperscan: Any, patterns: Sequence[bytes]) -> Any:
    """The compiled patterns, from the last start where it kept them: compiling takes 0.1 s, 11 MiB at its peak and 5 for good."""
    key = repr((hyperscan.__version__, _platform_key(), list(patterns))).encode()
    if (data := kept.read("patterns", key)) is not None:
        with suppress(hyperscan.error):  # it checks its own version, the CPU and a checksum once more
            return hyperscan.loadb(data, hyperscan.HS_MODE_BLOCK)
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    count = len(patterns)
    database.compile(expressions=list(patterns), ids=list(range(count)), elements=count, flags=[0] * count)
    with suppress(hyperscan.error):
        kept.write("patterns", key, hyperscan.dumpb(database))
    return database


def _re2(patterns: Sequence[bytes]) -> _Search:
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.log_errors = False
    return _alternation(re2.compile(_join(patterns), options))  # type: ignore[no-untyped-call]


def _re(patterns: Sequence[bytes]) -> _Search:
    return _alternation(re.compile(_join(patterns)))


def _join(patterns: Sequence[bytes]) -> bytes:
    return b"|".join(b"(?:" + pattern + b")" for pattern in patterns)


def _alternation(compiled: Any) -> _Search:
    def search(data: bytes, limit: int) -> tuple[list[Span], bool]:
        found: list[Span] = []
        for match in compiled.finditer(data):
            found.append((-1, *match.span()))
            if len(found) > limit:
                return found, True
        return found, False

    return search


_COMPILERS: dict[str, _Compiler] = {"hyperscan": _hyperscan, "re2": _re2, "re": _re}


_known: WeakValueDictionary[tuple[_Compiler, tuple[bytes, ...]], _Search] = WeakValueDictionary()


def _compile(name: str, patterns: tuple[bytes, ...]) -> _Search:
    """The search for these patterns, the same one for all scanners that have them."""
    compiler = _COMPILERS[name]
    search = _known.get((compiler, patterns))
    if search is None:
        search = _known[compiler, patterns] = compiler(patterns)
    return search


def hyperscan_usable() -> bool:
    """Whether hyperscan may be loaded here: an unsuitable CPU or C library would kill the process, not raise.

    Known good (x86-64 with AVX2 and glibc) costs nothing; elsewhere a subprocess tries it once, and the verdict is kept per CPU
    flags and version of the package.
    """
    key = _platform_key()
    if key not in _verdicts:
        _verdicts[key] = _known_good() or _cached_probe(key)
    return _verdicts[key]


def _cpu_flags() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.M)
    return found[1] if found else ""


def _known_good() -> bool:
    return platform.machine() == "x86_64" and "avx2" in _cpu_flags().split() and bool(os.confstr("CS_GNU_LIBC_VERSION"))


def _platform_key() -> str:
    import hashlib
    from importlib import metadata

    try:
        version = metadata.version("hyperscan")
    except metadata.PackageNotFoundError:
        version = "none"
    text = f"{platform.machine()} {sys.version_info[:2]} {version} {_cpu_flags()}"
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _cached_probe(key: str) -> bool:
    known = kept.read("hyperscan", key.encode())
    if known is not None:
        return known == b"usable"
    verdict = _probe()
    kept.write("hyperscan", key.encode(), b"usable" if verdict else b"unusable")
    return verdict


def _probe() -> bool:
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == b"usable"
