"""A processor with one setting of every type.

Example:
    {}
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from collector.component import Processor
from collector.fields import Config, Duration, Secret, without_type


class Inner(Config):
    """A nested block."""

    enabled: bool = True
    """A switch."""
    count: int = Field(3, ge=1)
    """A number."""


class Policy(Config):
    """An entry of a list."""

    name: str
    """Required."""
    sampling_percentage: float = 10.0
    """A percentage."""


class ShapeConfig(Config):
    """Settings."""

    text: str = "fallback"
    """A text."""
    number: int = 1
    """A whole number."""
    ratio: float = 0.5
    """A number."""
    switch: bool = False
    """A switch."""
    wait: Duration = 1.0
    """A duration."""
    mode: Literal["gentle", "strict"] = "gentle"
    """A choice."""
    key: Secret = Secret("")
    """A secret."""
    tags: list[str] = Field(default_factory=list)
    """Texts."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Texts by name."""
    either: int | str = 0
    """One of two types."""
    inner: Inner = Inner()
    """A block."""
    policies: list[Policy] = Field(default_factory=list)
    """A list of blocks."""

    @model_validator(mode="before")
    @classmethod
    def _refused(cls, value: Any) -> Any:
        return without_type(value, "turbo", "it is too fast")


class Shape(Processor):
    """Does nothing."""

    Config = ShapeConfig
