"""The price catalogue of genai-prices: which model a name means there, and its compiled price at a moment.

Loaded on first use, never at import (20 MB, 0.16 s). Its snapshot's own lookup keeps every name it was asked for without bound,
so only `find_provider_by_id` and `find_model` are used, behind the bounded cache of `prices.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from collector.processors.llm_cost.dialects import data
from collector.processors.llm_cost.rates import Entry, compile_rates, day_text, model_bands, period, scaled

RELEASED = date(2026, 11, 9)
"""Newest day on which a price of the pinned genai-prices starts: how old the prices are. Set it whenever the pin moves."""
_STANDARD = ("", "default", "auto", "standard", "on_demand")
_PERIODS = 64


@dataclass(slots=True)
class Listed:
    """One model of the catalogue and its compiled prices, at most 64 periods at a time."""

    provider: str
    model: Any
    tiers_known: bool
    entries: dict[tuple[int, str], Entry] = field(default_factory=dict)


class Catalogue:
    """Lookups in genai-prices, without state that strangers' strings could grow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listed: dict[tuple[str, str], Listed] = {}

    @cached_property
    def providers(self) -> list[Any]:
        """All providers; the first access imports the library."""
        from genai_prices.data import providers

        return providers

    @cached_property
    def version(self) -> str:
        """Version of the library, which is the version of the prices."""
        from importlib.metadata import version

        return version("genai-prices")

    def load(self) -> None:
        """Import it now, for example on a thread after the start."""
        with self._lock:
            _ = self.providers, self.version

    def provider(self, name: str) -> Any:
        """The provider an emitter's name means; None for a framework or a stranger."""
        from genai_prices.data_snapshot import find_provider_by_id

        return find_provider_by_id(self.providers, canonical(name)) if priceable(name) else None

    def provider_of_server(self, server: str) -> Any:
        """The provider behind a host name or URL."""
        import re

        url = server if "://" in server else f"https://{server}"
        return next((p for p in self.providers if re.match(p.api_pattern, url)), None)

    def model(self, provider: Any, name: str) -> Listed | None:
        """A model of that provider."""
        found = provider.find_model(name, all_providers=self.providers)
        if found is None:
            return None
        key = (provider.id, found.id)
        listed = self._listed.get(key)
        if listed is None:
            own = any(found is model for model in provider.models)  # an inherited model has no tier prices here
            listed = self._listed[key] = Listed(provider.id, found, own)
        return listed

    def guess(self, name: str) -> Listed | None:
        """A model by its name alone."""
        for provider in self.providers:
            if provider.model_match is not None and provider.model_match.is_match(name):
                return self.model(provider, name)
        return None

    def entry(self, listed: Listed, at_ns: int, tier: str, factors: Mapping[str, float]) -> Entry | None:
        """The model's price at that moment; None when the catalogue names the model but no price."""
        for (_, known_tier), known in listed.entries.items():
            if known_tier == tier and known.from_ns <= at_ns < known.until_ns:
                return known
        entry = self._compile(listed, at_ns, tier, factors)
        if entry is not None:
            if len(listed.entries) >= _PERIODS:
                listed.entries.clear()
            listed.entries[entry.from_ns, tier] = entry
        return entry

    def _compile(self, listed: Listed, at_ns: int, tier: str, factors: Mapping[str, float]) -> Entry | None:
        context = _context(tier)
        has_tier = listed.tiers_known and _offers(listed.model, context)
        moment = datetime.fromtimestamp(at_ns / 1e9, UTC)
        prices = listed.model.get_prices(moment, context if has_tier else None)
        bands = model_bands(prices)
        if bands is None:
            if not listed.model.id.endswith(":free"):
                return None
            bands = ((-1, dict.fromkeys(("input", "output", "cache_read", "write_5m", "write_1h", "request"), 0.0)),)
        partial = ""
        if context and not has_tier:
            bands = scaled(bands, factors.get(tier, 1.0))
            partial = "" if tier in factors else "service_tier"
        start, end = period(listed.model, at_ns)
        return Entry(compile_rates(bands), bands, start, end, f"genai-prices/{self.version}{day_text(start)}", partial)


def _context(tier: str) -> dict[str, str] | None:
    if tier in _STANDARD:
        return None
    return {"processing": "batch"} if tier == "batch" else {"service_tier": tier}


def _offers(model: Any, context: Mapping[str, str] | None) -> bool:
    """Whether the model has prices for that tier at any time: before their first day the tier cost the standard price."""
    return bool(context) and any(variant.when.items() <= context.items() for variant in model.price_variants or ())  # type: ignore[union-attr]


def canonical(provider: str) -> str:
    """The catalogue's id for an emitter's provider name; the name itself, lower-cased, when there is no rule for it."""
    name = provider.lower()
    aliases: dict[str, str] = data()["provider_alias"]
    found = aliases.get(name)
    if found is None:
        found = next((target for pattern, target in aliases.items() if "*" in pattern and fnmatchcase(name, pattern)), name)
    return found


def priceable(provider: str) -> bool:
    """Whether the name can be a provider of the catalogue at all."""
    name = provider.lower()
    return bool(name) and name not in data()["not_a_provider"] and name not in data()["no_catalogue"]
