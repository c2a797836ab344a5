"""Settings of the policies: otelcol's types, keys and defaults. A type we know but do not have is refused by name."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field, model_validator

from collector.fields import Config, without_type

UNSUPPORTED = {
    "trace_state": "use string_attribute on an attribute instead",
    "trace_flags": "it keeps what the SDK has sampled already; use always_sample",
    "span_count": "the number of spans is known only when a trace has ended; use latency or status_code",
    "rate_limiting": "use probabilistic: sidecars that each limit their own rate tear traces apart",
    "bytes_limiting": "use probabilistic: sidecars that each limit their own rate tear traces apart",
    "ottl_condition": "use string_attribute, numeric_attribute or boolean_attribute",
    "not": "use invert_match of an attribute policy",
    "composite": "list its policies one by one",
}
"""otelcol's policy types that are refused, with what to write instead."""


class StatusCode(Config):
    """A span of the trace has one of these status codes."""

    status_codes: list[Literal["OK", "ERROR", "UNSET"]] = Field(min_length=1)
    """OK, ERROR, UNSET. ERROR also means what `errors` of the processor says."""


class Probabilistic(Config):
    """A share of all traces, decided by the trace id alone: every sidecar decides the same."""

    sampling_percentage: float = Field(allow_inf_nan=False)
    """Percent of traces, 0 to 100."""
    hash_salt: str = ""
    """Salt of the hash; the same on all sidecars. Empty: otelcol's default."""


class Latency(Config):
    """The trace lasts long: latest end minus earliest start."""

    threshold_ms: int = Field(ge=0)
    """Keep from this many milliseconds on."""
    upper_threshold_ms: int = Field(0, ge=0)
    """Keep only above threshold_ms and up to this, judged when decision_wait is over; 0 for no upper limit."""


class StringAttribute(Config):
    """A span or its resource has a string attribute with one of these values."""

    key: str = Field(min_length=1)
    """Attribute key."""
    values: list[str] = Field(min_length=1)
    """Exact values, or regular expressions (RE2, found anywhere in the value)."""
    enabled_regex_matching: bool = False
    """Read values as regular expressions."""
    cache_max_size: int = Field(0, ge=0)
    """Accepted without effect."""
    invert_match: bool = False
    """Keep traces where nothing matches; a match drops the trace. Judged when decision_wait is over."""

    @model_validator(mode="after")
    def _checked(self) -> StringAttribute:
        self.regexes()
        return self

    def regexes(self) -> list[Any]:
        """The values compiled, none without enabled_regex_matching. Raises ValueError for one that RE2 does not know."""
        if not self.enabled_regex_matching:
            return []
        import re2

        options = re2.Options()
        options.log_errors = False
        try:
            return [re2.compile(value, options) for value in self.values]  # type: ignore[no-untyped-call]
        except re2.error as error:
            raise ValueError(f"a value is not a regular expression of RE2: {error}") from None


class NumericAttribute(Config):
    """A span or its resource has a number in a range."""

    key: str = Field(min_length=1)
    """Attribute key."""
    min_value: int | float | None = None
    """Lowest value that matches."""
    max_value: int | float | None = None
    """Highest value that matches."""
    invert_match: bool = False
    """Keep traces where nothing matches; a match drops the trace. Judged when decision_wait is over."""

    @model_validator(mode="after")
    def _range(self) -> NumericAttribute:
        if self.min_value is None and self.max_value is None:
            raise ValueError("numeric_attribute needs min_value or max_value")
        if self.min_value != self.min_value or self.max_value != self.max_value:
            raise ValueError("min_value and max_value are numbers: .nan is none")
        return self


class BooleanAttribute(Config):
    """A span or its resource has a boolean attribute of this value."""

    key: str = Field(min_length=1)
    """Attribute key."""
    value: bool
    """true or false."""
    invert_match: bool = False
    """Keep traces where nothing matches; a match drops the trace. Judged when decision_wait is over."""


class Condition(Config):
    """`type` and, under the same name, its settings."""

    name: str = Field(min_length=1)
    """Shown in metrics; unique."""
    type: str
    """Which condition."""
    status_code: StatusCode | None = None
    """Settings of type status_code."""
    probabilistic: Probabilistic | None = None
    """Settings of type probabilistic."""
    latency: Latency | None = None
    """Settings of type latency."""
    string_attribute: StringAttribute | None = None
    """Settings of type string_attribute."""
    numeric_attribute: NumericAttribute | None = None
    """Settings of type numeric_attribute."""
    boolean_attribute: BooleanAttribute | None = None
    """Settings of type boolean_attribute."""

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind in UNSUPPORTED:
            raise ValueError(f"policy type {kind} is not supported: {UNSUPPORTED[kind]}")
        for key, reason in UNSUPPORTED.items():
            without_type(value, key, reason)
        return value

    @model_validator(mode="after")
    def _one_body(self) -> Condition:
        blocks = {info.alias or name: getattr(self, name) for name, info in type(self).model_fields.items()}
        given = [key for key, block in blocks.items() if isinstance(block, Config)]
        needed = [] if self.type == "always_sample" else [self.type]
        if given != needed:
            missing = [f"needs a block {key}" for key in needed if key not in given]
            extra = [f"has no use for block {key}" for key in given if key not in needed]
            raise ValueError(f"a policy of type {self.type} {' and '.join(missing + extra)}")
        return self

    def body(self) -> Config | None:
        """The settings of its type."""
        return cast("Config | None", getattr(self, "and_" if self.type == "and" else self.type, None))


class SubPolicy(Condition):
    """One condition of `and` or `drop`."""

    type: Literal[
        "always_sample", "status_code", "probabilistic", "latency", "string_attribute", "numeric_attribute", "boolean_attribute"
    ]
    """Which condition."""


class And(Config):
    """All of these hold for the trace, each for any of its spans."""

    and_sub_policy: list[SubPolicy] = Field(min_length=1)
    """The conditions."""


class Drop(Config):
    """The trace is dropped, whatever other policies say, when all of these hold for it."""

    drop_sub_policy: list[SubPolicy] = Field(min_length=1)
    """The conditions."""


class Policy(Condition):
    """A condition, or several joined by `and` or `drop`."""

    type: Literal[
        "always_sample",
        "status_code",
        "probabilistic",
        "latency",
        "string_attribute",
        "numeric_attribute",
        "boolean_attribute",
        "and",
        "drop",
    ]
    """Which condition."""
    and_: And | None = Field(None, alias="and")
    """Settings of type and."""
    drop: Drop | None = None
    """Settings of type drop."""
