"""Plain requests are checked and cut into items in C, three times as fast as by decoding; where that is not built, or a request
is anything but plain, the caller takes the general way, with the same result.

Plain: known fields only, shortest tags and lengths, valid UTF-8, ids of the right length, envelope fields in their order - what
every SDK sends. `_plain.c` has the details. The environment variable OTEL_SIDECAR_WALKER=python turns the C path off.
"""

from __future__ import annotations

import os
from itertools import compress
from typing import Any, TypeVar

from collector.model import Batch, Group, Scope, Signal

WALKER_VARIABLE = "OTEL_SIDECAR_WALKER"
T = TypeVar("T")
_NUMBERS = {Signal.TRACES: 1, Signal.LOGS: 2}


def _walker() -> Any:
    if os.environ.get(WALKER_VARIABLE) == "python":
        return None
    try:
        from collector.otlp import _plain
    except ImportError:
        return None
    return _plain


compiled = _walker()
"""The C module; None where it is not in use."""
COMPILED = compiled is not None


def open_plain(signal: Signal, body: bytes) -> Batch | None:
    """The batch in a plain request, all of it checked; None when only the general way can tell what it is."""
    number = _NUMBERS.get(signal)
    if compiled is None or number is None:
        return None
    groups = compiled.open(number, body)
    if groups is None:
        return None
    return Batch(signal, [_group(header, scopes, number) for header, scopes in groups], body)


def select(ids: list[bytes], items: list[T], wanted: dict[bytes, Any]) -> tuple[list[bytes], list[T]]:
    """The ids that are wanted, and the items that run parallel to them."""
    if compiled is not None:
        chosen: tuple[list[bytes], list[T]] = compiled.select(ids, items, wanted)
        return chosen
    stays = list(map(wanted.__contains__, ids))
    return list(compress(ids, stays)), list(compress(items, stays))


def _group(header: bytes, scopes: list[tuple[bytes, list[bytes], list[bytes]]], number: int) -> Group:
    return Group(header, [Scope(scope, items, None, ids if number == 1 else None) for scope, items, ids in scopes])
