"""What the policies say about a trace: everything known of a trace is one integer of bits that only ever gain.

Each condition owns a bit that says "true of some span" (or "of this trace id"). So a trace's state is the same in whatever
order and in however many requests its spans come, and a verdict is a table lookup. Bits that can still appear are what makes
a decision wait: a policy that can veto (`drop`, `invert_match`) holds every trace until decision_wait is over, unless the bits
at hand rule it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from collector.processors.tail_sampling import policies as settings
from collector.processors.tail_sampling.hashing import Share


class Answer(Enum):
    """What one policy says; the value is its label in count_traces_sampled."""

    SAMPLED = "sampled"
    NOT_SAMPLED = "not_sampled"
    DROPPED = "dropped"
    INVERT_SAMPLED = "inverted_sampled"
    INVERT_NOT_SAMPLED = "inverted_not_sampled"


_NO = (Answer.NOT_SAMPLED, Answer.INVERT_NOT_SAMPLED)
State = tuple[Answer, bool]
"""An answer and whether later spans cannot change it."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One condition. `over`: a bit that makes it false for good; `fixed`: decided by the trace id alone."""

    bit: int
    over: int = 0
    fixed: bool = False
    inverted: bool = False
    probability: float = 1.0

    def answer(self, bits: int) -> State:
        """What it says with the bits known so far."""
        hit = bool(bits & self.bit)
        if self.inverted:
            return (Answer.INVERT_NOT_SAMPLED, True) if hit else (Answer.INVERT_SAMPLED, False)
        if bits & self.over:
            return Answer.NOT_SAMPLED, True
        return (Answer.SAMPLED if hit else Answer.NOT_SAMPLED), self.fixed or (hit and not self.over)


@dataclass(frozen=True, slots=True)
class All:
    """`and` or `drop`: `result` when every condition holds."""

    parts: tuple[Leaf, ...]
    result: Answer

    def answer(self, bits: int) -> State:
        """What it says with the bits known so far."""
        states = [part.answer(bits) for part in self.parts]
        if any(answer in _NO and final for answer, final in states):
            return Answer.NOT_SAMPLED, True
        if any(answer in _NO for answer, _ in states):
            return Answer.NOT_SAMPLED, False
        return self.result, all(final for _, final in states)

    @property
    def probability(self) -> float:
        """The smallest share among its conditions: shares with one salt contain each other."""
        return min(part.probability for part in self.parts)


Rule = Leaf | All


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """One object for each state, compared by identity.

    `sampled` None: not known yet; `policy`: the one that decided; `answers`: of every policy asked, for the counters.
    """

    sampled: bool | None
    policy: str = ""
    probability: float = 1.0
    answers: tuple[tuple[str, str], ...] = ()


UNDECIDED = Verdict(None)
_REMEMBERED = 10_000


class Verdicts(dict[int, Verdict]):
    """Verdicts by bits, made on first use, by otelcol's precedence: drop, inverted-not-sample, sample, inverted-sample.

    `ended`: nothing more is expected, so what would be said now holds; else UNDECIDED as long as later spans can change it.
    """

    def __init__(self, rules: Sequence[tuple[str, Rule]], first_match: bool, ended: bool) -> None:
        super().__init__()
        self._rules = tuple(rules)
        self._first_match = first_match
        self._ended = ended

    def __missing__(self, bits: int) -> Verdict:
        if len(self) >= _REMEMBERED:
            self.clear()
        verdict = self[bits] = self._decide(bits)
        return verdict

    def _decide(self, bits: int) -> Verdict:
        states = self._asked(bits)
        final = {answer: name for name, (answer, sure) in reversed(states.items()) if sure}
        may_veto = any(
            not sure and (answer is Answer.INVERT_SAMPLED or self._drops(name)) for name, (answer, sure) in states.items()
        )
        for answer in (Answer.DROPPED, Answer.INVERT_NOT_SAMPLED):
            if answer in final:
                return self._made(False, final[answer], states)
        if Answer.SAMPLED in final and not may_veto:
            return self._made(True, final[Answer.SAMPLED], states)
        if not all(sure for _, sure in states.values()):
            return UNDECIDED
        return self._made(Answer.INVERT_SAMPLED in final, final.get(Answer.INVERT_SAMPLED, ""), states)

    def _asked(self, bits: int) -> dict[str, State]:
        states: dict[str, State] = {}
        for name, rule in self._rules:
            answer, sure = rule.answer(bits)
            states[name] = answer, sure or self._ended
            if self._first_match and answer is Answer.SAMPLED and states[name][1]:
                break
        return states

    def _drops(self, name: str) -> bool:
        rule = dict(self._rules)[name]
        return isinstance(rule, All) and rule.result is Answer.DROPPED

    def _made(self, sampled: bool, policy: str, states: dict[str, State]) -> Verdict:
        probability = dict(self._rules)[policy].probability if sampled else 0.0
        return Verdict(sampled, policy, probability, tuple((name, answer.value) for name, (answer, _) in states.items()))


@dataclass(slots=True)
class Plan:
    """Which bits there are and what sets them."""

    rules: list[tuple[str, Rule]] = field(default_factory=list)
    always: int = 0
    shares: list[tuple[Share, int]] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    errors: int = 0
    latencies: list[tuple[Callable[[int], bool], int]] = field(default_factory=list)
    attributes: list[tuple[settings.StringAttribute | settings.NumericAttribute | settings.BooleanAttribute, int]] = field(
        default_factory=list
    )
    _next: int = 1

    def add(self, policy: settings.Policy) -> None:
        """Give a policy its bits."""
        body = policy.body()
        rule: Rule
        if isinstance(body, settings.And):
            rule = All(tuple(self._leaf(part) for part in body.and_sub_policy), Answer.SAMPLED)
        elif isinstance(body, settings.Drop):
            rule = All(tuple(self._leaf(part) for part in body.drop_sub_policy), Answer.DROPPED)
        else:
            rule = self._leaf(policy)
        self.rules.append((policy.name, rule))

    def _bit(self) -> int:
        bit, self._next = self._next, self._next << 1
        return bit

    def _leaf(self, policy: settings.Condition) -> Leaf:
        bit, body = self._bit(), policy.body()
        if body is None:
            self.always |= bit
            return Leaf(bit, fixed=True)
        if isinstance(body, settings.Probabilistic):
            share = Share(body.sampling_percentage, body.hash_salt)
            self.shares.append((share, bit))
            return Leaf(bit, fixed=True, probability=share.probability)
        if isinstance(body, settings.Latency):
            return self._latency(body, bit)
        if isinstance(body, settings.StatusCode):
            for code in body.status_codes:
                number = ("UNSET", "OK", "ERROR").index(code)
                self.statuses[number] = self.statuses.get(number, 0) | bit
            self.errors |= bit if "ERROR" in body.status_codes else 0
            return Leaf(bit)
        assert isinstance(body, settings.StringAttribute | settings.NumericAttribute | settings.BooleanAttribute)
        self.attributes.append((body, bit))
        return Leaf(bit, inverted=body.invert_match)

    def _latency(self, body: settings.Latency, bit: int) -> Leaf:
        low, high = body.threshold_ms, body.upper_threshold_ms
        if not high:
            self.latencies.append((lambda ms: ms >= low, bit))
            return Leaf(bit)
        over = self._bit()
        self.latencies += [(lambda ms: ms > low, bit), (lambda ms: ms > high, over)]
        return Leaf(bit, over)
