"""The `llm_*` metric families. Names without `_total`: the exposition adds it to counters."""

from __future__ import annotations

from collections.abc import Sequence

from collector.meters import Bucket, Instrument, Meters
from collector.processors.llm_cost.exemplars import Exemplars
from collector.processors.llm_cost.tally import AMOUNT, FIRST, LATENCY, Tally

_COST = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Counters:
    """All families with the labels of one configuration."""

    def __init__(self, meters: Meters, labels: Sequence[str], cap: int) -> None:
        names = tuple(labels)

        def counter(name: str, text: str, *more: str, own: Sequence[str] = names) -> Instrument:
            return meters.counter(name, text, (*own, *more), derived=True, cap=cap)

        def histogram(name: str, text: str, buckets: Sequence[float], *more: str) -> Instrument:
            return meters.histogram(name, text, (*names, *more), buckets=buckets, derived=True, cap=cap)

        pair = ("provider", "model")
        self.requests = counter("llm_requests", "LLM calls.", "status")
        self.tokens = counter("llm_tokens", "Tokens; prompt includes cached, completion includes reasoning.", "type")
        self.billed = counter("llm_billed_tokens", "Tokens by how they are billed; disjoint.", "type")
        self.cost = counter("llm_cost_usd", "Cost of LLM calls, USD.", "source")
        self.latency = histogram("llm_latency_seconds", "Duration of LLM calls.", (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60), "status")
        self.ttft = histogram(
            "llm_time_to_first_token_seconds", "Time to the first token.", (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)
        )
        self.per_request = histogram("llm_cost_per_request_usd", "Cost of one LLM call, USD.", _COST)
        self.high_cost = counter("llm_high_cost_calls", "Calls dearer than high_cost_usd.")
        self.rate_limited = counter("llm_rate_limited", "Calls refused by a rate limit.", own=pair)
        self.unpriced = counter("llm_cost_unpriced", "Calls without a cost, by reason.", "reason")
        self.duplicates = counter("llm_cost_duplicates", "Spans of calls that were already counted.", own=("service", "kind"))
        self.mismatch = counter("llm_cost_reported_mismatch", "Reported cost differs from ours by more than 5 %.", own=pair)
        self.evicted = counter("llm_cost_dedup_evicted", "Marks forgotten before their time.", own=())
        self.errors = counter("llm_cost_errors", "Spans left as they were because of a defect.", own=())
        self.reloads = counter("llm_price_reloads", "Reloads of prices_file.", own=("result",))
        self.info = meters.gauge("llm_price_catalog_info", "Price catalogue in use.", ("version", "source"), derived=True)
        self.age = meters.gauge("llm_price_catalog_age_seconds", "Age of the price catalogue.", ("source",), derived=True)

        self.exemplars = Exemplars()

    def count(self, tally: Tally, since: float, now: float) -> None:
        """Raise them by the calls of one tally, which came between these two times."""
        labels, pair, calls = tally.labels, tally.labels[1:3], tally.calls

        def offer(touched: Sequence[tuple[Bucket, float]], place: int) -> None:
            self.exemplars.offer(touched, calls, place, since, now)

        self.requests.add(len(tally.latencies), *labels, tally.status)
        offer(self.latency.observe_many(tally.latencies, *labels, tally.status), LATENCY)
        if tally.firsts:
            offer(self.ttft.observe_many(tally.firsts, *labels), FIRST)
        if tally.limited:
            self.rate_limited.add(len(tally.latencies), *pair)
        if tally.told:
            self._count_tokens(tally)
        if tally.amounts:
            self.cost.add(tally.cost, *labels, tally.source)
            offer(self.per_request.observe_many(tally.amounts, *labels), AMOUNT)
        if tally.reason:
            self.unpriced.add(len(tally.latencies), *labels[:2], tally.name[:128], *labels[3:], tally.reason)

    def _count_tokens(self, tally: Tally) -> None:
        tokens, billed, labels = self.tokens, self.billed, tally.labels
        if tally.whole:
            tokens.add(tally.unsplit, *labels, "unknown")
            return
        tokens.add(tally.prompt, *labels, "prompt")
        tokens.add(tally.output, *labels, "completion")
        billed.add(tally.uncached, *labels, "input_uncached")
        if tally.cache_read:
            billed.add(tally.cache_read, *labels, "cache_read")
        if tally.cache_write:
            billed.add(tally.cache_write, *labels, "cache_write")
        billed.add(tally.output, *labels, "output")


_ALIASES = {
    "arc": ("arc_llm_calls", "arc_llm_duration_seconds", "arc_llm_tokens", "arc_llm_cost_dollars", ("model",),
            (0.1, 0.5, 1, 2, 5, 10, 30, 60)),
    "octollm": ("llm_api_calls", "llm_api_duration_seconds", "llm_api_tokens", "llm_api_cost_dollars", ("provider", "model"),
                (0.5, 1, 2, 5, 10, 20, 30)),
}  # fmt: skip


class Aliases:
    """One set of names that older dashboards ask for; its labels are complete, a timeout counts as error."""

    def __init__(self, name: str, meters: Meters, cap: int) -> None:
        calls, duration, tokens, cost, labels, buckets = _ALIASES[name]
        self._labels = len(labels)
        self._calls = meters.counter(calls, "LLM calls.", (*labels, "status"), derived=True, cap=cap)
        self._tokens = meters.counter(tokens, "Tokens.", (*labels, "type"), derived=True, cap=cap)
        self._cost = meters.counter(cost, "Cost of LLM calls, USD.", labels, derived=True, cap=cap)
        self._duration = meters.histogram(duration, "Duration of LLM calls.", labels, buckets=buckets, derived=True, cap=cap)

    def count(self, tally: Tally) -> None:
        """Raise them by the calls of one tally; tokens without a split have no name here."""
        labels = tally.labels[1:3][-self._labels :]
        self._calls.add(len(tally.latencies), *labels, "success" if tally.status == "success" else "error")
        self._duration.observe_many(tally.latencies, *labels)
        self._tokens.add(tally.prompt, *labels, "prompt")
        self._tokens.add(tally.output, *labels, "completion")
        self._cost.add(tally.cost, *labels)
