"""Which bits the spans of a request set, without decoding more than the spans that may set one.

Errors, those in the status and the others of R-203, and attributes are searched in the encoded spans, all at once; only spans
that the search marks are read. Heads of all spans are read for times and for status codes other than ERROR alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from pydantic import Field

from collector import fields
from collector.model import Scope
from collector.otlp.find import ATTRIBUTE, ERROR, Finder
from collector.otlp.heads import SpanHead
from collector.processors.tail_sampling.attributes import (
    ERROR_STATUS,
    Attributes,
    Test,
    attribute_test,
    error_tests,
    resource_attributes,
    span_attributes,
)
from collector.processors.tail_sampling.hashing import Look
from collector.processors.tail_sampling.rules import Plan

_ERROR = 2
Times = tuple[int, int]
"""Earliest start, 0 if none is known, and latest end, nanoseconds."""
_RESOURCES, _HEADER = 1000, 8192
"""How many resources are remembered, and up to which size."""


class Errors(fields.Config):
    """What counts as an error beside the status code."""

    status_only: bool = False
    """Only the status code ERROR counts, nothing below."""
    error_type: bool = True
    """A span attribute error.type that is not empty."""
    http_5xx: bool = True
    """http.response.status_code or http.status_code from 500 to 599."""
    status_values: list[str] = Field(default=["error", "timeout"])
    """Values of a span attribute `status`."""


class Slice:
    """One scope of a request with its group's header and, parallel to its items, their trace ids."""

    __slots__ = ("header", "ids", "scope")

    def __init__(self, header: bytes, scope: Scope) -> None:
        self.header, self.scope = header, scope
        if scope.trace_ids is not None:
            self.ids = scope.trace_ids
            return
        if scope.heads is not None:
            self.ids = [head.trace_id for head in scope.heads]
            return
        # every encoder writes the id first; reading it there is three times cheaper than a parse
        self.ids = [item[2:18] if item[:2] == b"\n\x10" else SpanHead.FromString(item).trace_id for item in scope.items]

    def heads(self) -> list[Any]:
        """Heads parallel to the items."""
        heads = self.scope.heads
        return [SpanHead.FromString(item) for item in self.scope.items] if heads is None else heads


def widened(known: Times, more: Times) -> Times:
    """From the earliest start to the latest end of both."""
    first, start = known[0], more[0]
    return (min(first, start) if first and start else first or start), max(known[1], more[1])


class Evidence:
    """Finds the bits of a plan."""

    def __init__(self, plan: Plan, errors: Errors) -> None:
        self._plan = plan
        self.look = Look(plan.always, plan.shares)
        found = [attribute_test(policy, bit) for policy, bit in plan.attributes]
        self._resource_tests = _by_key(test for _, test in found)
        searches = [(search, [test]) for search, test in found]
        if plan.errors and not errors.status_only:
            searches += error_tests(plan.errors, errors.error_type, errors.http_5xx, errors.status_values)
        self._span_tests = _by_key(test for _, tests in searches for test in tests)
        self._codes = plan.statuses if set(plan.statuses) - {_ERROR} else {}
        status = ERROR_STATUS if plan.statuses and not self._codes else None
        conditions = [condition for search, _ in searches for condition in search.conditions]
        patterns = [pattern for search, _ in searches for pattern in search.patterns]
        self._finder = Finder(conditions, patterns, status) if patterns or status else None
        self._resource_bits: dict[bytes, int] = {}

    def warm(self) -> None:
        """Compile the patterns. Raises EngineFailed."""
        if self._finder is not None:
            self._finder.warm()

    @property
    def timed(self) -> bool:
        """A policy asks for times."""
        return bool(self._plan.latencies)

    def times(self, slices: Iterable[Slice], wanted: Collection[bytes]) -> dict[bytes, Times]:
        """Earliest start and latest end of each wanted trace, nanoseconds; empty when no policy asks."""
        out: dict[bytes, Times] = {}
        for part in slices if self._plan.latencies else ():
            for trace_id, head in zip(part.ids, part.heads(), strict=True):
                if trace_id in wanted:
                    out[trace_id] = widened(out.get(trace_id, (0, 0)), (head.start_time_unix_nano, head.end_time_unix_nano))
        return out

    def lasting(self, start: int, end: int) -> int:
        """The bits that a duration sets."""
        milliseconds = max(0, end - start) // 1_000_000
        return sum(bit for holds, bit in self._plan.latencies if holds(milliseconds))

    def find(self, slices: Sequence[Slice], wanted: Collection[bytes]) -> dict[bytes, int]:
        """The bits that spans of wanted traces and their resources set."""
        found: dict[bytes, int] = {}
        for source in (self._statuses(slices), self._resources(slices), self._marked(slices)):
            for trace_id, bits in source:
                if bits and trace_id in wanted:
                    found[trace_id] = found.get(trace_id, 0) | bits
        return found

    def _statuses(self, slices: Iterable[Slice]) -> Iterator[tuple[bytes, int]]:
        for part in slices if self._codes else ():
            for trace_id, head in zip(part.ids, part.heads(), strict=True):
                yield trace_id, self._codes.get(head.status.code, 0)

    def _marked(self, slices: Sequence[Slice]) -> Iterator[tuple[bytes, int]]:
        if self._finder is None:
            return
        items = [item for part in slices for item in part.scope.items] if len(slices) > 1 else slices[0].scope.items
        owners = [trace_id for part in slices for trace_id in part.ids] if len(slices) > 1 else slices[0].ids
        for position, what in self._finder.find(items).items():
            item, bits = items[position], 0
            if what & ERROR and SpanHead.FromString(item).status.code == _ERROR:
                bits = self._plan.statuses.get(_ERROR, 0)
            if what & ATTRIBUTE:
                bits |= _test(span_attributes(item), self._span_tests)
            yield owners[position], bits

    def _resources(self, slices: Iterable[Slice]) -> Iterator[tuple[bytes, int]]:
        for part in slices if self._resource_tests else ():
            bits = self._resource(part.header)
            if bits:
                yield from ((trace_id, bits) for trace_id in part.ids)

    def _resource(self, header: bytes) -> int:
        bits = self._resource_bits.get(header)
        if bits is None:
            bits = _test(resource_attributes(header), self._resource_tests)
            if len(self._resource_bits) >= _RESOURCES:
                self._resource_bits.clear()
            if len(header) <= _HEADER:
                self._resource_bits[header] = bits
        return bits


def _by_key(tests: Iterable[Test]) -> dict[bytes, list[Test]]:
    out: dict[bytes, list[Test]] = {}
    for test in tests:
        out.setdefault(test[0], []).append(test)
    return out


def _test(attributes: Attributes, tests: dict[bytes, list[Test]]) -> int:
    bits = 0
    for key, value in attributes:
        for _, holds, bit in tests.get(key, ()):
            if holds(value):
                bits |= bit
    return bits
