"""A price, compiled: from a catalogue model or a user's price to a function over floats (0.5 us instead of 50).

Tiers are cliffs: strictly above a threshold of total input, every token of the call takes the tier's rate. A subset (cached,
audio, image, reasoning tokens) without a rate of its own takes its parent's. Rates are USD per token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from collector.processors.llm_cost.usage import Usage

DAY_NS = 86_400 * 10**9
_FOREVER = 1 << 80

# what a part of the record is priced by: the most specific unit of the catalogue that is priced
_UNITS: dict[str, tuple[str, ...]] = {
    "input": ("input_mtok",),
    "cache_read": ("cache_read_mtok", "input_mtok"),
    "write_5m": ("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
    "write_1h": ("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
    "output": ("output_mtok",),
    "request": ("requests_kcount",),
    "audio_in": ("input_audio_mtok", "input_mtok"),
    "image_in": ("input_image_mtok", "input_mtok"),
    "audio_cache_read": ("cache_audio_read_mtok", "cache_read_mtok", "input_mtok"),
    "image_cache_read": ("cache_image_read_mtok", "cache_read_mtok", "input_mtok"),
    "reasoning": ("output_reasoning_mtok", "output_mtok"),
    "audio_out": ("output_audio_mtok", "output_mtok"),
    "image_out": ("output_image_mtok", "output_mtok"),
}
Band = tuple[int, Mapping[str, float]]
"""Rates for calls with more than that many input tokens."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one call cost, USD, and of what it is made."""

    total: float
    input: float
    output: float
    cache_read: float
    cache_write: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A compiled price, valid for spans that start in `[from_ns, until_ns)`."""

    price: Callable[[Usage], float]
    """USD of one call."""
    bands: tuple[Band, ...]
    from_ns: int
    until_ns: int
    version: str
    """Which catalogue or file it came from, and the day its period starts."""
    partial: str = ""
    """Unit that has no price of its own, so that the amount is incomplete."""

    def lacks(self, usage: Usage) -> bool:
        """Whether a main unit of this usage has no price at all."""
        rates = self.bands[0][1]
        return ("input" not in rates and usage.prompt > 0) or ("output" not in rates and usage.output > 0)

    def parts(self, usage: Usage) -> Cost:
        """The same amount taken apart, for the attribute sets that show it."""
        rates = _band(self.bands, usage.prompt)
        read = usage.cache_read * rates["cache_read"]
        write = usage.write_5m * rates["write_5m"] + usage.write_1h * rates["write_1h"]
        output = usage.output * rates.get("output", 0.0) + _extra(rates, usage, "reasoning audio_out image_out")
        total = self.price(usage)
        return Cost(total, total - output - read - write, output, read, write)


def _band(bands: Sequence[Band], tokens: int) -> Mapping[str, float]:
    return next(rates for start, rates in reversed(bands) if tokens > start)


def compile_rates(bands: Sequence[Band]) -> Callable[[Usage], float]:
    """The function of these rates; `bands` ascending, the first one above -1 tokens: for every call."""
    singles = [_single(rates) for _, rates in bands]
    if len(bands) == 1:
        return singles[0]
    steps = [(start, single) for (start, _), single in zip(bands, singles, strict=True)][::-1]

    def tiered(usage: Usage) -> float:
        prompt = usage.prompt
        return next(single for start, single in steps if prompt > start)(usage)

    return tiered


_SUBSETS = {
    "audio_in": "input",
    "image_in": "input",
    "audio_cache_read": "cache_read",
    "image_cache_read": "cache_read",
    "reasoning": "output",
    "audio_out": "output",
    "image_out": "output",
}


def _single(rates: Mapping[str, float]) -> Callable[[Usage], float]:
    unc, read, out = rates.get("input", 0.0), rates["cache_read"], rates.get("output", 0.0)
    w5, w1, request = rates["write_5m"], rates["write_1h"], rates["request"]

    def price(u: Usage) -> float:
        uncached, cached, five, hour, output = u[:5]  # half the time of five attributes
        return uncached * unc + cached * read + five * w5 + hour * w1 + output * out + request

    own = _own(rates)
    if not own:
        return price

    def wide(u: Usage) -> float:
        return price(u) + _extra(rates, u, own)

    return wide


def flat_rates(bands: Sequence[Band]) -> tuple[float, ...] | None:
    """Rates of the first five counts of a usage, and of the call, where the price is nothing but their sum; else None."""
    rates = bands[0][1]
    if len(bands) > 1 or _own(rates):
        return None
    return (*(rates.get(part, 0.0) for part in ("input", "cache_read", "write_5m", "write_1h", "output")), rates["request"])


def _own(rates: Mapping[str, float]) -> str:
    """The subsets that have a price of their own."""
    return " ".join(name for name, parent in _SUBSETS.items() if name in rates and rates[name] != rates.get(parent, 0.0))


def _extra(rates: Mapping[str, float], usage: Usage, names: str) -> float:
    extra = 0.0
    for name in names.split():
        count = getattr(usage, name)
        if count and name in rates:
            if name in ("audio_in", "image_in"):  # the cached part of it is priced as cached
                count = min(max(0, count - getattr(usage, f"{name[:5]}_cache_read")), usage.uncached)
            extra += count * (rates[name] - rates.get(_SUBSETS[name], 0.0))
    return extra


def model_bands(prices: Any) -> tuple[Band, ...] | None:
    """Bands of a catalogue ModelPrice; None when it holds no price that concerns a call."""
    stored = {key: value for key, value in vars(prices).items() if value is not None}
    if not stored:
        return None
    starts = sorted({-1} | {tier.start for value in stored.values() if hasattr(value, "tiers") for tier in value.tiers})
    return tuple((start, _rates(stored, start)) for start in starts)


def _rates(stored: Mapping[str, Any], start: int) -> dict[str, float]:
    rates = {"request": 0.0}
    for part, keys in _UNITS.items():
        key = next((key for key in keys if key in stored), None)
        if key is not None:
            rates[part] = _at(stored[key], start) / (1e3 if part == "request" else 1e6)
    for part in ("cache_read", "write_5m", "write_1h"):
        rates.setdefault(part, 0.0)
    return rates


def _at(value: Any, start: int) -> float:
    if not hasattr(value, "tiers"):
        return float(value)
    price = value.base
    for tier in value.tiers:
        if tier.start <= start:
            price = tier.price
    return float(price)


def scaled(bands: Sequence[Band], factor: float) -> tuple[Band, ...]:
    """The same rates, all multiplied."""
    return tuple((start, {name: rate * factor for name, rate in rates.items()}) for start, rates in bands)


def period(model: Any, at_ns: int) -> tuple[int, int]:
    """The half-open span of time around `at_ns` in which the model's price does not change (dates and hours are UTC)."""
    constraints = [c.constraint for c in model.prices] if isinstance(model.prices, list) else []
    constraints += [variant.constraint for variant in model.price_variants or ()]
    edges = {-_FOREVER, _FOREVER}
    day = at_ns // DAY_NS * DAY_NS
    for constraint in constraints:
        if hasattr(constraint, "start_date"):
            edges.add(date_ns(constraint.start_date))
        elif constraint is not None:
            edges |= {day, day + DAY_NS} | {day + _time_ns(t) for t in (constraint.start_time, constraint.end_time)}
    return max(edge for edge in edges if edge <= at_ns), min(edge for edge in edges if edge > at_ns)


def date_ns(value: Any) -> int:
    """Midnight UTC of a date, in nanoseconds."""
    return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()) * 10**9


def _time_ns(value: Any) -> int:
    offset = value.utcoffset() or timedelta()
    seconds = value.hour * 3600 + value.minute * 60 + value.second - int(offset.total_seconds())
    return int(seconds) % 86_400 * 10**9


def day_text(ns: int) -> str:
    """`@2025-06-10` for the start of a period, empty for an open one."""
    return "" if abs(ns) >= _FOREVER else f"@{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d}"
