"""Plain requests are checked and cut into items in C, three times as fast as by decoding; where that is not built, or a request
is anything but plain, the caller takes the general way, with the same result.

Plain: known fields only, shortest tags and lengths, valid UTF-8, ids of the right length, envelope fields in their order - what
every SDK sends. `_plain.c` has the details, `_plain_items.c` what is asked of items. The environment variable
OTEL_SIDECAR_WALKER=python turns the C path off.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator
from itertools import accumulate, chain, compress
from typing import Any, TypeVar

from collector.compiled import compiled_module
from collector.model import Batch, Group, Scope, Signal

PIECE = 1 << 20
"""Bytes of a large body after which others may work: 0.3 ms, 4 where all text is beyond ASCII."""
T = TypeVar("T")
_NUMBERS = {Signal.TRACES: 1, Signal.LOGS: 2, Signal.METRICS: 3}


compiled = compiled_module("otlp._plain")
"""The C module; None where it is not in use."""
COMPILED = compiled is not None


def open_plain(signal: Signal, body: bytes) -> Batch | None:
    """The batch in a plain request, all of it checked; None when only the general way can tell what it is."""
    if compiled is None:
        return None
    return _batch(signal, body, compiled.open(_NUMBERS[signal], body))


def open_plain_slices(signal: Signal, body: bytes) -> Generator[None, None, Batch | None]:
    """The same in slices, for a large body. What holds more than 512 KiB in one item or header is not plain."""
    if compiled is None:
        return None
    begun = compiled.begin(_NUMBERS[signal], body)
    while (groups := compiled.proceed(begun, PIECE)) is False:
        yield
    return _batch(signal, body, groups)


def _batch(signal: Signal, body: bytes, groups: Any) -> Batch | None:
    if groups is None:
        return None
    scope = _SCOPES[signal]
    return Batch(signal, [Group(header, [scope(*parts) for parts in scopes]) for header, scopes in groups], body)


def select(ids: list[bytes], items: list[T], wanted: dict[bytes, Any]) -> tuple[list[bytes], list[T]]:
    """The ids that are wanted, and the items that run parallel to them."""
    if compiled is not None:
        chosen: tuple[list[bytes], list[T]] = compiled.select(ids, items, wanted)
        return chosen
    stays = list(map(wanted.__contains__, ids))
    return list(compress(ids, stays)), list(compress(items, stays))


def pack(
    ids: tuple[list[bytes], ...], items: tuple[list[bytes], ...], wanted: dict[bytes, Any]
) -> tuple[bytes, bytes, bytes, list[int]]:
    """Of some lists the items whose trace id is wanted, one behind the other.

    Their ids; where each of them ends (32 bits, in the machine's order); they themselves; how many each list had.
    """
    if compiled is not None:
        packed: tuple[bytes, bytes, bytes, list[int]] = compiled.pack(ids, items, wanted)
        return packed
    chosen = [select(*each, wanted) for each in zip(ids, items, strict=True)]
    spans = [item for _, own in chosen for item in own]
    ends = array("I", accumulate(map(len, spans)))
    names = chain.from_iterable(own for own, _ in chosen)
    return b"".join(names), ends.tobytes(), b"".join(spans), [len(own) for own, _ in chosen]


def _spans(header: bytes, items: list[bytes], ids: list[bytes]) -> Scope:
    return Scope(header, items, None, ids)


def _records(header: bytes, items: list[bytes], _: list[bytes]) -> Scope:
    return Scope(header, items)


def _metrics(header: bytes, items: list[bytes], points: list[int]) -> Scope:
    return Scope(header, items, None, None, points)


_SCOPES: dict[Signal, Callable[..., Scope]] = {Signal.TRACES: _spans, Signal.LOGS: _records, Signal.METRICS: _metrics}
