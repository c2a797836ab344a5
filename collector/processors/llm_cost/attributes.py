"""Which attributes a priced span gets, and what of it stays as its emitter wrote it."""

from __future__ import annotations

from collections.abc import Sequence

from collector.processors.llm_cost.call import Seen, kept_amounts
from collector.processors.llm_cost.prices import Resolved
from collector.processors.llm_cost.rates import Entry
from collector.processors.llm_cost.stamp import amounts, constant, double_prefix, without
from collector.processors.llm_cost.usage import Usage
from collector.processors.llm_cost.verdict import Verdict

Stamp = tuple[bytes, ...]
"""What is appended to a priced span when every amount on it is the same: between these bytes stands a double."""


def stamp_for(resolved: Resolved, entry: Entry, sets: Sequence[str], words: bytes) -> Stamp | None:
    """The stamp of computed amounts at that price, `words` at its end; None when the sets show parts of the amount too."""
    if "openinference" in sets or "details" in sets:
        return None
    values, own = _attributes(None, computed(resolved, entry, 1.0), 1.0, sets)
    return (*map(double_prefix, values), constant(own) + words)


def computed(resolved: Resolved, entry: Entry, amount: float) -> Verdict:
    """The verdict on a call at that price."""
    verdict = Verdict(resolved)
    verdict.entry, verdict.amount, verdict.source = entry, amount, "computed"
    return verdict


def encoded(usage: Usage | None, verdict: Verdict, amount: float, sets: Sequence[str]) -> bytes:
    """All attributes of a priced span."""
    values, words = _attributes(usage, verdict, amount, sets)
    return amounts(values) + constant(words)


def stamp(seen: Seen, verdict: Verdict, sets: Sequence[str]) -> bytes:
    """The span's bytes with its cost in the chosen sets of names."""
    if verdict.amount is None or seen.found.has("cost_source"):
        return seen.item
    if not seen.found.has("written"):
        return seen.item + encoded(seen.usage, verdict, verdict.amount, sets)
    values, words = _attributes(seen.usage, verdict, verdict.amount, sets)
    kept = kept_amounts(seen)
    values = {name: value for name, value in values.items() if name not in kept}
    present = set(seen.found.names("written")) - kept
    replaced = present & (values.keys() | {name for name, _ in words})
    item = without(seen.span, replaced) if replaced else seen.item
    return item + amounts(values) + constant(words)


def _attributes(
    usage: Usage | None, verdict: Verdict, amount: float, sets: Sequence[str]
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
    if verdict.source == "computed" and entry is not None and usage is not None:
        values |= _parts(entry, usage, amount, sets)
    if "openinference" in sets:
        values["llm.cost.total"] = amount
    if verdict.partial:
        words += [("llm.cost.partial", True), ("llm.cost.partial_units", verdict.partial)]
    return values, tuple(words)


def _parts(entry: Entry, usage: Usage, amount: float, sets: Sequence[str]) -> dict[str, float]:
    """What the amount is made of, where the sets show it."""
    values: dict[str, float] = {}
    cost = entry.parts(usage) if "openinference" in sets or "details" in sets else None
    if cost is not None and "openinference" in sets:
        values |= {"llm.cost.prompt": amount - cost.output, "llm.cost.completion": cost.output}
    if cost is not None and "details" in sets:
        values |= {"llm.cost.input": cost.input, "llm.cost.output": cost.output}
        values |= {"llm.cost.cache_read": cost.cache_read, "llm.cost.cache_write": cost.cache_write}
    return values
