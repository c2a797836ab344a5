"""Plain JSON requests of spans and log records become protobuf in C, forty times as fast as in Python.

Where that is not built, or a request is anything but plain, the caller reads it in Python, with the same result. Plain: known
lowerCamelCase keys, each once, integer enums, hex ids of their length - what SDKs send. `_json.c` has the details. Metrics are
read in Python. The environment variable OTEL_SIDECAR_WALKER=python turns the C path off.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from collector.compiled import compiled_module
from collector.model import Signal

STEP = 2 << 20
"""Bytes of text after which others may work: 3 to 6 ms."""
_NUMBERS = {Signal.TRACES: 1, Signal.LOGS: 2}
compiled = compiled_module("otlp._json")
"""The C module; None where it is not in use."""


def transcode(
    signal: Signal, text: bytes, limits: tuple[int, int, int], reserve: Callable[[int], None]
) -> Generator[None, None, bytes | None]:
    """The encoded request, pausing now and then; None when it is not plain, which may be known only at its end.

    `limits`: most items, most nested elements in all and in one item. `reserve(n)` is asked for the memory of the result.
    """
    number = _NUMBERS.get(signal)
    if compiled is None or number is None:
        return None
    reserve(2 * len(text))  # never longer than the text; for a moment there are two of it
    work: Any = compiled.Transcoder(number, text, *limits)
    while (encoded := work.advance(STEP)) is False:
        yield
    return encoded  # type: ignore[no-any-return]


def transcode_small(signal: Signal, text: bytes, limits: tuple[int, int, int], reserve: Callable[[int], None]) -> bytes | None:
    """The same without pauses, for a text of one step; None when it is larger or not plain."""
    steps = transcode(signal, text, limits, reserve)
    try:
        next(steps)
    except StopIteration as done:
        encoded: bytes | None = done.value
        return encoded
    return None
