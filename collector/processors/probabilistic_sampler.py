"""Keeps a share of spans or log records, chosen by trace id so that every sidecar keeps the same traces.

Example:
    sampling_percentage: 10

Bit-exact with otelcol's processor of this name: hash, thresholds, `sampling.priority`, `th` and `rv` in tracestate (spans) or in
the attributes sampling.threshold and sampling.randomness (logs). It loses errors with the rest: `tail_sampling` keeps them.
Source: contrib processor/probabilisticsamplerprocessor and pkg/sampling; W3C Trace Context level 2. Longer than most files: hash,
thresholds, tracestate and log attributes are one rule and are read together.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import Field

from collector import fields
from collector.component import Processor, Settings
from collector.model import Batch, Group, Scope, Signal, slim_schema
from collector.otlp.heads import SpanHead, read_heads
from collector.otlp.scan import EngineFailed, Scanner

NEVER = 1 << 56
"""Rejection threshold that no randomness (56 bits) reaches; 0 is always."""
_DIGITS = 14
_MISSING = NEVER - 1
_OT = re.compile(r"[a-z][a-z0-9]*:[a-zA-Z0-9._\-]*(?:;[a-z][a-z0-9]*:[a-zA-Z0-9._\-]*)*")
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[ !-+\--<>-~]{0,255}[!-+\--<>-~]")
_LogHead = slim_schema("collector.probabilistic_sampler", {"Log": [("trace_id", 9, 12, False)]})["Log"]
_THRESHOLD, _RANDOMNESS, _PRIORITY = "sampling.threshold", "sampling.randomness", "sampling.priority"


def fnv1a_32(data: bytes, state: int = 0x811C9DC5) -> int:
    """FNV-1a, 32 bits, of `data`, going on from `state`."""
    for byte in data:
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF
    return state


def hashed_randomness(hashed: int) -> int:
    """The 56-bit randomness whose threshold test equals otelcol's 14-bit hash test."""
    low, unused = hashed & 0x3FFF, hashed >> 18
    return (0x3FFF - low) << 42 | (unused ^ unused << 10) << 14 | low


def hash_buckets(percentage: float) -> int:
    """Of 16,384 buckets, how many are kept: product in 32-bit floating point, then cut, as otelcol does."""
    return int(_float32(_float32(min(percentage, 100.0)) * _float32(163.84)))


def threshold_of(probability: float, precision: int) -> int:
    """Rejection threshold of a probability between 2^-56 and 1, rounded to `precision` significant hex digits or more."""
    if probability == 1:
        return 0
    zeros = max(-math.frexp(probability)[1] // 4, -math.frexp(1 - probability)[1] // 4)
    scaled = probability * NEVER
    floor = math.floor(scaled)
    threshold = NEVER - (floor + (scaled - floor >= 0.5))
    shift = 4 * (_DIGITS - min(_DIGITS, precision + zeros))
    return threshold if not shift else (threshold + (1 << shift - 1)) >> shift << shift


def threshold_text(threshold: int) -> str:
    """`th` value: hex without trailing zeros."""
    return f"{threshold:014x}".rstrip("0") or "0"


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _hex(text: str | None, least: int) -> int | None:
    """Value of `least` to 14 hex digits, as the first of 14. Raises ValueError."""
    if not text:
        return None
    if not least <= len(text) <= _DIGITS or not re.fullmatch("[0-9a-fA-F]+", text):
        raise ValueError(text)
    return int(text.ljust(_DIGITS, "0"), 16)


@dataclass(slots=True)
class Draw:
    """What an item says about its sampling: randomness, where that is from, and what earlier samplers wrote."""

    randomness: int = _MISSING
    policy: str = "missing_randomness"
    threshold: int | None = None
    explicit: int | None = None
    broken: bool = False
    writable: bool = True
    ot: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def read(self, threshold: str | None, randomness: str | None) -> None:
        """Take `th` and `rv`; unreadable ones make the item broken."""
        try:
            self.threshold, self.explicit = _hex(threshold, 1), _hex(randomness, _DIGITS)
        except ValueError:
            self.broken, self.writable = True, False

    def read_tracestate(self, text: str) -> None:
        """Take a W3C tracestate apart."""
        members = [member.strip(" \t") for member in text.split(",") if member.strip(" \t")]
        ot = [member[3:] for member in members if member.startswith("ot=")]
        self.others = [member for member in members if not member.startswith("ot=")]
        if len(text) > 1024 or len(ot) > 1 or not all(map(_MEMBER.fullmatch, members)) or not all(map(_OT.fullmatch, ot)):
            self.broken, self.writable = True, False
        elif ot:
            self.ot = dict(part.split(":", 1) for part in ot[0].split(";"))
            self.read(self.ot.pop("th", None), self.ot.pop("rv", None))

    def tracestate(self) -> str:
        """The tracestate to send on: `ot` first, in it `rv`, `th`, the rest."""
        known = {} if self.explicit is None else {"rv": f"{self.explicit:014x}"}
        known["th"] = threshold_text(self.threshold or 0)
        return ",".join(["ot=" + ";".join(f"{key}:{value}" for key, value in {**known, **self.ot}.items()), *self.others])


class ProbabilisticSampler(Processor):
    """Decides item by item."""

    class Config(fields.Config):
        """otelcol's keys and defaults."""

        sampling_percentage: float = Field(ge=0, allow_inf_nan=False)
        """Percent of items to keep; 100 and more keeps all, 0 none."""
        mode: Literal["", "hash_seed", "proportional", "equalizing"] = ""
        """hash_seed: own hash of the trace id; also when empty. proportional: this share of what arrives, even if sampled before.
        equalizing: this share of the original data, so that what was sampled before is not thinned out again."""
        hash_seed: int = Field(0, ge=0, lt=1 << 32)
        """Seed of the hash; sidecars of one tier must have the same."""
        fail_closed: bool = True
        """Drop items with unreadable or contradicting sampling information; false keeps them."""
        sampling_precision: int = Field(4, ge=1, le=_DIGITS)
        """Significant hex digits of thresholds."""
        attribute_source: Literal["traceID", "record"] = "traceID"
        """Logs: choose by trace id, or by from_attribute alone."""
        from_attribute: str = ""
        """Logs: attribute to choose by where there is no trace id."""
        sampling_priority: str = ""
        """Logs: attribute with a percentage that overrules sampling_percentage upwards; 0 drops, 100 keeps."""

    signals = frozenset({Signal.TRACES, Signal.LOGS})
    samples = True

    def __init__(self, config: Config, settings: Settings) -> None:
        super().__init__(config, settings)
        self._hashing = config.mode in ("", "hash_seed")
        self._seed = fnv1a_32(struct.pack("<I", config.hash_seed))
        percentage = _float32(min(config.sampling_percentage, 100.0))
        self._ratio = max(percentage / 100, 2.0**-56)
        buckets = hash_buckets(config.sampling_percentage)
        self._off = percentage == 0 or (self._hashing and buckets == 0)
        self._own = (0x4000 - buckets) << 42 if self._hashing else threshold_of(self._ratio, config.sampling_precision)
        keys = [key for key in (config.from_attribute, config.sampling_priority) if key]
        self._marks = {
            Signal.TRACES: Scanner([re.escape(_PRIORITY.encode())]),
            Signal.LOGS: Scanner([re.escape(key.encode()) for key in (_THRESHOLD, _RANDOMNESS, *keys)]),
        }
        self._counter = settings.meters.counter(
            "otelcol_processor_probabilistic_sampler_count_traces_sampled", "Spans decided.", ("policy", "sampled")
        )
        self._log_counter = settings.meters.counter(
            "otelcol_processor_probabilistic_sampler_count_logs_sampled", "Log records decided.", ("policy", "sampled")
        )

    def process(self, batch: Batch, now: float) -> Batch | None:
        """The kept items, each with its threshold written down."""
        counts: Counter[tuple[str, bool]] = Counter()
        read_heads(batch)
        decide = self._span if batch.signal is Signal.TRACES else self._log
        marked = iter(self._marked(batch))
        groups = [Group(g.header, [self._scope(s, decide, marked, counts) for s in g.scopes]) for g in batch.groups]
        counter = self._counter if batch.signal is Signal.TRACES else self._log_counter
        for (policy, sampled), count in counts.items():
            counter.add(count, policy, "true" if sampled else "false")
        dropped = sum(count for (_, sampled), count in counts.items() if not sampled)
        if dropped:
            self.settings.drop(batch.signal, dropped, "sampled")
        return batch.replace(groups) if dropped < counts.total() else None

    def _marked(self, batch: Batch) -> Iterable[bool]:
        """For each item whether its attributes matter."""
        items = batch.items()
        try:
            marks = self._marks[batch.signal].scan(items).marks
        except EngineFailed:  # nothing is known, so every item must be read
            return [True] * len(items)
        return [position in marks for position in range(len(items))]

    def _scope(
        self,
        scope: Scope,
        decide: Callable[[bytes, Any, bool], tuple[str, bytes | None]],
        marked: Iterator[bool],
        counts: Counter[tuple[str, bool]],
    ) -> Scope:
        kept = []
        for item, head in zip(scope.items, scope.heads or [None] * len(scope.items), strict=True):
            policy, out = decide(item, head, next(marked))
            counts[policy, out is not None] += 1
            if out is not None:
                kept.append(out)
        return Scope(scope.header, kept)

    def _threshold(self, draw: Draw) -> int:
        """The threshold that sampling_percentage and `mode` ask for."""
        if draw.threshold is not None and draw.threshold > draw.randomness:
            draw.threshold, draw.broken = None, True  # it says that this item was dropped before
        if self._off:
            return NEVER
        if draw.broken or draw.policy == "missing_randomness":
            return NEVER if self.config.fail_closed else 0
        if self._hashing or draw.threshold is None:
            return self._own
        if self.config.mode == "equalizing":
            return max(self._own, draw.threshold)
        probability = self._ratio * ((NEVER - draw.threshold) / NEVER)
        return threshold_of(probability, self.config.sampling_precision) if probability >= 2.0**-56 else NEVER

    def _draw(self, draw: Draw, trace_id: bytes, source: bytes = b"") -> None:
        """Find the randomness: written down, from the trace id, or from an attribute's bytes."""
        by_id = trace_id.strip(b"\0") and (self._hashing or len(trace_id) == 16)
        if self._hashing and (draw.threshold is not None or draw.explicit is not None):
            draw.broken, draw.writable, draw.threshold = True, False, None
        if not self._hashing and draw.explicit is not None:
            draw.randomness, draw.policy = draw.explicit, "sampling_randomness"
        elif self._hashing and (by_id or source):
            draw.randomness = hashed_randomness(fnv1a_32(trace_id if by_id else source, self._seed))
            draw.policy = "trace_id_hash" if by_id else self.config.from_attribute
            draw.explicit = draw.randomness
        elif not draw.broken and by_id:
            draw.randomness, draw.policy = int.from_bytes(trace_id[9:], "big"), "trace_id_w3c"
        elif not draw.broken and source:
            draw.randomness = hashed_randomness(fnv1a_32(source, self._seed))
            draw.policy = self.config.from_attribute

    def _span(self, item: bytes, head: Any, marked: bool) -> tuple[str, bytes | None]:
        draw = Draw()
        if head.trace_state:
            draw.read_tracestate(head.trace_state.decode("utf-8", "replace"))
        self._draw(draw, head.trace_id)
        threshold = self._threshold(draw)
        priority = _span_priority(item) if marked else None
        if priority is not None:
            draw.policy, threshold = "sampling_priority", 0 if priority else NEVER
        if threshold > draw.randomness:
            return draw.policy, None
        if not draw.writable:
            return draw.policy, item
        draw.threshold = max(threshold, draw.threshold or 0)
        if not head.trace_state:
            return draw.policy, item + Span(trace_state=draw.tracestate()).SerializeToString()
        whole = SpanHead.FromString(item)
        whole.trace_state = draw.tracestate().encode()
        return draw.policy, whole.SerializeToString()

    def _log(self, item: bytes, head: Any, marked: bool) -> tuple[str, bytes | None]:
        draw, source, priority = Draw(), b"", None
        if marked:
            values = {entry.key: entry.value for entry in LogRecord.FromString(item).attributes}
            draw.read(*(values[key].string_value if key in values else None for key in (_THRESHOLD, _RANDOMNESS)))
            source = _value_bytes(values.get(self.config.from_attribute))
            priority = self._log_priority(values.get(self.config.sampling_priority))
        trace_id = _LogHead.FromString(item).trace_id
        use_id = not self._hashing or self.config.attribute_source == "traceID"
        self._draw(draw, trace_id if use_id else b"", source)
        threshold = self._threshold(draw)
        if priority is not None and (priority == NEVER or priority < threshold):
            draw.policy, threshold = "sampling_priority", priority
        if threshold > draw.randomness:
            return draw.policy, None
        return draw.policy, _record(item, draw, threshold, self._hashing) if draw.writable else item

    def _log_priority(self, value: AnyValue | None) -> int | None:
        """Threshold of the percentage in the record's own attribute, None without a number."""
        kind = value.WhichOneof("value") if value is not None else None
        if kind not in ("int_value", "double_value"):
            return None
        probability = getattr(value, kind) / 100
        if not probability >= 2.0**-56:
            return NEVER
        return threshold_of(min(probability, 1.0), self.config.sampling_precision)


def _record(item: bytes, draw: Draw, threshold: int, hashing: bool) -> bytes:
    """A kept log record with the attributes of its decision."""
    written = {_THRESHOLD: threshold_text(max(threshold, draw.threshold or 0))}
    if hashing and draw.explicit is not None:
        written = {_RANDOMNESS: f"{draw.explicit:014x}", **written}
    if _THRESHOLD.encode() in item:
        record = LogRecord.FromString(item)
        kept = [entry for entry in record.attributes if entry.key != _THRESHOLD]
        del record.attributes[:]
        record.attributes.extend(kept)
        item = record.SerializeToString()
    pairs = [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in written.items()]
    return item + LogRecord(attributes=pairs).SerializeToString()


def _span_priority(item: bytes) -> bool | None:
    """The attribute sampling.priority: True keep, False drop, None nothing said."""
    for entry in Span.FromString(item).attributes:
        if entry.key == _PRIORITY:
            kind = entry.value.WhichOneof("value")
            try:
                number = float(getattr(entry.value, kind)) if kind in ("int_value", "double_value", "string_value") else -1.0
            except ValueError:
                return None
            return number > 0 if number >= 0 else None
    return None


def _value_bytes(value: Any) -> bytes:
    """An attribute's bytes to hash; numbers and booleans as otelcol prints them."""
    kind = value.WhichOneof("value") if value is not None else None
    if kind is None:
        return b""
    if kind == "bytes_value":
        return bytes(value.bytes_value)
    if kind == "bool_value":
        return b"true" if value.bool_value else b"false"
    return str(getattr(value, kind)).encode() if kind in ("string_value", "int_value") else b""
