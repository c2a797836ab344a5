"""From whatever an emitter wrote to one record: what was billed, in parts that do not overlap.

`uncached, cache_read, write_5m, write_1h, output` are disjoint and their sum is billed; reasoning, audio and image counts are
subsets of them and never added (OTel GenAI conventions: input_tokens includes cached, output_tokens includes reasoning).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from collector.processors.llm_cost.dialects import Found, data, matches

LIMIT = 10**12
"""Tokens, or USD, of one call: more is none, and would make every sum meaningless it is added to."""
_LONGEST = 1e9
"""Milliseconds, 11 days: a call that says it took longer says nothing."""


def tokens(value: object) -> int | None:
    """A token count; None for what is none: booleans, NaN, infinities, negatives, beyond 10^12, empty or other text (R-405)."""
    if type(value) is int:
        return value if 0 <= value <= LIMIT else None
    number = _finite(value)
    return None if number is None or number < 0 or number > LIMIT else round(number)


def money(value: object) -> float | None:
    """A cost above zero, in the emitter's currency; None for placeholders such as 0 or NaN, and for what no call costs."""
    number = _finite(value)
    return number if number is not None and 0 < number <= LIMIT else None


def seconds(value: object) -> float | None:
    """A duration of at least zero, in the unit it was written; None for what no call takes."""
    number = _finite(value)
    return number if number is not None and 0 <= number < _LONGEST else None


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


class Usage(NamedTuple):
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
    bad: Sequence[str] = ()
    known: bool = True

    @property
    def prompt(self) -> int:
        """All input tokens, cached ones included: what tiers and `llm_tokens` look at."""
        return self.uncached + self.cache_read + self.write_5m + self.write_1h

    @property
    def split(self) -> bool:
        """Whether input and output are known apart, so that they can be priced."""
        return self.known and self.total is None and not (set(self.bad) & {"input_tokens", "output_tokens"})


def plain_usage(given: int, output: int) -> Usage:
    """`Usage(given, 0, 0, 0, output)` at a third of the time: what nearly every call says."""
    return _made((given, 0, 0, 0, output, 0, 0, 0, 0, 0, 0, 0, None, (), True))


_made: Callable[[tuple[object, ...]], Usage] = partial(tuple.__new__, Usage)


class Emitter(NamedTuple):
    """Who wrote the span: what the exclusive-input rules look at."""

    scope: str = ""
    version: str = ""
    span_name: str = ""
    provider: str = ""
    model: str = ""


_MAIN = ("input_tokens", "output_tokens", "total_tokens", "uncached_input")
_SUBSETS = ("reasoning", "audio_in", "audio_out", "image_in", "image_out", "audio_cache_read", "image_cache_read")
COUNTS = (*_MAIN, "cache_read", "cache_write", "cache_write_1h", "cache_write_5m", *_SUBSETS)
"""The fields that hold token counts."""


Exclusive = Callable[[int, int], bool | None]
"""Asked with the input count and the cached tokens, if there are any: whether the former leaves the latter out, None: who knows.

It does not, whatever the emitter's rule, where another input count of the span is smaller by the cached tokens: then the first
one is what an earlier collector wrote beside it.
"""


def read_usage(found: Found, emitter: Emitter, rules: list[dict[str, str]]) -> Usage | None:
    """The record of one span, None when it says nothing about tokens. `rules`: the user's `usage_rules`, tried first."""
    counts: dict[str, int] = {}
    bad: list[str] = []
    for name in COUNTS:
        if name in found.fields:
            value = found.pick(name, tokens)
            if value is not None:
                counts[name] = value
            elif any(_was_written(found, name)):
                bad.append(name)

    def exclusive(given: int, cached: int) -> bool | None:
        rule = ruling(found, emitter, rules)
        return rule and not any(tokens(value) == given - cached for _, value in found.values("input_tokens"))

    return compose(counts, bad, disjoint(found), exclusive)


def compose(counts: Mapping[str, int], bad: list[str], apart: bool, exclusive: Exclusive) -> Usage | None:
    """The record of these counts. `apart`: every count is a bucket of its own."""
    given, out, total, fresh = [counts.get(name) for name in _MAIN]
    if given is None and out is None and fresh is None:
        bad = [name for name in bad if name in _MAIN]
        if total is not None and not bad:
            return Usage(total=total)
        return Usage(bad=bad, known=False) if bad else None
    read, write, hour = [counts.get(name, 0) for name in ("cache_read", "cache_write", "cache_write_1h")]
    five = max(counts.get("cache_write_5m", 0), write - hour)
    subsets: dict[str, Any] = {name: counts[name] for name in _SUBSETS if name in counts}
    wrong = [name for name in bad if name != "total_tokens"]  # only a cross-check
    usage = Usage(0, read, five, hour, out or 0, bad=wrong, **subsets)
    cached = usage.cache_read + usage.write_5m + usage.write_1h
    return _filled(usage, apart, given or 0, fresh, total, exclusive(given or 0, cached) if cached else None)


def disjoint(found: Found) -> bool:
    """Whether the emitter counts cached and reasoning tokens apart from the others."""
    first = {*found.names("input_tokens")[:1], *found.names("output_tokens")[:1]}
    return any({rule["attribute"]} == first for rule in data()["disjoint_usage"])


def _was_written(found: Found, name: str) -> list[bool]:
    """One entry per name that is really there: a JSON attribute without the key says nothing, good or bad."""
    return [
        True for path, (_, value) in zip(found.fields[name], found.values(name), strict=True) if not path[0] or value is not None
    ]


def _filled(usage: Usage, apart: bool, given: int, fresh: int | None, total: int | None, exclusive: bool | None) -> Usage:
    cached, output = usage.cache_read + usage.write_5m + usage.write_1h, usage.output
    if fresh is None and apart:
        return usage._replace(uncached=given, output=output + usage.reasoning)
    if usage.reasoning > output:
        output += usage.reasoning
    if fresh is not None:
        return usage._replace(uncached=fresh, output=output)
    if exclusive is None and cached and total is not None:
        exclusive = total == given + output + cached
    return usage._replace(uncached=given if exclusive or cached > given else given - cached, output=output)


def ruling(found: Found, emitter: Emitter, own: list[dict[str, str]]) -> bool | None:
    """Whether the input count leaves the cached tokens out; None when no rule knows this emitter."""
    for rule in own:
        if matches(rule["scope"], emitter.scope) and matches(rule["provider"], emitter.provider):
            return rule["input"] == "exclusive"
    rules = _exclusive(emitter)
    return True if any(lacks == "" or found.pick(lacks, tokens) is None for lacks in rules) else None


@lru_cache(1024)
def _exclusive(emitter: Emitter) -> tuple[str, ...]:
    """The built-in rules for this emitter, each as the field that must be absent (empty: none)."""
    return tuple(rule.get("lacks", "") for rule in data()["exclusive_input"] if _applies(rule, emitter))


@lru_cache(256)
def named(scope: str) -> bool:
    """Whether a built-in rule for this scope looks at the span's name."""
    return any("span_name" in rule and matches(rule["scope"], scope) for rule in data()["exclusive_input"])


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
