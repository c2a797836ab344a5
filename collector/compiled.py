"""Modules of this package that are written in C: each has a twin in Python, for where it is not built or not wanted."""

from __future__ import annotations

import importlib
import os
from typing import Any

WALKER_VARIABLE = "OTEL_SIDECAR_WALKER"
"""Set to `python`, this environment variable turns all of them off."""


def compiled_module(name: str) -> Any:
    """A module by its name within this package, such as `otlp._plain`; None where it is not built or not wanted."""
    if os.environ.get(WALKER_VARIABLE) == "python":
        return None
    try:
        return importlib.import_module(f"collector.{name}")
    except ImportError:
        return None
