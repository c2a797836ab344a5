"""Feeds the compiled way to settle calls with damaged ones: `python calls_mutations.py FOLDER`, where FOLDER holds `_calls`.

Run by test_calls_sanitized.py under sanitizers, so it imports nothing that would slow it down. Prints how many calls were settled
and how many were not.
"""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "otlp"))
from mutations import starve  # type: ignore[import-not-found]

ROUNDS = 4000
T = b"t" * 16
ODD = [
    None,
    -1,
    0,
    1 << 62,
    1 << 80,
    1.5,
    float("nan"),
    "",
    "x" * 300,
    b"",
    T,
    b"x" * 5000,
    (),
    (1, 2),
    [],
    [b"x"],
    {},
    object(),
    len,
]
FIXED = (0, 1 << 62, (1e-6, 2e-6, 3e-6, 4e-6, 5e-6, 0.0), lambda usage: 0.5, (b"one", b"two", b"three"), None, "openai")
USAGE = (1000, 600, 300, 0, 200, 64, 0, 0, 0, 0, 0, 0, None, (), True)


class Plan:
    """What a call has a plan for."""

    def __init__(self, fixed: object) -> None:
        self.fixed = fixed


def plan(fixed: object) -> tuple[Any, Any]:
    """A plan and its tally."""
    return Plan(fixed), SimpleNamespace(calls=[])


def call(number: int, its: Any) -> list[Any]:
    """The parts of a call that is plain."""
    own, parent = T + b"own%05d" % number, T + b"par%05d" % (number % 3)
    return [2_000_000_000, 1_000_000_000, its, b"item" * 50, own, parent, USAGE, f"chatcmpl-{number}", None, T]


def settle(module: Any, found: list[Any], tallies: dict[Any, Any]) -> tuple[bool, int]:
    """Settle calls as the Python side does."""
    books: list[Any] = []
    done: tuple[bool, int] = module.settle(
        found, 5_000_000_000, ({}, {}), ({}, {}), 1.0, len, tallies.__getitem__, books.append, set()
    )
    return done


def replaced(parts: Any, chance: random.Random) -> tuple[Any, ...]:
    """With one odd part, or one too few."""
    out = list(parts)
    at = chance.randrange(len(out))
    out[at : at + 1] = chance.choice([[chance.choice(ODD)]] * 9 + [[]])
    return tuple(out)


def attempt(module: Any, chance: random.Random) -> bool:
    """Settle two calls, one of them damaged; whether both were settled in C."""
    fixed, way = FIXED, chance.randrange(6)
    if way == 0:
        fixed = replaced(fixed, chance)
    elif way == 1:
        fixed = (*fixed[:2], replaced(FIXED[2], chance), *fixed[3:])
    elif way == 2:
        fixed = (*fixed[:5], lambda _: chance.choice(ODD), *fixed[6:])
    its, tally = plan(fixed)
    parts: Any = call(1, its)
    if way == 3:
        parts = replaced(parts, chance)
    elif way == 4:
        parts[6] = replaced(USAGE, chance)
    items = [b"", b""]
    found: Any = (2, -1, 0, tuple(parts), items, 0)
    if way == 5:
        found = replaced(found, chance)
    try:
        return settle(module, [found, (2, -1, 1, tuple(call(2, its)), items, 1)], {its: tally})[1] == 2
    except (TypeError, ValueError, IndexError, OverflowError, AttributeError, KeyError):
        return False


def add_up(module: Any, chance: random.Random) -> bool:
    """Add up two calls, one of them damaged; whether that worked."""
    good = (None, 5, 0.5, 0.1, USAGE, 0.25, T)
    way = chance.randrange(3)
    bad = replaced(good, chance) if way == 0 else (*good[:4], replaced(USAGE, chance), *good[5:]) if way == 1 else good
    try:
        return bool(module.add_up([good, bad]))
    except (TypeError, OverflowError, IndexError):
        return False


def starved(module: Any) -> int:
    """How often memory ran out."""
    its, tally = plan(FIXED)
    items = [b""] * 3
    found = [(2, -1, n, tuple(call(n, its)), items, n) for n in range(3)]
    marks, ids, tallies, books = ({}, {}), ({}, {}), {its: tally}, list[Any]()
    short = starve(module.settle, found, 5_000_000_000, marks, ids, 1.0, len, tallies.__getitem__, books.append, set())
    return int(short + starve(module.add_up, [(None, 5, 0.5, 0.1, USAGE, 0.25, T)] * 20))


def main(folder: Path) -> None:
    """All of it, twice: what the second time keeps in memory is a leak."""
    sys.path.insert(0, str(folder))
    import _calls as module  # type: ignore[import-not-found]

    assert Path(module.__file__).parent == folder, "another module"
    tracemalloc.start()
    held = []
    for _ in range(2):
        counts: Counter[str] = Counter()
        chance = random.Random(7)
        for number in range(ROUNDS):
            good = attempt(module, chance) if number % 2 else add_up(module, chance)
            counts["plain" if good else "odd"] += 1
        gc.collect()  # a tally and its calls know each other
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    leaked = held[1] - held[0]
    assert leaked < 2000, f"{leaked} bytes leaked"
    print(f"{counts['plain']} plain, {counts['odd']} odd, {starved(module)} without memory")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
