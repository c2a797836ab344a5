"""A processor for traces only.

Example:
    {}
"""

from __future__ import annotations

from collector.component import Processor
from collector.model import Signal


class SpansOnly(Processor):
    """Does nothing."""

    signals = frozenset({Signal.TRACES})
