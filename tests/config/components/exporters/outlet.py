"""An exporter with an endpoint.

Example:
    endpoint: localhost:4317
"""

from __future__ import annotations

from pydantic import Field

from collector.component import Exporter
from collector.fields import Config, Headers


class OutletConfig(Config):
    """Settings."""

    endpoint: str
    """Where to send."""
    headers: Headers = Field(default_factory=dict)
    """Sent along."""


class Outlet(Exporter):
    """Sends nothing."""

    Config = OutletConfig
