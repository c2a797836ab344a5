"""The conventions' names beside the emitter's: what a span says in any dialect also stands under `gen_ai.*`; nothing is replaced.

Which names a span lacks depends on its shape alone, so `plans.py` asks once per shape; only the token counts differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from collector.processors.llm_cost.call import Seen
from collector.processors.llm_cost.dialects import data, matches, text
from collector.processors.llm_cost.prices import Resolved
from collector.processors.llm_cost.stamp import constant, count
from collector.processors.llm_cost.usage import Usage, tokens

_INPUT, _OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
_AGENTS = ("create_agent", "invoke_agent")
_LONGEST = 256
_CACHE = ("cache_read", "cache_write", "cache_write_5m", "cache_write_1h")


class Missing(NamedTuple):
    """What a span gets beside what it says: encoded names, and its token counts as far as they are known and not there yet."""

    words: bytes = b""
    counts: Callable[[Usage], bytes] | None = None

    def encoded(self, usage: Usage | None) -> bytes:
        """All of it. Without usage, or for a span whose usage was counted elsewhere (None), there are no counts."""
        return self.words if usage is None or self.counts is None else self.words + self.counts(usage)


NOTHING = Missing()


def missing(seen: Seen, resolved: Resolved) -> Missing:
    """What the conventions would have said and the span does not."""
    if not seen.calls and seen.usage is None and seen.reported is None and seen.operation == "unknown":
        return NOTHING  # with the strong name of a model it would become a call for the next reader
    words = tuple([(name, value) for name, value in _words(seen, resolved) if 0 < len(value) <= _LONGEST])
    return Missing(constant(words) if words else b"", _COUNTS[_knows_input(seen), _knows_output(seen)])


def _words(seen: Seen, resolved: Resolved) -> Iterator[tuple[str, str]]:
    found, operation = seen.found, seen.operation
    if found.lacks("operation", "gen_ai.operation.name") and operation in data()["operation_names"]:
        yield "gen_ai.operation.name", operation
    if found.lacks("provider", "gen_ai.provider.name"):
        yield "gen_ai.provider.name", provider_name(seen.provider, resolved.provider)
    if found.lacks("request_model", "gen_ai.request.model"):
        yield "gen_ai.request.model", seen.request_model
    if found.lacks("response_model", "gen_ai.response.model"):
        yield "gen_ai.response.model", seen.response_model
    entity = found.pick("entity", text) or ""
    if found.lacks("agent_name", "gen_ai.agent.name"):
        yield "gen_ai.agent.name", found.pick("agent_name", text) or (entity if operation in _AGENTS else "")
    if found.lacks("tool", "gen_ai.tool.name"):
        yield "gen_ai.tool.name", found.pick("tool", text) or (entity if operation == "execute_tool" else "")


def provider_name(said: str, resolved: str) -> str:
    """The conventions' name of the provider that a span names; of the one that was found where it names none or a gateway."""
    for name in (said, resolved):
        lower = name.lower()
        if lower and lower != "unknown" and lower not in data()["not_a_provider"]:
            return _provider_name(name) if len(name) <= _LONGEST else ""
    return ""


@lru_cache(256)
def _provider_name(name: str) -> str:
    names: dict[str, str] = data()["provider_name"]
    lower = name.lower()
    return names.get(lower) or next((target for pattern, target in names.items() if matches(pattern, lower)), lower)


def _knows_input(seen: Seen) -> bool:
    """Whether the input with what was cached is known, and not under the conventions' name."""
    found, usage = seen.found, seen.usage
    if usage is None or not found.lacks("input_tokens", _INPUT) or any(name in _CACHE for name in usage.bad):
        return False
    return found.pick("input_tokens", tokens) is not None or found.pick("uncached_input", tokens) is not None


def _knows_output(seen: Seen) -> bool:
    """The same of the output with what was reasoning."""
    found, usage = seen.found, seen.usage
    if usage is None or not found.lacks("output_tokens", _OUTPUT) or "reasoning" in usage.bad:
        return False
    return found.pick("output_tokens", tokens) is not None


_COUNTS: dict[tuple[bool, bool], Callable[[Usage], bytes] | None] = {
    (False, False): None,
    (True, False): lambda usage: count(_INPUT, usage.prompt),
    (False, True): lambda usage: count(_OUTPUT, usage.output),
    (True, True): lambda usage: count(_INPUT, usage.prompt) + count(_OUTPUT, usage.output),
}
