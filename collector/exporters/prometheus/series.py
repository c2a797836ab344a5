"""What the store is made of: how names come out, resources, scopes, sources, outputs and families."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from collector.exporters.prometheus.names import Namer, join
from collector.exporters.prometheus.values import AnyValue, plus

_books = threading.Lock()
"""A scrape may be written in a thread: it must not see a value both as retired and as current."""


@dataclass(frozen=True, slots=True)
class Shaping:
    """How names and labels come out; part of the state's identity: another shape starts a fresh state."""

    namer: Namer = field(default_factory=Namer)
    scope_labels: bool = True
    constant: tuple[tuple[str, str], ...] = ()
    resource_labels: bool = False
    keep_service: bool = True
    included: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    label_limit: int = 99

    def promotes(self, key: str) -> bool:
        """Whether a resource attribute becomes a label of every series by `resource_constant_labels`."""
        if self.included is None:
            return False
        return any(fnmatchcase(key, one) for one in self.included) and not any(fnmatchcase(key, one) for one in self.excluded)


@dataclass(slots=True)
class Target:
    """One resource: its identity, job and instance, what it adds to every series, and its target_info labels."""

    key: bytes
    labels: dict[str, str]
    attributes: dict[str, str]
    info: dict[str, str]
    size: int
    seen: float


@dataclass(frozen=True, slots=True)
class Origin:
    """Resource and scope of a metric."""

    key: bytes
    target: Target
    labels: dict[str, str]


@dataclass(slots=True)
class Source:
    """The last state of one stream; `time` is the sender's, in nanoseconds, `seen` is ours, in seconds."""

    value: AnyValue
    time: int
    seen: float
    output: Output
    size: int
    weight: int


@dataclass(slots=True)
class Output:
    """One exposed label set."""

    labels: dict[str, str]
    sources: list[Source] = field(default_factory=list)
    retired: AnyValue | None = None

    def current(self) -> tuple[AnyValue, int]:
        """The value to show, and the newest of its times."""
        with _books:
            sources = sorted(self.sources, key=lambda source: source.time)
            total = self.retired
            for source in sources:
                total = source.value if total is None else plus(total, source.value)
        assert total is not None
        return total, sources[-1].time

    def retire(self, source: Source, successor: AnyValue | None) -> None:
        """Keep what a source had counted; its `successor` starts anew, or the source leaves."""
        with _books:
            self.retired = source.value if self.retired is None else plus(self.retired, source.value)
            if successor is None:
                self.leave(source)
            else:
                source.value = successor

    def leave(self, source: Source) -> None:
        """Show the other sources only."""
        self.sources = [other for other in self.sources if other is not source]

    def latest(self) -> tuple[AnyValue, int]:
        """The newest source's value: gauges are not added up."""
        source = max(self.sources, key=lambda source: source.time)
        return source.value, source.time


@dataclass(slots=True)
class Family:
    """All series of one exposed name; the first help text and the first type stay."""

    name: str
    help: str
    kind: str
    claims: tuple[str, ...]
    sources: dict[bytes, Source] = field(default_factory=dict)
    outputs: dict[tuple[tuple[str, str], ...], Output] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=dict)
    overflow: Source | None = None


def target_of(key: bytes, attributes: dict[str, str], shaping: Shaping, now: float) -> Target:
    """The target of a resource; without `service.instance.id` the instance is a digest of all its attributes."""
    name = attributes.get("service.name") or "unknown_service"
    space = attributes.get("service.namespace", "")
    instance = attributes.get("service.instance.id") or key.hex()[:16]
    labels = {"job": f"{space}/{name}" if space else name, "instance": instance}
    service = ("service.name", "service.namespace", "service.instance.id")
    rest = {k: v for k, v in attributes.items() if k not in service}
    promoted = {k: v for k, v in attributes.items() if shaping.promotes(k)}
    if shaping.resource_labels:
        promoted = {**promoted, **(attributes if shaping.keep_service else rest)}
    info = join(labels, shaping.namer.labels(rest.items()))
    size = 600 + sum(len(a) + len(b) for a, b in (*attributes.items(), *info.items()))
    return Target(key, labels, promoted, info if len(info) > 2 else {}, size, now)
