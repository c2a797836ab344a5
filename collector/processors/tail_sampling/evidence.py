"""Which bits the spans of a request set, without decoding more than the spans that may set one.

Trace ids, status codes and times come from heads. Attributes, and the errors that are not in the status (R-203), are searched as
encoded bytes in one scan over all undecided spans; only what the scan marks is decoded, attributes alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from collector import fields
from collector.model import Scope
from collector.otlp.scan import EngineFailed, Scanner
from collector.processors.tail_sampling.attributes import (
    Attributes,
    Test,
    attribute_test,
    error_tests,
    resource_attributes,
    span_attributes,
)
from collector.processors.tail_sampling.rules import Plan


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


@dataclass(slots=True)
class Slice:
    """One scope of a request with its group's header and, parallel to its items, their trace ids."""

    header: bytes
    scope: Scope
    ids: list[bytes]


class Evidence:
    """Finds the bits of a plan."""

    def __init__(self, plan: Plan, errors: Errors) -> None:
        self._plan = plan
        found = [attribute_test(policy, bit) for policy, bit in plan.attributes]
        self._resource_tests = _by_key(test for _, test in found)
        patterns = [pattern for patterns, _ in found for pattern in patterns]
        tests = [test for _, test in found]
        if plan.errors and not errors.status_only:
            more, exact = error_tests(plan.errors, errors.error_type, errors.http_5xx, errors.status_values)
            patterns += more
            tests += exact
        self._span_tests = _by_key(tests)
        self._scanner = Scanner(patterns) if patterns else None
        self._resources: dict[bytes, int] = {}

    def fixed(self, ids: Sequence[bytes]) -> dict[bytes, int]:
        """The bits that a trace id sets by itself."""
        bits = dict.fromkeys(ids, self._plan.always)
        for share, bit in self._plan.shares:
            for trace_id in share.pick(ids):
                bits[trace_id] |= bit
        return bits

    def times(self, slices: Iterable[Slice], wanted: Collection[bytes]) -> dict[bytes, tuple[int, int]]:
        """Earliest start and latest end of each wanted trace, nanoseconds; empty when no policy asks."""
        out: dict[bytes, tuple[int, int]] = {}
        for part in slices if self._plan.latencies else ():
            for trace_id, head in zip(part.ids, part.scope.heads or (), strict=True):
                if trace_id in wanted:
                    start, end = head.start_time_unix_nano, head.end_time_unix_nano
                    first, last = out.get(trace_id, (start, end))
                    out[trace_id] = (min(first, start) if first and start else first or start), max(last, end)
        return out

    def lasting(self, start: int, end: int) -> int:
        """The bits that a duration sets."""
        milliseconds = max(0, end - start) // 1_000_000
        return sum(bit for holds, bit in self._plan.latencies if holds(milliseconds))

    def find(self, slices: Sequence[Slice], wanted: Collection[bytes]) -> dict[bytes, int]:
        """The bits that spans of wanted traces and their resources set."""
        found: dict[bytes, int] = {}
        for trace_id, bits in self._statuses(slices):
            if trace_id in wanted:
                found[trace_id] = found.get(trace_id, 0) | bits
        for trace_id, bits in self._by_attributes(slices, wanted):
            found[trace_id] = found.get(trace_id, 0) | bits
        return found

    def _statuses(self, slices: Iterable[Slice]) -> Iterator[tuple[bytes, int]]:
        statuses = self._plan.statuses
        for part in slices if statuses else ():
            codes = [head.status.code for head in part.scope.heads or ()]
            for number, bits in statuses.items():
                if number in codes:
                    for trace_id, code in zip(part.ids, codes, strict=True):
                        if code == number:
                            yield trace_id, bits

    def _by_attributes(self, slices: Iterable[Slice], wanted: Collection[bytes]) -> Iterator[tuple[bytes, int]]:
        owners: list[bytes] = []
        items: list[bytes] = []
        for part in slices:
            chosen = [position for position, trace_id in enumerate(part.ids) if trace_id in wanted]
            mine = [part.ids[position] for position in chosen]
            bits = self._resource(part.header)
            if bits:
                yield from ((trace_id, bits) for trace_id in mine)
            owners += mine
            items += [part.scope.items[position] for position in chosen]
        for position in self._candidates(items):
            bits = _test(span_attributes(items[position]), self._span_tests)
            if bits:
                yield owners[position], bits

    def _candidates(self, items: Sequence[bytes]) -> Iterable[int]:
        if self._scanner is None:
            return ()
        try:
            return self._scanner.scan(items).marks
        except EngineFailed:  # nothing is known, so everything must be read
            return range(len(items))

    def _resource(self, header: bytes) -> int:
        if not self._resource_tests:
            return 0
        bits = self._resources.get(header)
        if bits is None:
            if len(self._resources) >= 1000:
                self._resources.clear()
            bits = self._resources[header] = _test(resource_attributes(header), self._resource_tests)
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
