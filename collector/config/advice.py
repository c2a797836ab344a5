"""Named checks: mistakes that are valid settings but surely or probably not meant. One function, one code each."""

from __future__ import annotations

from collections.abc import Mapping

from collector.config.nodes import Node
from collector.config.problems import Report
from collector.config.resolved import Declared, Resolved


def advise(resolved: Resolved, declared: Mapping[str, Mapping[str, Declared | None]], tree: Node, report: Report) -> None:
    """Run every check."""
