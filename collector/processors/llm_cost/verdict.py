"""What one call cost, and if nobody knows, why."""

from __future__ import annotations

from collector.processors.llm_cost.call import Seen
from collector.processors.llm_cost.dialects import text
from collector.processors.llm_cost.prices import Call, PriceBook, Resolved
from collector.processors.llm_cost.rates import DAY_NS, Entry
from collector.processors.llm_cost.usage import Usage


class Verdict:
    """What one call cost: `amount` is None when nobody knows; then `reason` says why, if that is worth saying."""

    __slots__ = ("amount", "entry", "mismatch", "partial", "reason", "resolved", "source")

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved
        self.entry: Entry | None = None
        self.amount: float | None = None
        self.source = ""
        self.reason = ""
        self.partial = ""
        self.mismatch = False


def judge(seen: Seen, book: PriceBook, prefer_reported: bool, now: float) -> Verdict:
    """The verdict on one span: its reported cost or ours, at the price of its start."""
    found, usage = seen.found, seen.usage
    verdict = Verdict(resolve(seen, book))
    if usage is not None and usage.split:
        verdict.entry = book.entry(verdict.resolved, moment(seen.start, now))
    computed = _computed(verdict, usage)
    earlier = found.pick("cost_source", text)
    if seen.reported is not None and (prefer_reported or computed is None or earlier):
        known = earlier if earlier in ("reported", "computed", "estimated") else "reported"
        verdict.amount, verdict.source, verdict.partial = seen.reported, known, ""
    elif computed is not None:
        verdict.amount, verdict.source = computed, "computed"
    else:
        verdict.reason = why(seen, verdict.resolved)
    if seen.reported and computed is not None and abs(computed - seen.reported) > 0.05 * seen.reported:
        verdict.mismatch = True
    return verdict


def _computed(verdict: Verdict, usage: Usage | None) -> float | None:
    entry = verdict.entry
    if entry is None or usage is None or entry.lacks(usage):
        return None
    verdict.partial = " ".join([*usage.bad, *([entry.partial] if entry.partial else [])])
    return entry.price(usage)


def resolve(seen: Seen, book: PriceBook) -> Resolved:
    """What the names on a span mean."""
    tier = seen.found.pick("service_tier", text) or ""
    server = seen.found.pick("server", text) or ""
    return book.resolve(Call(seen.provider[:256], seen.response_model[:512], seen.request_model[:512], server[:256], tier[:64]))


def name_of(seen: Seen) -> str:
    """The model as the emitter wrote it."""
    return seen.response_model or seen.request_model or "unknown"


def why(seen: Seen, resolved: Resolved) -> str:
    """Why a call has no amount; empty for one that failed before it used anything."""
    usage = seen.usage
    if usage is None:
        return "no_usage" if seen.status == "success" else ""
    if usage.bad and not usage.split:
        return "bad_value"
    if usage.total is not None:
        return "no_split"
    if not (seen.response_model or seen.request_model):
        return "no_model"
    return "no_unit_price" if resolved.own or resolved.listed else "unknown_model"


def moment(start: int, now: float) -> int:
    """When the price counts: the span's start, unless that is missing or in the future."""
    arrival = int(now * 1e9)
    return start if 0 < start <= arrival + DAY_NS else arrival
