"""A receiver with the settings that configuration tests need.

Example:
    {}
"""

from __future__ import annotations

from pydantic import Field

from collector.component import Receiver
from collector.fields import Config, Headers, Listen


class Door(Config):
    """One protocol."""

    endpoint: Listen = "localhost:4317"
    """Where to listen."""
    max_size_mib: int = 4
    """Largest message."""


class Protocols(Config):
    """Which doors are open."""

    grpc: Door | None = None
    """First."""
    http: Door | None = None
    """Second."""


class IntakeConfig(Config):
    """Settings."""

    protocols: Protocols = Protocols()
    """Which doors are open."""
    headers: Headers = Field(default_factory=dict)
    """Sent back."""


class Intake(Receiver):
    """Takes nothing."""

    Config = IntakeConfig
