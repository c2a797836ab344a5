"""What a checked configuration is: settings per component, pipelines with their references resolved."""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field

from collector.component import Component
from collector.config.telemetry import TelemetryConfig
from collector.fields import Config
from collector.model import Signal


@dataclass(frozen=True)
class Declared:
    """One component of the configuration. `id` as written, `kind` its section, `type` the file name behind the id."""

    id: str
    kind: str
    type: str
    cls: builtins.type[Component]
    config: Config


@dataclass(frozen=True)
class PipelineSpec:
    """One pipeline; ids are spelled as in the definitions they point at."""

    id: str
    signal: Signal
    receivers: tuple[str, ...]
    processors: tuple[str, ...]
    exporters: tuple[str, ...]


@dataclass(frozen=True)
class Resolved:
    """A configuration without errors. `digest` changes when any value changes; `extensions_on`: in starting order."""

    receivers: dict[str, Declared] = field(default_factory=dict)
    processors: dict[str, Declared] = field(default_factory=dict)
    exporters: dict[str, Declared] = field(default_factory=dict)
    extensions: dict[str, Declared] = field(default_factory=dict)
    pipelines: dict[str, PipelineSpec] = field(default_factory=dict)
    extensions_on: tuple[str, ...] = ()
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    digest: str = ""

    def of(self, kind: str) -> dict[str, Declared]:
        """The components of one section."""
        return {"receivers": self.receivers, "processors": self.processors, "exporters": self.exporters}.get(
            kind, self.extensions
        )
