"""Which price a call has: user prices, aliases, then the catalogue, each answer remembered in a bounded cache.

Order: user price with provider and model, user price with a glob, alias and then the same with its target, catalogue by
response model, by request model, without provider. Names are strangers' text: they reach the catalogue only from here.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from collector.processors.llm_cost.catalogue import Catalogue, Listed, canonical, priceable
from collector.processors.llm_cost.dialects import data, matches
from collector.processors.llm_cost.options import Options, PriceFile, Rates, UserPrice, no_collision
from collector.processors.llm_cost.rates import _FOREVER, Band, Entry, compile_rates, date_ns, scaled

_REMEMBERED = 4096
_LONGEST = 256
_PARTS = {
    "input": "input", "output": "output", "cache_read": "cache_read", "cache_write": "write_5m", "cache_write_1h": "write_1h",
    "input_audio": "audio_in", "output_audio": "audio_out", "input_image": "image_in", "output_image": "image_out",
    "reasoning": "reasoning",
}  # fmt: skip


class Call(NamedTuple):
    """What names the price of one call: provider, models, server and tier as the span says them."""

    provider: str
    response_model: str
    request_model: str
    server: str
    tier: str


@dataclass(slots=True)
class Own:
    """A user's price, compiled; `discount` needs the catalogue's price to apply to."""

    rule: UserPrice
    entry: Entry | None
    from_ns: int
    until_ns: int

    def fits(self, provider: str, server: str, model: str) -> bool:
        """Whether it is for such a call."""
        match = self.rule.match
        if match.provider and canonical(match.provider) != provider and match.provider.lower() != provider:
            return False
        if match.server and not matches(match.server, server):
            return False
        return bool(model) and matches(match.model, model)


@dataclass(slots=True)
class Resolved:
    """What the names of a call mean: `model` and `provider` are safe as label values."""

    model: str
    provider: str
    own: list[Own] = field(default_factory=list)
    listed: Listed | None = None
    tier: str = ""


class PriceBook:
    """All prices of one configuration; immutable but for its cache."""

    def __init__(self, options: Options, catalogue: Catalogue, extra: PriceFile | None = None) -> None:
        """`extra`: the content of prices_file. Raises ValueError when prices overlap."""
        extra = extra or PriceFile()
        prices = [*options.prices, *extra.prices]
        no_collision(prices)
        digest = hashlib.sha256(repr(prices).encode()).hexdigest()[:8]
        version = f"{'file' if extra.prices else 'config'}:{digest}"
        self._own = sorted((_compile(rule, version) for rule in prices), key=lambda own: own.rule.match.rank())
        aliases = {**extra.aliases, **options.aliases}
        self._exact = {name.lower(): target for name, target in aliases.items() if not _is_glob(name)}
        self._globs = sorted(((n, t) for n, t in aliases.items() if _is_glob(n)), key=lambda pair: -len(pair[0]))
        self._catalogue = catalogue
        self._factors = options.tiers
        self._known: OrderedDict[Call, Resolved] = OrderedDict()

    def resolve(self, call: Call) -> Resolved:
        """What the names mean; `own` and `listed` are empty for an unknown model."""
        known = self._known
        found = known.get(call)
        if found is None:
            found = known[call] = self._resolve(call)
            if len(known) > _REMEMBERED:
                known.popitem(last=False)
        return found

    def entry(self, resolved: Resolved, at_ns: int) -> Entry | None:
        """The price at that moment; None when there is none."""
        for own in resolved.own:
            if own.from_ns <= at_ns < own.until_ns:
                if own.entry is not None:
                    return own.entry
                return self._discounted(own, resolved, at_ns)
        if resolved.listed is None:
            return None
        return self._catalogue.entry(resolved.listed, at_ns, resolved.tier, self._factors)

    def _discounted(self, own: Own, resolved: Resolved, at_ns: int) -> Entry | None:
        base = resolved.listed and self._catalogue.entry(resolved.listed, at_ns, resolved.tier, self._factors)
        if not base:
            return None
        discount = own.rule.discount_percent or 0.0
        bands = scaled(base.bands, 1 - discount / 100)
        version = f"{base.version}-{discount:g}%"
        return Entry(compile_rates(bands), bands, base.from_ns, base.until_ns, version, base.partial)

    def _resolve(self, call: Call) -> Resolved:
        tier = call.tier.lower()
        models = list(dict.fromkeys(name for name in (call.response_model, call.request_model) if name))
        provider = canonical(call.provider)
        if not models or max(map(len, models)) > _LONGEST:
            return Resolved("unknown", provider or "unknown", tier=tier)
        own = self._matching(provider, call.server, models)
        alias = next((target for name in models if (target := self._alias(name))), "")
        server = call.server
        if alias:
            target_provider, _, target = alias.partition("/")
            provider, models, server = canonical(target_provider), [target], ""
            own = own or self._matching(provider, call.server, models)
        listed = None
        if not (own and own[0].entry is not None and own[0].rule.from_ is None and own[0].rule.until is None):
            listed = self._listed(alias.partition("/")[0] or call.provider, models, server)
        if listed is not None:
            return Resolved(listed.model.id, listed.provider, own, listed, tier)
        return Resolved(own[0].rule.match.model if own else "unknown", provider or "unknown", own, None, tier)

    def _matching(self, provider: str, server: str, models: list[str]) -> list[Own]:
        return [own for own in self._own if any(own.fits(provider, server, model) for model in models)]

    def _alias(self, model: str) -> str:
        exact = self._exact.get(model.lower())
        return exact or next((target for pattern, target in self._globs if matches(pattern, model)), "")

    def _listed(self, provider: str, models: list[str], server: str) -> Listed | None:
        if provider.lower() in data()["no_catalogue"]:
            return None
        catalogue = self._catalogue
        source = catalogue.provider(provider) if priceable(provider) else None
        if source is None and server:
            source = catalogue.provider_of_server(server)
        for name in models:
            bare, prefix = _bare(name)
            found = catalogue.provider(prefix) if source is None and prefix else source
            listed = found and (catalogue.model(found, name.lower()) or catalogue.model(found, bare.lower()))
            if listed:
                return listed
        return next((listed for name in models if (listed := catalogue.guess(_bare(name)[0].lower()))), None)

    def nearest(self, model: str, provider: str) -> str:
        """The known name most like `model`, empty when nothing is close. Slow (20 ms): never while a batch waits."""
        from difflib import get_close_matches

        source = self._catalogue.provider(provider)
        for group in ([source] if source else [], self._catalogue.providers):
            names = [m.id for p in group for m in p.models]
            if close := get_close_matches(model.lower(), names, 1, 0.6):
                return str(close[0])
        return ""


def _is_glob(name: str) -> bool:
    return any(sign in name for sign in "*?[")


_PREFIX = re.compile(r"^([a-z_]+)[/:](.+)$", re.IGNORECASE)


def _bare(name: str) -> tuple[str, str]:
    """The model name without `models/` or a provider prefix, and the provider that the prefix names."""
    head, cut, tail = name.rpartition("models/")
    if cut and not head.strip("/").startswith("accounts"):
        return tail, ""
    found = _PREFIX.match(name)
    known: dict[str, str] = data()["model_prefix_provider"]
    if found and found[1].lower() in known:
        return found[2], known[found[1].lower()]
    return name, ""


def _compile(rule: UserPrice, version: str) -> Own:
    start = date_ns(rule.from_) if rule.from_ else -_FOREVER
    end = date_ns(rule.until) if rule.until else _FOREVER
    if rule.discount_percent is not None:
        return Own(rule, None, start, end)
    bands: list[Band] = [(-1, _rates(rule, None))]
    bands += [(above, _rates(rates, rule)) for above, rates in sorted(rule.tiers_above.items())]
    if rule.from_:
        version += f"@{date.isoformat(rule.from_)}"
    return Own(rule, Entry(compile_rates(bands), tuple(bands), start, end, version), start, end)


def _rates(own: Rates, base: Rates | None) -> dict[str, float]:
    def pick(name: str) -> float | None:
        value: float | None = getattr(own, name)
        return value if value is not None or base is None else getattr(base, name)

    rates = {part: value / 1e6 for name, part in _PARTS.items() if (value := pick(name)) is not None}
    parent = rates.get("input", 0.0)
    rates.setdefault("cache_read", parent)
    rates.setdefault("write_5m", parent)
    rates.setdefault("write_1h", rates["write_5m"])
    rates["request"] = pick("per_request") or 0.0
    if base is None and rates["request"] and not {"input", "output"} & set(rates):
        rates["input"] = rates["output"] = 0.0  # a flat price per call is a complete price
    return rates
