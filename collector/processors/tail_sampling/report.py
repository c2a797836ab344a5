"""Counters of the sampler, added up until somebody reads them; and what a kept span may say about its decision."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.component import Settings
from collector.model import Signal
from collector.processors.tail_sampling.memory import Held
from collector.processors.tail_sampling.rules import Verdict

POLICY, PROBABILITY = "tailsampling.policy", "sampling.probability"
_PREFIX = "otelcol_processor_tail_sampling_"
_HALF_LIFE = 60.0
_FAINT = 1e-6
"""Of so little the share says nothing any more: forgotten long before it is 0, which is no divisor, after 18 hours."""


class Report:
    """Counts decisions and books drops. Traces with an error and others are told apart where a policy asks for errors."""

    def __init__(self, settings: Settings, error_bits: int, held: Held) -> None:
        meters, self._book, self._held = settings.meters, settings.drop, held
        self._owe, self._owing = meters.owe, False
        self._errors = error_bits
        self._by_policy = meters.counter(f"{_PREFIX}count_traces_sampled", "Decisions by policy.", ("policy", "decision"))
        self._global = meters.counter(f"{_PREFIX}global_count_traces_sampled", "Traces decided.", ("sampled",))
        self._early = meters.counter(
            f"{_PREFIX}sampling_trace_dropped_too_early", "Traces judged before decision_wait because room ran out."
        )
        self._new = meters.counter(f"{_PREFIX}new_trace_id_received", "Traces first seen.")
        self._in_memory = meters.gauge(f"{_PREFIX}sampling_traces_on_memory", "Undecided traces held.")
        self._bytes = meters.gauge("collector_sampling_held_bytes", "Bytes of undecided spans held.")
        self._spans = meters.counter("collector_sampling_spans", "Spans by deciding policy.", ("policy", "decision"))
        self._ratio = meters.gauge(
            "collector_sampling_kept_ratio",
            "Share of decided traces that were kept; older ones count half each minute.",
            ("class",),
        )
        self._decided: Counter[tuple[Verdict, str]] = Counter()
        self._kept_spans: Counter[str] = Counter()
        self._dropped_spans: Counter[str] = Counter()
        self._seen = 0
        self._shares: dict[str, list[float]] = {}
        self._halved: float | None = None
        self._early.touch()

    def new(self, traces: int) -> None:
        """Traces seen for the first time; with this a batch begins."""
        self._seen += traces
        self.owe()

    def owe(self) -> None:
        """What is counted from now on goes into the meters when somebody reads them."""
        if not self._owing:
            self._owing = True
            self._owe(self._settle)

    def decided(self, verdict: Verdict, bits: int, traces: int) -> None:
        """Traces have their verdict for the first time."""
        kind = "all" if not self._errors else "error" if bits & self._errors else "clean"
        self._decided[verdict, kind] += traces

    def kept(self, policy: str, spans: int) -> None:
        """Spans that go on."""
        self._kept_spans[policy] += spans

    def dropped(self, spans: int, reason: str, policy: str = "") -> None:
        """Spans that end here."""
        if spans:
            self._dropped_spans[policy or "none"] += spans
            self._book(Signal.TRACES, spans, reason)

    def early(self, traces: int) -> None:
        """Traces judged for want of room."""
        self._early.add(traces)

    def _settle(self) -> None:
        self._owing = False
        self._raise()

    def _raise(self) -> None:
        """Move the sums into the meters: done for each request, it would cost as much as judging a small one."""
        self._new.add(self._seen)
        self._seen = 0
        for (verdict, kind), count in self._decided.items():
            self._global.add(count, "true" if verdict.sampled else "false")
            for policy, answer in verdict.answers:
                self._by_policy.add(count, policy, answer)
            share = self._shares.setdefault(kind, [0.0, 0.0])
            share[0] += count if verdict.sampled else 0
            share[1] += count
        for spans, decision in ((self._kept_spans, "kept"), (self._dropped_spans, "dropped")):
            for policy, count in spans.items():
                self._spans.add(count, policy, decision)
            spans.clear()
        if self._decided:
            for kind, (kept, total) in self._shares.items():
                self._ratio.set(kept / total, kind)
            self._decided.clear()
        self._in_memory.set(len(self._held.traces))
        self._bytes.set(self._held.size)

    def age(self, now: float) -> None:
        """Let what was counted up to now count half, each minute."""
        if self._halved is not None and now - self._halved < _HALF_LIFE:
            return
        self._raise()
        if self._halved is not None:
            self._shares = {kind: [kept / 2, total / 2] for kind, (kept, total) in self._shares.items() if total > _FAINT}
        self._halved = now


def marked(item: bytes, verdict: Verdict) -> bytes:
    """A kept span with the deciding policy and its share, unless an earlier sampler wrote them."""
    if POLICY.encode() in item:
        return item
    return item + _attributes(verdict)


@lru_cache(maxsize=1000)
def _attributes(verdict: Verdict) -> bytes:
    policy, probability = KeyValue(key=POLICY), KeyValue(key=PROBABILITY)
    policy.value.string_value = verdict.policy
    probability.value.double_value = verdict.probability
    return Span(attributes=[policy, probability]).SerializeToString()
