"""From a request's bytes to a batch: everything is checked that full decoding would refuse, in bounded memory and short slices.

Bodies of all three signals that are plain are read by the compiled walker (0.25 us a span; of metrics it counts the points too).
Other small ones are decoded once: the cheapest complete check there is in Python (0.6 us a span, 31 for a loop), and nothing of
the result is used but the heads of spans. Other bodies over FREE bytes are walked and decoded in runs of at most FREE bytes, cut
at field borders: consecutive fields of a message are a message. Items with ids of a wrong length or over MAX_ITEM bytes are left
out and counted as rejected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from collector.errors import Malformed, TooLarge
from collector.model import Batch, Group, Scope, Signal, data_points, open_envelope, slim_schema
from collector.otlp.heads import lend_heads, read_heads
from collector.otlp.mapping import FREE, MAX_ITEMS, MAX_NESTED, REQUEST
from collector.otlp.plain import open_plain, open_plain_slices
from collector.otlp.walk import Count, count_elements, fields

MAX_ITEM = 16 << 20
MAX_GROUPS, _CROWD = 20_000, 2000
"""Resources and scopes of one request: at most, and so many that others may work in between. Each costs Python some 10 us.
Of metrics too, whose points are counted one by one."""
SPAN_IDS = "a trace_id that is not 16 or a span_id that is not 8 bytes, or all zero"
LOG_IDS = "a trace_id that is not 16 or a span_id that is not 8 bytes"
_ZERO_TRACE, _ZERO_SPAN = bytes(16), bytes(8)
_ELEMENT = 256
"""Bytes one decoded element takes at most (174 measured)."""
_BYTES = 12
_log_ids = slim_schema(
    "collector.logids",
    {
        "Request": [("groups", 1, "Group", True)],
        "Group": [("scopes", 2, "Scope", True)],
        "Scope": [("items", 2, "Record", True)],
        "Record": [("trace_id", 9, _BYTES, False), ("span_id", 10, _BYTES, False)],
    },
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A checked request: what is good in it, how many items (spans, data points, log records) are not, and why, in English."""

    batch: Batch
    rejected: int
    message: str


def open_request(signal: Signal, body: bytes) -> Opened:
    """The checked request in `body`. Raises Malformed or TooLarge."""
    steps = open_slices(signal, body)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            opened: Opened = done.value
            return opened


def open_slices(signal: Signal, body: bytes, reserve: Callable[[int], None] | None = None) -> Generator[None, None, Opened]:
    """The same in slices: pauses so that the caller may let others work. `reserve(n)` is asked before much memory is taken."""
    try:
        plain = open_plain(signal, body) if len(body) <= FREE else (yield from open_plain_slices(signal, body))
        if plain is not None:
            return Opened(plain, 0, "")
        check = _Check(signal, body, reserve)
        if len(body) <= FREE:
            decoded = check.whole()
            pauses = [None] if check.crowded else []
            yield from pauses
            batch = open_envelope(signal, body)
            yield from pauses
            lend_heads(batch, decoded)
            yield from pauses
        else:
            yield from check.run()
            batch = open_envelope(signal, body)
            yield  # each of these steps takes up to 1 us an item: 60 MiB of small spans would stall the loop for 0.2 s
            read_heads(batch)
            yield
        if signal is Signal.METRICS:
            yield from _count_points(batch)
    except DecodeError:
        raise Malformed("the body is not an OTLP request in protobuf") from None
    return _without_bad_items(batch)


class _Check:
    """Walks and decodes a large body in runs, so that no more than one run is ever decoded."""

    def __init__(self, signal: Signal, body: bytes, reserve: Callable[[int], None] | None) -> None:
        self._body, self._reserve = body, reserve
        self._root = REQUEST[signal].DESCRIPTOR
        self._tags = Count(MAX_ITEMS + MAX_NESTED)
        self._items = self._groups = 0

    def whole(self) -> Any:
        """The check of a small body, decoded at once: the whole request. Raises TooLarge or DecodeError."""
        message = GetMessageClass(self._root).FromString(self._body)
        self._count_members(message, 1)
        return message

    @property
    def crowded(self) -> bool:
        """Whether there are so many resources and scopes that each further step takes long."""
        return self._groups > _CROWD

    def run(self) -> Iterator[None]:
        """Raises Malformed, TooLarge or DecodeError."""
        return self._level(self._root, 0, len(self._body), 1)

    def _level(self, descriptor: Any, at: int, end: int, depth: int) -> Iterator[None]:
        """One message of the envelope: `depth` 1 the request, 2 a group, 3 a scope."""
        members = 1 if depth == 1 else 2
        start = at
        for number, begin, content, stop in fields(self._body, at, end):
            if self._tags.step():
                yield
            if number == members and depth == 3:
                self._count_items(1)
            if stop - start > FREE and begin > start:
                self._decode(descriptor, start, begin, depth)
                yield
                start = begin
            if stop - begin > FREE:
                inner = descriptor.fields_by_number.get(number)
                if number == members and depth < 3 and content < stop:
                    yield from self._level(inner.message_type, content, stop, depth + 1)
                else:
                    yield from self._large(descriptor, inner, begin, content, stop, item=number == members)
                start = stop
        if start < end:
            self._decode(descriptor, start, end, depth)
            yield

    def _decode(self, descriptor: Any, start: int, end: int, depth: int) -> None:
        """Decode consecutive fields of a message as one message, and throw the result away."""
        message = GetMessageClass(descriptor).FromString(self._body[start:end])
        if depth < 3:
            self._count_members(message, depth)

    def _count_members(self, message: Any, depth: int) -> None:
        number = 1 if depth == 1 else 2
        members = getattr(message, message.DESCRIPTOR.fields_by_number[number].name)
        if depth == 3:
            self._count_items(len(members))
            return
        self._groups += len(members)
        if self._groups > MAX_GROUPS:
            raise TooLarge(f"more than {MAX_GROUPS} resources and scopes in one request")
        for member in members:
            self._count_members(member, depth + 1)

    def _count_items(self, count: int) -> None:
        self._items += count
        if self._items > MAX_ITEMS:
            raise TooLarge(f"more than {MAX_ITEMS} items in one request")

    def _large(self, descriptor: Any, inner: Any, begin: int, content: int, stop: int, *, item: bool) -> Iterator[None]:
        """One field that cannot be cut: its elements are counted, and room is reserved, before it is decoded."""
        if inner is not None and inner.message_type and content < stop:
            before = self._tags.value
            yield from count_elements(self._body, content, stop, inner.message_type, self._tags)
            if self._reserve:
                self._reserve(2 * (stop - begin) + _ELEMENT * (self._tags.value - before))
        if stop - content > MAX_ITEM:
            if item:
                return
            raise TooLarge(f"a header is larger than {MAX_ITEM} bytes")
        GetMessageClass(descriptor).FromString(self._body[begin:stop])
        yield


def _count_points(batch: Batch) -> Iterator[None]:
    """Count the data points once, with a pause between many: all who need their number find it in the batch."""
    for scope in batch.scopes():
        points: list[int] = []
        for start in range(0, len(scope.items), _CROWD):
            if start:
                yield
            points.extend(map(data_points, scope.items[start : start + _CROWD]))
        scope.points = points


def _without_bad_items(batch: Batch) -> Opened:
    """Leave out what cannot be taken: wrong ids, oversize items."""
    bad = [(scope, found) for scope, heads in _with_ids(batch) if (found := _bad(batch.signal, scope, heads))]
    if not bad:
        return Opened(batch, 0, "")
    before = batch.count()
    reasons: Counter[str] = Counter()
    left: dict[int, Scope] = {}
    for scope, found in bad:
        reasons.update(found.values())
        left[id(scope)] = scope.keep(i for i in range(len(scope.items)) if i not in found)
    kept = batch.replace([Group(g.header, [left.get(id(scope), scope) for scope in g.scopes]) for g in batch.groups])
    message = "; ".join(f"{number} with {reason}" for reason, number in reasons.items())
    return Opened(kept, before - kept.count(), f"rejected items: {message}")


def _with_ids(batch: Batch) -> Iterator[tuple[Scope, Sequence[Any]]]:
    """Each scope with the ids of its items."""
    if batch.signal is not Signal.LOGS:
        yield from ((scope, scope.heads or ()) for scope in batch.scopes())
        return
    request: Any = _log_ids["Request"].FromString(batch.raw or b"")
    for group, ids in zip(batch.groups, request.groups, strict=True):
        yield from zip(group.scopes, (inner.items for inner in ids.scopes), strict=True)


def _bad(signal: Signal, scope: Scope, heads: Sequence[Any]) -> dict[int, str]:
    """Positions of the items that cannot be taken, with the reason. Written for the case that all are good."""
    bad: dict[int, str] = {}
    items = scope.items
    if heads:
        log = signal is Signal.LOGS
        traces, spans = [head.trace_id for head in heads], [head.span_id for head in heads]
        scope.trace_ids = None if log else traces
        sizes = (set(map(len, traces)), set(map(len, spans)))
        if log and not (sizes[0] <= {0, 16} and sizes[1] <= {0, 8}):
            bad = {i: LOG_IDS for i in range(len(heads)) if len(traces[i]) not in (0, 16) or len(spans[i]) not in (0, 8)}
        elif not log and (sizes != ({16}, {8}) or _ZERO_TRACE in traces or _ZERO_SPAN in spans):
            bad = {i: SPAN_IDS for i in range(len(heads)) if _wrong(traces[i], spans[i])}
    if items and len(max(items, key=len)) > MAX_ITEM:
        bad |= {i: f"more than {MAX_ITEM >> 20} MiB" for i, item in enumerate(items) if len(item) > MAX_ITEM}
    return bad


def _wrong(trace: bytes, span: bytes) -> bool:
    return len(trace) != 16 or len(span) != 8 or trace == _ZERO_TRACE or span == _ZERO_SPAN
