"""Feeds a walker with damaged requests: `python mutations.py FOLDER`, where FOLDER holds `_plain` and `1`, `2`, `3`: valid bodies.

Run by test_plain_sanitized.py under sanitizers, so it imports nothing that would slow it down. Prints how many requests were
plain and how many were not.
"""

from __future__ import annotations

import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROUNDS = 3000
_ATTRIBUTES = {1: 9, 2: 6, 3: 7}
_ENTRIES = (
    (b"gen_ai.", True, 0, None, None, None),
    (b"http.response.status_code", False, 1, 500, 599, None),
    (b"level", False, 2, None, None, (b"\x0a\x05error", b"\x10\x01")),
)
_PAIR = b"\x4a\x0d\x0a\x03key\x12\x06\x0a\x04text"
_NAMES = (
    (b"gen_ai.request.model", 0),
    (b"http.response.status_code", 1),
    (b"share", 2),
    (b"level", 3),
    (b"on", 4),
    (b"minus", 5),
)


def truncate(body: bytearray, at: int, chance: random.Random) -> None:
    del body[at:]


def flip(body: bytearray, at: int, chance: random.Random) -> None:
    body[at] ^= 1 << chance.randrange(8)


def resize(body: bytearray, at: int, chance: random.Random) -> None:
    """Tags of length-delimited fields stand everywhere: the byte behind one is a length."""
    tag = body.find(bytes([chance.choice([0x0A, 0x12, 0x4A, 0x32, 0x2A])]), at)
    if -1 < tag < len(body) - 1:
        body[tag + 1] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, body[tag + 1] ^ 1, (body[tag + 1] + 1) & 0xFF])


def widen(body: bytearray, at: int, chance: random.Random) -> None:
    """Huge lengths and varints without an end."""
    body[at:at] = b"\xff" * chance.randrange(1, 12) + bytes([chance.randrange(128)])


def splice(body: bytearray, at: int, chance: random.Random) -> None:
    begin = chance.randrange(len(body))
    body[at : at + chance.randrange(16)] = body[begin : begin + chance.randrange(64)]


def nest(body: bytearray, at: int, chance: random.Random) -> None:
    """Arrays of lists of arrays, deeper than may be."""
    inner = b""
    for _ in range(chance.randrange(1, 60)):
        if len(inner) > 120:
            break
        inner = b"\x2a" + bytes([len(inner) + 2]) + b"\x0a" + bytes([len(inner)]) + inner
    body[at:at] = inner


DAMAGE: list[Callable[[bytearray, int, random.Random], None]] = [truncate, flip, resize, widen, splice, nest]


def damaged(message: bytes, chance: random.Random) -> bytes:
    """The message with one or two mutations, mostly inside one of its fields, whose length is then put right."""
    fields = list(fields_of(message)) if chance.random() < 0.8 else []
    if fields:
        begin, content, end = chance.choice(fields)
        inner = damaged(message[content:end], chance)
        return message[: begin + 1] + varint(len(inner)) + inner + message[end:]
    out = bytearray(message)
    for _ in range(chance.choice([1, 1, 2])):
        if out:
            chance.choice(DAMAGE)(out, chance.randrange(len(out)), chance)
    return bytes(out)


def fields_of(message: bytes) -> Iterator[tuple[int, int, int]]:
    """(begin of the tag, begin and end of the content) of fields with a length, until something else is in the way."""
    at = 0
    while at < len(message):
        begin, wire = at, message[at] & 7
        if wire != 2 or message[at] > 127:
            at += {1: 9, 5: 5}.get(wire, 2)
            continue
        size, shift, content = 0, 0, at + 1
        while content < len(message):
            size |= (message[content] & 127) << shift
            shift += 7
            content += 1
            if message[content - 1] < 128:
                break
        at = content + size
        if at <= len(message) and size:
            yield begin, content, at


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def items_of(groups: Any) -> Iterator[bytes]:
    """Every item of an opened request."""
    return (item for _, scopes in groups for _, items, _ in scopes for item in items)


def feed(walker: Any, signal: int, body: bytes, chance: random.Random, counts: Counter[str]) -> None:
    """Open and search one request, and an item once more by itself, damaged."""
    keys = walker.Keys(_ATTRIBUTES[signal], 3, _ENTRIES)
    groups = walker.open(signal, body)
    assert in_slices(walker, signal, body) == groups, "read in slices it is another request"
    counts["odd" if groups is None else "plain"] += 1
    items = list(items_of(groups or ()))
    keys.find(items)
    odd = damaged(items[0], chance) if items else body
    keys.find([odd])
    names = _NAMES[: chance.randrange(len(_NAMES) + 1)]
    rows = walker.Shapes(names).read([*items, odd], list(range(len(items) + 1)), bool(chance.randrange(2)))
    counts["read"] += len(rows) - rows.count(None)
    for item in (*items, odd):
        walker.parts(signal, item)
        ends = [(chance.randrange(70), chance.randrange(len(item) + 9)) for _ in range(chance.randrange(6))]
        for field in (walker.cut(signal, item, ends) or ((), ()))[0][1::2]:
            edit(walker, field)
            walker.pair(field[: chance.randrange(len(field))])
    ids = [item[2:18] for item in items]
    known = dict.fromkeys(ids[:2])
    new, seen = walker.fresh((ids, [item[:20] for item in items]), (known, {}), 1, ((7, 1 << 63, 2),))
    chosen = {trace_id: bits for trace_id, bits in (new | seen).items() if len(trace_id) == 16 and bits > 1}
    walker.select(ids, items, chosen)
    walker.pack((ids, ids), (items, items), chosen)


def edit(walker: Any, field: bytes) -> None:
    """Read an attribute and write it, as it was and with a longer text."""
    if (pair := walker.pair(field)) is not None:
        key, text = pair
        assert walker.put_pair(field, key, text) == field
        assert walker.pair(walker.put_pair(field, key, "ü" * 300)) == (key, "ü" * 300)


def in_slices(walker: Any, signal: int, body: bytes, size: int = 100) -> Any:
    """The same as `open`, a hundred bytes at a time."""
    begun = walker.begin(signal, body)
    while (groups := walker.proceed(begun, size)) is False:
        pass
    return groups


def starve(call: Callable[..., object], *arguments: object) -> int:
    """Let memory run out after 0, 1, 2... allocations until there is enough; returns how often there was too little.

    Nothing but the call happens meanwhile: from Python 3.12 on the interpreter itself crashes without any memory.
    """
    try:
        from _testcapi import remove_mem_hooks, set_nomemory
    except ImportError:  # a Python without its own tests
        return 0
    for enough in range(10_000):
        set_nomemory(enough, 0)
        try:
            call(*arguments)
            remove_mem_hooks()
            return enough
        except MemoryError:
            remove_mem_hooks()
    raise AssertionError("memory never suffices")


def main(folder: Path) -> None:
    """All of it, twice: what the second time keeps in memory is a leak."""
    sys.path.insert(0, str(folder))
    import _plain as walker  # type: ignore[import-not-found]

    assert Path(walker.__file__).parent == folder, "another walker"
    bodies = {signal: (folder / str(signal)).read_bytes() for signal in (1, 2, 3)}
    tracemalloc.start()
    held = []
    for _ in range(2):
        counts: Counter[str] = Counter()
        for signal, body in bodies.items():
            assert walker.open(signal, body) is not None, "the valid request is plain"
            for cut in range(len(body)):
                counts["odd" if walker.open(signal, body[:cut]) is None else "plain"] += 1
            chance = random.Random(7)
            for _ in range(ROUNDS):
                feed(walker, signal, damaged(body, chance), chance, counts)
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    leaked = held[1] - held[0]
    assert leaked < 2000, f"{leaked} bytes leaked"
    starved = 0
    for signal, body in bodies.items():
        settings = (_ATTRIBUTES[signal], 3, _ENTRIES)
        items = list(items_of(walker.open(signal, body)))
        ids = [item[2:18] for item in items]
        starved += starve(walker.open, signal, body) + starve(in_slices, walker, signal, body) + starve(walker.Shapes, _NAMES)
        starved += starve(walker.Shapes(_NAMES[:5]).read, items, list(range(len(items))), True)
        starved += starve(walker.fresh, (ids, ids), ({}, {ids[0]: None}), 1 << 70, ((7, 1 << 63, 1 << 80),))
        starved += starve(walker.select, ids, items, dict.fromkeys(ids))
        starved += starve(walker.pack, (ids, ids), (items, items), dict.fromkeys(i for i in ids if len(i) == 16))
        starved += sum(starve(walker.parts, signal, item) for item in items)
        starved += sum(starve(walker.cut, signal, item, [(0, end) for end in range(64)]) for item in items)
        starved += starve(walker.pair, _PAIR) + starve(walker.put_pair, _PAIR, "key", "text")
        starved += starve(walker.Keys, *settings) + starve(walker.Keys(*settings).find, items)
    print(f"{counts['plain']} plain, {counts['odd']} odd, {counts['read']} read, {starved} without memory")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
