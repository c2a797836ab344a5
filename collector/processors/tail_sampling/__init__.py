"""Keeps whole traces by policy, such as every trace with an error and ten percent of the rest, deciding as early as possible.

Example:
    policies:
      - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}
      - {name: rest, type: probabilistic, probabilistic: {sampling_percentage: 10}}

otelcol's policies, precedence and hash; otelcol holds every span until `decision_wait` is over, this processor only what is not
yet known to be wanted:
- the share of `probabilistic` follows from the trace id alone, those traces flow at once;
- a span that makes a positive policy true lets its trace go, with what was held of it;
- what is still undecided when time or room runs out is judged as it stands;
- decisions are remembered, late spans follow them. A late span that makes a positive policy true still goes on, and so do those
  after it: an error is never lost to a decision made before it.
With a policy that can veto (`drop`, `invert_match`) or that needs the end of a trace (`upper_threshold_ms`) traces wait for
`decision_wait` unless what is known rules the veto out. Spans without a valid trace id are judged request by request.
Tail decisions leave `tracestate` alone: a share that errors are added to has no single probability to write there.
Longer than most files: settings and the life of a span through the sampler are read together; the parts are in the folder.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator

from collector import fields
from collector.component import Processor, Settings
from collector.model import Batch, Group, Scope, Signal
from collector.otlp.plain import select
from collector.processors.tail_sampling.chunk import Chunk, Piece, chunks_of, spans_of
from collector.processors.tail_sampling.decisions import Decisions
from collector.processors.tail_sampling.evidence import Errors, Evidence, Slice, Times, widened
from collector.processors.tail_sampling.hashing import valid
from collector.processors.tail_sampling.memory import Held, merged
from collector.processors.tail_sampling.policies import Policy
from collector.processors.tail_sampling.report import Report, marked
from collector.processors.tail_sampling.rules import UNDECIDED, Plan, Verdict, Verdicts

_TOGETHER = 0.1
"""Seconds between two looks at what has waited long enough: many small requests are let go together, for a third of the CPU."""


class DecisionCache(fields.Config):
    """How many decisions are remembered for late spans."""

    sampled_cache_size: int = Field(50_000, ge=0)
    """Sampled traces (otelcol: 0, off)."""
    non_sampled_cache_size: int = Field(50_000, ge=0)
    """Traces not sampled (otelcol: 0, off)."""


class TailSampling(Processor):
    """Decides trace by trace; see the module's text."""

    class Config(fields.Config):
        """otelcol's keys; `max_bytes`, `errors` and `record_policy` are ours."""

        policies: list[Policy] = Field(min_length=1)
        """What to keep. Precedence: drop, inverted match, any other match, inverted no-match; else the trace is dropped."""
        decision_wait: fields.Duration = 5.0
        """How long an undecided trace is held, from its first span on (otelcol: 30s)."""
        num_traces: int = Field(50_000, ge=1)
        """Undecided traces held at most; beyond, the oldest is judged early."""
        max_bytes: fields.ByteSize = 32 << 20
        """Bytes of undecided spans held at most; beyond, the oldest trace is judged early."""
        decision_cache: DecisionCache = DecisionCache()
        """Memory of decisions for late spans."""
        errors: Errors = Errors()
        """What a status_code policy with ERROR takes as an error beside the status code."""
        sample_on_first_match: bool = False
        """Stop at the first policy that samples; later ones, vetoes too, are not asked."""
        drop_pending_traces_on_shutdown: bool = False
        """Drop what is undecided at shutdown instead of judging it."""
        record_policy: bool = False
        """Write tailsampling.policy and sampling.probability onto kept spans, which then are no longer byte-identical."""
        expected_new_traces_per_sec: int = Field(0, ge=0)
        """Accepted without effect."""

        @model_validator(mode="before")
        @classmethod
        def _known(cls, value: Any) -> Any:
            fields.without_type(value, "decision_wait_after_root_received", "a trace goes on as soon as a policy keeps it")
            fields.without_type(value, "maximum_trace_size_bytes", "max_bytes bounds the whole buffer")
            fields.without_type(value, "block_on_overflow", "beyond max_bytes the oldest trace is judged early")
            return fields.without_type(value, "sampling_strategy", "spans are judged as they come, traces as a whole")

        @field_validator("policies")
        @classmethod
        def _unique(cls, value: list[Policy]) -> list[Policy]:
            names = [policy.name for policy in value]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f'duplicate policy name "{name}"')
            return value

    signals = frozenset({Signal.TRACES})
    samples = True

    def __init__(self, config: Config, settings: Settings) -> None:
        super().__init__(config, settings)
        plan = Plan()
        for policy in config.policies:
            plan.add(policy)
        self._so_far = Verdicts(plan.rules, config.sample_on_first_match, ended=False)
        self._at_end = Verdicts(plan.rules, config.sample_on_first_match, ended=True)
        self._evidence = Evidence(plan, config.errors)
        self._held = Held(config.max_bytes, config.num_traces)
        self._sampled: Decisions[Verdict] = Decisions(config.decision_cache.sampled_cache_size)
        self._dropped: Decisions[int] = Decisions(config.decision_cache.non_sampled_cache_size)
        self._report = Report(settings, plan.errors, self._held)
        self._looked = -math.inf

    def warm(self) -> None:
        """Compile the patterns."""
        self._evidence.warm()

    def process(self, batch: Batch, now: float) -> Batch | None:
        """The spans of sampled traces, in order, with what was held of them."""
        slices = [Slice(group.header, scope) for group in batch.groups for scope in group.scopes]
        tables = (*self._sampled.tables, *self._dropped.tables, self._held.traces)
        bits, seen = self._evidence.look.at(tuple([part.ids for part in slices]), tables)
        kept, late, again = self._recalled(bits, seen) if seen else ({}, {}, {})
        self._report.new(len(bits) - len(late) - len(again))
        times = self._learn(slices, bits, again)
        refused = self._judge(bits, seen, late, kept)
        pieces = self._release(again, kept, refused) if again else []
        stays = self._hold(slices, bits, again, times, now) if bits else 0
        goes, groups = self._pass(batch, slices, kept)
        total = 0
        for part in slices:
            total += len(part.ids)
        self._book(slices, refused, total - goes - stays)
        if not 0 <= now - self._looked < _TOGETHER:
            pieces += self._expire(now)
        pieces += self._make_room()
        if goes == total and not pieces and not self.config.record_policy:
            return batch
        return batch.replace(merged(groups, pieces)) if goes or pieces else None

    def tick(self, now: float) -> Batch | None:
        """Judge what has waited long enough."""
        self._report.owe()
        self._report.age(now)
        return _released(self._expire(now) + self._make_room())

    def drain(self) -> Batch | None:
        """Judge everything held, or drop it, as drop_pending_traces_on_shutdown says."""
        self._report.owe()
        chunks, pieces = self._held.overdue(math.inf, 0.0), []
        if self.config.drop_pending_traces_on_shutdown:
            self._report.dropped(sum(chunk.spans for chunk in chunks), "shutdown")
        else:
            pieces = self._end(chunks, "sampled")
        return _released(pieces)

    def held(self) -> int:
        """Undecided spans."""
        return self._held.spans

    def _recalled(
        self, bits: dict[bytes, int], seen: Mapping[bytes, int]
    ) -> tuple[dict[bytes, Verdict], dict[bytes, int], dict[bytes, Chunk]]:
        """Of trace ids that are not new those that are sampled, those that are not, and those that are held.

        All that are not sampled go to `bits`, with what is known of them.
        """
        kept = self._sampled.known(seen)
        open_ids = [trace_id for trace_id in seen if trace_id not in kept]
        late, traces = self._dropped.known(open_ids), self._held.traces
        again = {trace_id: traces[trace_id] for trace_id in open_ids if trace_id in traces}
        for trace_id in open_ids:
            known = again[trace_id].bits[trace_id] if trace_id in again else late.get(trace_id, 0)
            bits[trace_id] = seen[trace_id] | known
        return kept, late, again

    def _learn(self, slices: Sequence[Slice], bits: dict[bytes, int], again: Mapping[bytes, Chunk]) -> dict[bytes, Times]:
        """Add what the spans say of each trace; its times where a policy needs them."""
        evidence, so_far = self._evidence, self._so_far
        open_states = {state for state in set(bits.values()) if so_far[state] is UNDECIDED}
        if not open_states:
            return {}
        times: dict[bytes, Times] = {}
        if evidence.timed:
            times = evidence.times(slices, {trace_id for trace_id, state in bits.items() if state in open_states})
        for trace_id, span in times.items():
            if trace_id in again:
                times[trace_id] = span = widened(again[trace_id].times.get(trace_id, (0, 0)), span)
            bits[trace_id] |= evidence.lasting(*span)
        for trace_id, found in evidence.find(slices, bits).items():
            bits[trace_id] |= found
        return times

    def _judge(
        self, bits: dict[bytes, int], seen: Collection[bytes], late: Mapping[bytes, int], kept: dict[bytes, Verdict]
    ) -> dict[bytes, str]:
        """Move what is sampled from now on from `bits` to `kept`, what is not to the answer, with the policy that vetoed it."""
        refused: dict[bytes, str] = {}
        for state, ids in self._decidable(bits, seen, late).items():
            verdict = self._so_far[state]
            if verdict is UNDECIDED:
                verdict = self._at_end[state]
            if verdict.sampled:
                kept.update(dict.fromkeys(ids, verdict))
            else:
                refused.update(dict.fromkeys(ids, verdict.policy))
            first = [trace_id for trace_id in ids if trace_id not in late] if late else ids
            if verdict.sampled and len(first) < len(ids):
                for trace_id in late.keys() & ids:
                    self._dropped.forget(trace_id)
                first = ids
            if first:
                self._report.decided(verdict, state, len(first))
            known = dict.fromkeys([trace_id for trace_id in ids if valid(trace_id)] if seen else ids, state)
            self._remember(known, verdict)
        return refused

    def _decidable(self, bits: dict[bytes, int], seen: Collection[bytes], late: Mapping[bytes, int]) -> dict[int, list[bytes]]:
        """Take out, by state, traces that are decided now: by what is known, because they are late, or have no valid id."""
        final = {state for state in set(bits.values()) if self._so_far[state] is not UNDECIDED}
        chosen = [trace_id for trace_id, state in bits.items() if state in final] if final else []
        chosen += [t for t in seen if (t in late or not valid(t)) and bits[t] not in final]
        out: defaultdict[int, list[bytes]] = defaultdict(list)
        for trace_id in chosen:
            out[bits.pop(trace_id)].append(trace_id)
        return out

    def _remember(self, states: dict[bytes, int], verdict: Verdict) -> None:
        if verdict.sampled:
            self._sampled.put(dict.fromkeys(states, verdict))
        else:
            self._dropped.put(states)

    def _book(self, slices: Sequence[Slice], refused: Mapping[bytes, str], dropped: int) -> None:
        if dropped and any(refused.values()):
            by_policy = Counter(refused[trace_id] for part in slices for trace_id in part.ids if trace_id in refused)
            for policy, spans in by_policy.items():
                self._report.dropped(spans, "sampled", policy)
        else:
            self._report.dropped(dropped, "sampled")

    def _release(self, again: Iterable[bytes], kept: Mapping[bytes, Verdict], refused: Mapping[bytes, str]) -> list[Piece]:
        """What was held of traces that now have a verdict: pieces that go on; the rest is booked."""
        pieces: list[Piece] = []
        for trace_id in again:
            if trace_id in kept:
                pieces += self._sent(self._held.take(trace_id), kept[trace_id])
            elif trace_id in refused:
                self._report.dropped(spans_of(self._held.take(trace_id)), "sampled", refused[trace_id])
        return pieces

    def _hold(
        self,
        slices: Sequence[Slice],
        waiting: dict[bytes, int],
        again: Mapping[bytes, Chunk],
        times: Mapping[bytes, Times],
        now: float,
    ) -> int:
        """Hold the spans of traces that wait; how many."""
        before = self._held.spans
        known = {trace_id: waiting.pop(trace_id) for trace_id in again if trace_id in waiting}
        for trace_id, state in known.items():
            again[trace_id].bits[trace_id] = state
            if trace_id in times:
                again[trace_id].times[trace_id] = times[trace_id]
        for part in slices if known else ():
            self._extend(part, known)
        if waiting:
            spans = {trace_id: times.get(trace_id, (0, 0)) for trace_id in waiting} if times else {}
            sources = [(part.header, part.scope.header, part.ids, part.scope.items) for part in slices]
            for chunk in chunks_of(now, waiting, spans, sources):
                self._held.add(chunk)
        return self._held.spans - before

    def _extend(self, part: Slice, known: Collection[bytes]) -> None:
        """Hold the spans of traces that are held already."""
        spans: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for trace_id, item in zip(part.ids, part.scope.items, strict=True):
            if trace_id in known:
                spans[trace_id].append(item)
        for trace_id, items in spans.items():
            self._held.extend(trace_id, (part.header, part.scope.header, items))

    def _expire(self, now: float) -> list[Piece]:
        """Judge what has waited for decision_wait."""
        self._looked = now
        return self._end(self._held.overdue(now, self.config.decision_wait), "sampled")

    def _make_room(self) -> list[Piece]:
        """Judge the oldest as long as there is not enough room."""
        surplus = self._held.surplus()
        if not surplus:
            return []
        self._report.early(sum(len(chunk.bits) for chunk in surplus))
        return self._end(surplus, "buffer_full")

    def _end(self, chunks: Iterable[Chunk], reason: str) -> list[Piece]:
        """Judge traces as they stand."""
        pieces: list[Piece] = []
        for chunk in chunks:
            for state, traces in chunk.states().items():
                verdict = self._at_end[state]
                self._report.decided(verdict, state, len(traces))
                self._remember(traces, verdict)
                if verdict.sampled:
                    pieces += self._sent(chunk.pieces(traces), verdict)
                else:
                    self._report.dropped(chunk.count(traces), reason, verdict.policy)
        return pieces

    def _sent(self, pieces: list[Piece], verdict: Verdict) -> list[Piece]:
        self._report.kept(verdict.policy, spans_of(pieces))
        if not self.config.record_policy:
            return pieces
        return [(group, scope, [marked(item, verdict) for item in items]) for group, scope, items in pieces]

    def _pass(self, batch: Batch, slices: Sequence[Slice], kept: dict[bytes, Verdict]) -> tuple[int, list[Group]]:
        """How many spans of the batch go on, and they themselves."""
        total, parts, groups = 0, iter(slices), []
        for group in batch.groups:
            scopes = []
            for scope in group.scopes:
                part = next(parts)
                ids, items = select(part.ids, scope.items, kept) if kept else ([], [])
                if len(ids) < len(part.ids):
                    heads = scope.heads and select(part.ids, scope.heads, kept)[1]
                    scope = Scope(scope.header, items, heads, None if scope.trace_ids is None else ids)
                verdicts = [kept[trace_id] for trace_id in ids]
                for verdict in set(verdicts):
                    self._report.kept(verdict.policy, verdicts.count(verdict))
                if self.config.record_policy:
                    items = [marked(item, verdict) for item, verdict in zip(scope.items, verdicts, strict=True)]
                    scope = Scope(scope.header, items, scope.heads)
                total += len(ids)
                scopes.append(scope)
            groups.append(Group(group.header, scopes))
        return total, groups


def _released(pieces: list[Piece]) -> Batch | None:
    return Batch(Signal.TRACES, merged([], pieces)) if pieces else None
