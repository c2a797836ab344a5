"""Feeds the search for numbers with texts made of their pieces: `python number_mutations.py FOLDER`, where FOLDER holds `_numbers`.

Run by test_numbers_sanitized.py under sanitizers, so it imports nothing that would slow it down. Prints how many texts held a
number and how many did not.
"""

from __future__ import annotations

import random
import sys
import tracemalloc
from array import array
from pathlib import Path

from mutations import starve  # type: ignore[import-not-found]

ROUNDS = 5000
NAMES = tuple(range(6))
PIECES = [b"4111 1111 1111 1111", b"3782-822463-1000", b"+1(2)3.4 5", b"(212) 555-0187", b"536-90-4399", b"NO93 8601 1117 947",
    b"\x18\xff\xff\xff\xff\xff\x01", b"!1234567B", b"\x18\xff", b"!", b"+", b"AB12", b"1", b"23", b"456", b"7890", b" ", b"-", b".", b")",
    b"\xff" * 5, b"x" * 60, b"C"]  # fmt: skip


def text(chance: random.Random) -> memoryview:
    """A text of pieces whose first and last one are cut: a number at either border goes over it. No byte of another lies around."""
    out = b"".join(chance.choices(PIECES, k=chance.randrange(1, 12)))
    return memoryview(array("B", out[chance.randrange(4) : len(out) - chance.randrange(4)]))


def main(folder: Path) -> None:
    """All of it, twice: what the second time keeps in memory is a leak."""
    sys.path.insert(0, str(folder))
    import _numbers as module  # type: ignore[import-not-found]

    assert Path(module.__file__).parent == folder, "another module"
    tracemalloc.start()
    held = []
    for _ in range(2):
        chance, counts = random.Random(7), [0, 0]
        for _ in range(ROUNDS):
            limit = chance.choice([0, 1, 100])
            found = module.search(text(chance), NAMES, limit)
            assert len(found) <= limit + 1
            counts[not found] += 1
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    leaked = held[1] - held[0]
    assert leaked < 2000, f"{leaked} bytes leaked"
    starved = starve(module.search, b"".join(PIECES), NAMES, 100)
    print(f"{counts[0]} plain, {counts[1]} odd, {starved} without memory")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
