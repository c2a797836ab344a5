"""Feeds the joining of batches with odd ones: `python model_mutations.py FOLDER`, where FOLDER holds `_model`.

Run by test_model_sanitized.py under sanitizers, so it imports nothing that would slow it down. Prints how many batches were
joined and how many were not.
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

from mutations import starve  # type: ignore[import-not-found]

ROUNDS = 3000
HEADERS = [b"", b"\x0a\x00", b"\x0a\x03abc", b"\x0a\x81\x01" + b"r" * 129, b"\x1a\x04http", b"\x0a\x01r\x1a\x01u"] * 3
ODD = [
    b"\x0a",
    b"\x0a\x05abc",
    b"\x0a\x80",
    b"\x0a\xff\xff\xff\xff\x7f",
    b"\x1a\x00",
    b"\x1a\x01u\x0a\x01r",
    b"\x7a\x01x",
    b"\x1a",
    None,
]
ITEMS = [b"", b"a", b"a" * 127, b"a" * 128, b"a" * 16_384]


class Gone:
    """A scope that is none."""

    @property
    def header(self) -> bytes:
        """Fails."""
        raise AttributeError("gone")


def batch(chance: random.Random) -> Any:
    """Groups as a batch has them, one in five with something odd."""
    headers = HEADERS + (ODD if chance.random() < 0.2 else [])
    odd: list[Any] = [(), [bytearray(b"a")], [None]] if chance.random() < 0.1 else []

    def scope() -> Any:
        if chance.random() < 0.01:
            return Gone()
        items = chance.choice([[chance.choice(ITEMS) for _ in range(chance.randrange(9))], *odd])
        return SimpleNamespace(header=chance.choice(headers), items=items)

    return [
        SimpleNamespace(header=chance.choice(headers), scopes=[scope() for _ in range(chance.randrange(5))])
        for _ in range(chance.randrange(5))
    ]


def joined(module: Any, groups: Any) -> bytes | None:
    """What the module makes of it; None also for what is no batch."""
    try:
        found: bytes | None = module.encode(groups)
    except AttributeError:
        return None
    return found


def main(folder: Path) -> None:
    """All of it, several times: what the last time keeps in memory is a leak, what the first ones keep is the interpreter's."""
    sys.path.insert(0, str(folder))
    import _model as module

    assert Path(module.__file__ or "").parent == folder, "another module"
    tracemalloc.start()
    held = []
    for _ in range(4):
        counts: Counter[str] = Counter()
        chance = random.Random(7)
        for _ in range(ROUNDS):
            counts["odd" if joined(module, batch(chance)) is None else "plain"] += 1
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    leaked = held[-1] - held[-2]
    assert leaked < 10_000, f"{leaked} bytes leaked"  # a reference lost with one batch in a hundred keeps more
    chance = random.Random(8)
    starved = sum(starve(joined, module, batch(chance)) for _ in range(20))
    print(f"{counts['plain']} plain, {counts['odd']} odd, {starved} without memory")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
