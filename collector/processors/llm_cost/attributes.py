"""Which attributes a priced span gets, and what of it stays as its emitter wrote it."""

from __future__ import annotations

from collections.abc import Sequence

from collector.processors.llm_cost.call import Seen, kept_amounts
from collector.processors.llm_cost.stamp import amounts, constant, without
from collector.processors.llm_cost.verdict import Verdict


def stamp(seen: Seen, verdict: Verdict, sets: Sequence[str]) -> bytes | None:
    """The span's bytes with its cost in the chosen sets of names; None when they stay as they are."""
    if verdict.amount is None or seen.found.has("cost_source"):
        return None
    values, words = _attributes(seen, verdict, verdict.amount, sets)
    if not seen.found.has("written"):
        return seen.item + amounts(values) + constant(words)
    kept = kept_amounts(seen)
    values = {name: value for name, value in values.items() if name not in kept}
    present = set(seen.found.names("written")) - kept
    replaced = present & (values.keys() | {name for name, _ in words})
    item = without(seen.span, replaced) if replaced else seen.item
    return item + amounts(values) + constant(words)


def _attributes(
    seen: Seen, verdict: Verdict, amount: float, sets: Sequence[str]
) -> tuple[dict[str, float], tuple[tuple[str, str | bool], ...]]:
    values: dict[str, float] = {}
    words: list[tuple[str, str | bool]] = [("llm.cost.source", verdict.source)]
    entry, resolved = verdict.entry, verdict.resolved
    if "default" in sets:
        values |= {"gen_ai.usage.cost": amount, "llm.cost_usd": amount}
        words.append(("llm.cost.currency", "USD"))
        if verdict.source == "computed" and entry is not None:
            words.append(("llm.cost.model", f"{resolved.provider}/{resolved.model}"))
            words.append(("llm.cost.price_version", entry.version))
    if "otel" in sets:
        values.pop("gen_ai.usage.cost", None)
        values["gen_ai.usage.cost.amount"] = amount
        words.append(("gen_ai.usage.cost.currency", "USD"))
        words.append(("gen_ai.usage.cost.source", "provider" if verdict.source == "reported" else "local"))
    parts = "openinference" in sets or "details" in sets
    if parts and verdict.source == "computed" and entry is not None and seen.usage is not None:
        cost = entry.parts(seen.usage)
        if "openinference" in sets:
            values |= {"llm.cost.prompt": amount - cost.output, "llm.cost.completion": cost.output}
        if "details" in sets:
            values |= {"llm.cost.input": cost.input, "llm.cost.output": cost.output}
            values |= {"llm.cost.cache_read": cost.cache_read, "llm.cost.cache_write": cost.cache_write}
    if "openinference" in sets:
        values["llm.cost.total"] = amount
    if verdict.partial:
        words += [("llm.cost.partial", True), ("llm.cost.partial_units", verdict.partial)]
    return values, tuple(words)
