"""Feeds a transcoder with damaged texts: `python json_mutations.py FOLDER`, where FOLDER holds `_json` and valid texts.

Run by test_transcode_sanitized.py under sanitizers, so it imports nothing that would slow it down. Prints how many texts were
plain and how many were not.
"""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

from mutations import starve  # type: ignore[import-not-found]

ROUNDS = 2500
LIMITS = (1000, 1000, 1000)
TOKENS = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-", b"7", b"1.5", b"e9", b'""', b"{}", b"[]", b" ", b"\n",
    b"\x00", b"\x1f", b"\xc3\xa9", b"\xff", b"\\u00e9", b"\\ud83d\\ude00", b"\\ud83d", b"\\u0", b'"kind":1,', b'"name":"x",',
    b"a" * 300, b'{"arrayValue":{"values":[' * 40]  # fmt: skip


def damaged(text: bytes, chance: random.Random) -> bytes:
    """The text with one or two mutations."""
    out = bytearray(text)
    for _ in range(chance.choice([1, 1, 2])):
        at, kind = chance.randrange(len(out) + 1), chance.randrange(6)
        if kind == 0:
            del out[at:]
        elif kind == 1 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del out[at : at + chance.randrange(1, 9)]
        elif kind == 3:
            begin = chance.randrange(len(out) + 1)
            out[at:at] = out[begin : begin + chance.randrange(64)]
        else:
            out[at:at] = chance.choice(TOKENS)
    return bytes(out)


def inside(text: bytes, quotes: list[int], chance: random.Random) -> bytes:
    """The text with one string, key or not, replaced: many of these stay plain."""
    at = chance.randrange(len(quotes) // 2) * 2
    inner = chance.choice(
        [b"", b"a" * chance.randrange(400), b"\\n" * chance.randrange(200), "ü€😀".encode(), b"\\u20ac", b"\x80", b"12"]
    )
    return text[: quotes[at] + 1] + inner + text[quotes[at + 1] :]


def feed(module: Any, signal: int, text: bytes, step: int) -> bool:
    """Read one text in steps; whether it was plain."""
    work = module.Transcoder(signal, text, *LIMITS)
    while (encoded := work.advance(step)) is False:
        pass
    return encoded is not None


def read(module: Any, signal: int, text: bytes) -> None:
    """All in one step, for want of memory."""
    module.Transcoder(signal, text, *LIMITS).advance(len(text))


def main(folder: Path) -> None:
    """All of it, twice: what the second time keeps in memory is a leak."""
    sys.path.insert(0, str(folder))
    import _json as module

    assert Path(module.__file__ or "").parent == folder, "another module"
    texts = [(signal, (folder / f"{signal}{kind}").read_bytes()) for signal in (1, 2) for kind in ("", ".escaped")]
    tracemalloc.start()
    held = []
    for _ in range(2):
        counts: Counter[str] = Counter()
        for signal, text in texts:
            assert feed(module, signal, text, 1 << 20), "the valid text is plain"
            for cut in range(len(text)):
                assert not feed(module, signal, text[:cut], 1 << 20) or not text[cut:].strip()
            chance, quotes = random.Random(7), [at for at, byte in enumerate(text) if byte == 34]
            for number in range(ROUNDS):
                bad = inside(text, quotes, chance) if number % 2 else damaged(text, chance)
                counts["plain" if feed(module, signal, bad, chance.choice([0, 50, 1 << 20])) else "odd"] += 1
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    leaked = held[1] - held[0]
    assert leaked < 2000, f"{leaked} bytes leaked"
    starved = sum(starve(read, module, signal, text) for signal, text in texts)
    print(f"{counts['plain']} plain, {counts['odd']} odd, {starved} without memory")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
