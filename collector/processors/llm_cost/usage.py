"""From whatever an emitter wrote to one record: what was billed, in parts that do not overlap.

`uncached, cache_read, write_5m, write_1h, output` are disjoint and their sum is billed; reasoning, audio and image counts are
subsets of them and never added (OTel GenAI conventions: input_tokens includes cached, output_tokens includes reasoning).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from collector.processors.llm_cost.dialects import Found, data, matches

LIMIT = 10**12


def tokens(value: object) -> int | None:
    """A token count; None for what is none: booleans, NaN, infinities, negatives, beyond 10^12, empty or other text (R-405)."""
    if type(value) is int:
        return value if 0 <= value <= LIMIT else None
    number = _finite(value)
    return None if number is None or number < 0 or number > LIMIT else round(number)


def money(value: object) -> float | None:
    """A cost above zero, in the emitter's currency; None for placeholders such as 0 or NaN."""
    number = _finite(value)
    return number if number is not None and number > 0 else None


def seconds(value: object) -> float | None:
    """A duration of at least zero, in the unit it was written."""
    number = _finite(value)
    return number if number is not None and number >= 0 else None


def truth(value: object) -> bool | None:
    """A yes, as boolean or as text; None for anything else."""
    return True if value is True or (isinstance(value, str) and value.strip().lower() == "true") else None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


@dataclass(slots=True)
class Usage:
    """The usage of one call in tokens. `total` is set when only a total was known.

    `bad` names the counts that were unusable; `known` is False when there was no usable one at all.
    """

    uncached: int = 0
    cache_read: int = 0
    write_5m: int = 0
    write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    audio_in: int = 0
    audio_out: int = 0
    image_in: int = 0
    image_out: int = 0
    audio_cache_read: int = 0
    image_cache_read: int = 0
    total: int | None = None
    bad: list[str] = field(default_factory=list)
    known: bool = True

    @property
    def prompt(self) -> int:
        """All input tokens, cached ones included: what tiers and `llm_tokens` look at."""
        return self.uncached + self.cache_read + self.write_5m + self.write_1h

    @property
    def split(self) -> bool:
        """Whether input and output are known apart, so that they can be priced."""
        return self.known and self.total is None and not (set(self.bad) & {"input_tokens", "output_tokens"})


class Emitter(NamedTuple):
    """Who wrote the span: what the exclusive-input rules look at."""

    scope: str = ""
    version: str = ""
    span_name: str = ""
    provider: str = ""
    model: str = ""


_SUBSETS = ("reasoning", "audio_in", "audio_out", "image_in", "image_out", "audio_cache_read", "image_cache_read")


def read_usage(found: Found, emitter: Emitter, rules: list[dict[str, str]]) -> Usage | None:
    """The record of one span, None when it says nothing about tokens. `rules`: the user's `usage_rules`, tried first."""
    fields = found.fields
    bad: list[str] = []

    def count(name: str) -> int | None:
        if name not in fields:
            return None
        value = found.pick(name, tokens)
        if value is None and any(_was_written(found, name)):
            bad.append(name)
        return value

    given, out, total = count("input_tokens"), count("output_tokens"), count("total_tokens")
    fresh = count("uncached_input")
    if given is None and out is None and fresh is None:
        if total is not None and not bad:
            return Usage(total=total)
        return Usage(bad=bad, known=False) if bad else None
    bad = [name for name in bad if name != "total_tokens"]  # only a cross-check
    read, write, hour = count("cache_read") or 0, count("cache_write") or 0, count("cache_write_1h") or 0
    five = max(count("cache_write_5m") or 0, write - hour)
    usage = Usage(0, read, five, hour, out or 0, bad=bad)
    for name in _SUBSETS:
        if name in fields:
            setattr(usage, name, count(name) or 0)
    cached = usage.cache_read + usage.write_5m + usage.write_1h
    exclusive = _ruling(found, emitter, rules) if cached else None
    _fill(usage, found, given or 0, fresh, total, exclusive)
    return usage


def _was_written(found: Found, name: str) -> list[bool]:
    """One entry per name that is really there: a JSON attribute without the key says nothing, good or bad."""
    return [
        True for path, (_, value) in zip(found.fields[name], found.values(name), strict=True) if not path[0] or value is not None
    ]


def _fill(usage: Usage, found: Found, given: int, fresh: int | None, total: int | None, exclusive: bool | None) -> None:
    cached = usage.cache_read + usage.write_5m + usage.write_1h
    first = found.names("input_tokens")[:1]
    if fresh is None and any([rule["attribute"]] == first for rule in data()["disjoint_usage"]):
        usage.output += usage.reasoning
        usage.uncached = given
        return
    if usage.reasoning > usage.output:
        usage.output += usage.reasoning
    if fresh is not None:
        usage.uncached = fresh
        return
    if exclusive is None and cached and total is not None:
        exclusive = total == given + usage.output + cached
    if exclusive or cached > given:
        usage.uncached = given
    else:
        usage.uncached = given - cached


def _ruling(found: Found, emitter: Emitter, own: list[dict[str, str]]) -> bool | None:
    for rule in own:
        if matches(rule["scope"], emitter.scope) and matches(rule["provider"], emitter.provider):
            return rule["input"] == "exclusive"
    rules = _exclusive(emitter)
    return True if any(lacks == "" or found.pick(lacks, tokens) is None for lacks in rules) else None


@lru_cache(1024)
def _exclusive(emitter: Emitter) -> tuple[str, ...]:
    """The built-in rules for this emitter, each as the field that must be absent (empty: none)."""
    return tuple(rule.get("lacks", "") for rule in data()["exclusive_input"] if _applies(rule, emitter))


def _applies(rule: dict[str, str], emitter: Emitter) -> bool:
    for key, pattern in rule.items():
        if key == "version":
            if not _older(emitter.version, pattern.removeprefix("<")):
                return False
        elif key != "lacks" and not matches(pattern, getattr(emitter, key)):
            return False
    return True


def _older(version: str, limit: str) -> bool:
    try:
        return [int(part) for part in version.split(".")[:2]] < [int(part) for part in limit.split(".")[:2]]
    except ValueError:
        return False


def time_to_first_token(found: Found, scope: str) -> float | None:
    """Seconds until the first chunk, whatever unit the emitter used."""
    entry = found.pick("ttft_seconds", seconds)
    if entry is None:
        millis = found.pick("ttft_millis", seconds)
        return None if millis is None else millis / 1000
    names = found.names("ttft_seconds")
    for rule in data()["millisecond_ttft"]:
        if names[0] == rule["attribute"] and matches(rule["scope"], scope):
            return entry / 1000
    return entry
