"""An extension that listens.

Example:
    {}
"""

from __future__ import annotations

from collector.component import Extension
from collector.fields import Config, Listen


class LampConfig(Config):
    """Settings."""

    endpoint: Listen = "localhost:13133"
    """Where to listen."""


class Lamp(Extension):
    """Shines."""

    Config = LampConfig
