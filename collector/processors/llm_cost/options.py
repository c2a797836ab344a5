"""Settings of `llm_cost`. Options of the plan that do not exist yet are refused by name, never ignored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from collector.fields import Config, Duration, without_type

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LABELS = ("service", "provider", "model", "operation")
_TAKEN = ("status", "type", "source", "reason", "kind", "le")


def _date(value: object) -> object:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no date: write 2026-01-31") from error
    return value


def _threshold_keys(value: object) -> object:
    items = value.items() if isinstance(value, dict) else ()
    return {int(k) if isinstance(k, str) and k.isdigit() else k: v for k, v in items} or value


Day = Annotated[date, BeforeValidator(_date)]


class Match(Config):
    """Which calls a price is for. At least one of the three."""

    model: str = "*"
    """Model name as the provider or the client wrote it; shell glob, without regard to case."""
    provider: str = ""
    """Provider id, for example azure; empty for any."""
    server: str = ""
    """Host of the model server (span attribute server.address); empty for any."""

    def rank(self) -> tuple[bool, bool, int]:
        """More exact matches first: no glob, with provider or server, longer literal prefix."""
        literal = len(self.model.split("*")[0].split("?")[0].split("[")[0])
        return literal != len(self.model), not (self.provider or self.server), -literal


class Rates(Config):
    """Prices in USD per million tokens. What is left out costs what its parent costs (cached as input, reasoning as output)."""

    input: Price | None = None
    """Input tokens."""
    output: Price | None = None
    """Output tokens."""
    cache_read: Price | None = None
    """Input tokens read from the cache."""
    cache_write: Price | None = None
    """Input tokens written to the cache (for 5 minutes)."""
    cache_write_1h: Price | None = None
    """Input tokens written to the cache for an hour."""
    input_audio: Price | None = None
    """Audio input tokens."""
    output_audio: Price | None = None
    """Audio output tokens."""
    input_image: Price | None = None
    """Image input tokens."""
    output_image: Price | None = None
    """Image output tokens."""
    reasoning: Price | None = None
    """Reasoning tokens."""
    per_request: Price | None = None
    """USD for each call, whatever its size."""


class UserPrice(Rates):
    """A price of your own: negotiated, self-hosted, or of a model that the catalogue lacks. 0 is free and counts as priced."""

    match: Match = Match()
    """Which calls it is for."""
    from_: Day | None = Field(None, alias="from")
    """First day (UTC) it is valid."""
    until: Day | None = None
    """First day (UTC) it is no longer valid."""
    discount_percent: float | None = Field(None, ge=0, le=100)
    """Instead of prices: the catalogue's price less that share."""
    tiers_above: Annotated[dict[int, Rates], BeforeValidator(_threshold_keys)] = Field({})
    """Other prices for calls with more input tokens than the key, valid for all tokens of the call."""

    @model_validator(mode="after")
    def _complete(self) -> UserPrice:
        own = any(getattr(self, name) is not None for name in Rates.model_fields)
        if own == (self.discount_percent is not None):
            raise ValueError("a price has either prices (input, output, ...) or discount_percent")
        if self.discount_percent is not None and self.tiers_above:
            raise ValueError("tiers_above does not go with discount_percent")
        if self.from_ and self.until and self.from_ >= self.until:
            raise ValueError("from must be before until")
        if self.match == Match():
            raise ValueError("match needs model, provider or server")
        return self

    def collides(self, other: UserPrice) -> bool:
        """Whether a call could fall under both with nothing to say which one counts."""
        a, b = self.match, other.match
        if a.rank() != b.rank() or (a.provider and b.provider and a.provider != b.provider):
            return False
        if a.server and b.server and a.server != b.server:
            return False
        if a.model.lower() != b.model.lower() and (not a.rank()[0] or _prefix(a.model) != _prefix(b.model)):
            return False
        return (self.from_ or date.min) < (other.until or date.max) and (other.from_ or date.min) < (self.until or date.max)


def label_name(attribute: str) -> str:
    """The metric label for a span attribute: user.tier -> user_tier."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in attribute)


def _prefix(pattern: str) -> str:
    return pattern.split("*")[0].split("?")[0].split("[")[0].lower()


def no_collision(prices: Sequence[UserPrice]) -> None:
    """Raises ValueError naming two prices between which nothing decides."""
    for a, b in combinations(prices, 2):
        if a.collides(b):
            raise ValueError(f'prices for model "{a.match.model}" and "{b.match.model}" overlap: make one match more exact')


class PriceFile(Config):
    """Content of `prices_file`."""

    prices: list[UserPrice] = Field([])
    """As `prices` of the processor."""
    aliases: dict[str, str] = Field({})
    """As `aliases` of the processor."""


class UsageRule(Config):
    """How to read the token counts of one emitter."""

    scope: str
    """Instrumentation scope name, a glob."""
    provider: str = "*"
    """Provider as the span says it, a glob."""
    input: Literal["inclusive", "exclusive"]
    """Whether its input_tokens contain the cached tokens."""


class Dedup(Config):
    """How calls that appear on several spans are recognised."""

    ttl: Duration = 600.0
    """How long a counted call is remembered, at least."""
    max_entries: int = Field(100_000, ge=100)
    """How many calls and spans are remembered at most."""

    @model_validator(mode="before")
    @classmethod
    def _later(cls, value: Any) -> Any:
        return without_type(value, "rollup_wait", "not there yet; a parent that arrives first is counted as its own call")


class Limits(Config):
    """Bounds of the metrics."""

    label_values: int = Field(99, ge=2, le=100_000)
    """Distinct values of one label in one family; later ones share __overflow__."""

    @model_validator(mode="before")
    @classmethod
    def _later(cls, value: Any) -> Any:
        return without_type(value, "series", "not there yet; label_values bounds each label")


class Options(Config):
    """Settings of the processor `llm_cost`."""

    prefer_reported: bool = True
    """Take a cost above 0 that the span already carries instead of computing one."""
    prices: list[UserPrice] = Field([])
    """Prices of your own, before the catalogue's."""
    aliases: dict[str, str] = Field({})
    """Model name or glob -> `provider/model` whose price it has, for example a deployment name."""
    prices_file: str = ""
    """YAML file with `prices` and `aliases`, added to those written here."""
    preload: bool = True
    """Load the price catalogue in the background after the start; false: with the first LLM span."""
    tiers: dict[str, Price] = Field({})
    """Service tier (batch, flex, priority) -> factor, where the catalogue has no price for that tier."""
    usage_rules: list[UsageRule] = Field([])
    """Emitters whose input_tokens contain the cached tokens or do not, before the built-in rules."""
    dialects: dict[str, list[str]] = Field({})
    """Further attribute names per field, for example `input_tokens: [my.tokens.in]`; tried first."""
    attributes: list[Literal["default", "otel", "openinference", "details", "normalized"]] = Field(["default", "normalized"])
    """Which attributes are added: the cost as default, otel, openinference or details name it; normalized adds the gen_ai.* names
    of provider, models, operation, tokens, agent and tool that a span lacks. A list of your own has only what it names."""
    dedup: Dedup = Dedup()
    """How calls that appear on several spans are recognised."""
    labels: list[str] = Field(list(LABELS))
    """Labels of the metrics: service, provider, model and operation, then any span attributes of few values."""
    limits: Limits = Limits()
    """Bounds of the metrics."""
    compat: list[Literal["arc", "octollm"]] = Field([])
    """Also raise the metrics under older names: arc (arc_llm_*), octollm (llm_api_*)."""
    high_cost_usd: float = Field(1.0, gt=0)
    """A dearer call is logged as a warning and counted."""

    @model_validator(mode="before")
    @classmethod
    def _later(cls, value: Any) -> Any:
        reasons = {
            "currency": "amounts are USD; multiply by the rate in the query that shows them",
            "auto_update": "prices are those of the installed genai-prices; take a newer version, or write prices",
            "reload_interval": "prices_file is read at start and on each reload of the configuration; send SIGHUP",
            "budgets": "write a Prometheus alert on sum(increase(llm_cost_usd_total[1d])) > 100",
            "legacy_names": "counters end in _total; write a recording rule, such as record: arc_llm_cost_dollars",
            "token_type_names": "the type label is prompt or completion; rename it with metric_relabel_configs",
            "estimate_missing_usage": "calls without usage count as unpriced (no_usage); let streams send it (include_usage)",
            "price_log_events": "spans are priced, their log events repeat the same usage",
        }
        for keys, reason in reasons.items():
            without_type(value, keys, f"not there yet; {reason}")
        return value

    @field_validator("labels")
    @classmethod
    def _defaults_first(cls, value: list[str]) -> list[str]:
        if tuple(value[:4]) != LABELS or len(set(value)) != len(value):
            raise ValueError("labels starts with service, provider, model, operation; further ones follow, each once")
        names = [label_name(label) for label in value]
        for label, name in zip(value, names, strict=True):
            if name in _TAKEN or not name[:1].isalpha() or names.count(name) > 1:
                raise ValueError(f'"{label}" cannot be a label: taken, or no name that Prometheus accepts')
        return value

    @field_validator("prices")
    @classmethod
    def _decidable(cls, value: list[UserPrice]) -> list[UserPrice]:
        no_collision(value)
        return value

    @field_validator("aliases")
    @classmethod
    def _targets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, target in value.items():
            if not all(target.partition("/")[::2]):
                raise ValueError(f'the alias "{name}" needs a target of the form provider/model, not "{target}"')
        return value
