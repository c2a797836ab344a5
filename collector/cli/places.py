"""Where the configuration is when the command line names none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

import collector

DEFAULT_FILES = ("/etc/otel-sidecar/config.yaml", "/etc/otelcol/config.yaml")
_HINTS = {
    "run": ("give --config FILE", "To look around without one"),
    "validate": ("write otel-sidecar validate FILE", "To check the built-in one for development"),
    "print-config": ("write otel-sidecar print-config FILE", "To see the built-in one for development"),
}


def sources(given: Sequence[str], dev: bool, command: str = "run") -> tuple[str, ...]:
    """The `--config` sources in force. Raises click.UsageError (exit code 2), fit for `command`, when there is none."""
    first = (str(development()),) if dev else ()
    if given or dev:
        return (*first, *given)
    if named := os.environ.get("OTEL_SIDECAR_CONFIG"):
        return (named,)
    for path in DEFAULT_FILES:
        if Path(path).is_file():
            return (path,)
    give, look = _HINTS[command]
    raise click.UsageError(
        f"no configuration: {give}, set OTEL_SIDECAR_CONFIG or put one at {DEFAULT_FILES[0]}.\n"
        f"{look}: otel-sidecar {command} --dev"
    )


def development() -> Path:
    """The development configuration: beside the package in a checkout, inside it when installed."""
    package = Path(collector.__file__).parent
    inside = package / "config" / "shipped" / "dev.yaml"
    return inside if inside.is_file() else package.parent / "config" / "dev.yaml"


def note_gates(gates: Sequence[str]) -> None:
    """Say that otelcol's feature gates do nothing here, one line each."""
    for gate in (gate for group in gates for gate in group.split(",") if gate.strip()):
        click.echo(f"note: feature gate {gate.strip()} has no effect in otel-sidecar", err=True)
