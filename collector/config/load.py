"""Sources to checked settings: read, merge, expand, check. Every problem of one load together, with its place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from collector.catalog import Catalog
from collector.config.advice import advise
from collector.config.expand import Expander
from collector.config.nodes import Node
from collector.config.problems import Mark, Problem, Report, Source
from collector.config.resolved import Declared, PipelineSpec, Resolved
from collector.config.sources import gather
from collector.config.structure import Structure
from collector.errors import ConfigError

__all__ = ["Declared", "Loaded", "PipelineSpec", "Problem", "Resolved", "config_error", "load"]


@dataclass(frozen=True)
class Loaded:
    """The outcome of a load. `resolved` is None when there are errors; `merged`: plain data, secrets in clear text."""

    resolved: Resolved | None
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    merged: dict[str, Any] = field(default_factory=dict, repr=False)


def load(
    sources: Sequence[str],
    sets: Sequence[str] = (),
    *,
    catalog: Catalog,
    environ: Mapping[str, str] | None = None,
    relax_unset_env: bool = False,
) -> Loaded:
    """The configuration of `--config` sources and `--set` flags. Never raises for what a user wrote: see `errors`."""
    report = Report()
    environ = os.environ if environ is None else environ
    tree = gather(sources, sets, environ, report)
    tree = Expander(environ, report, relax=relax_unset_env).tree(tree)
    resolved = None
    if isinstance(tree.value, dict) or not report.failed():
        resolved = _resolve(tree, catalog, report)
    merged = tree.plain() if isinstance(tree.value, dict) else {}
    return Loaded(None if report.failed() else resolved, report.of("C"), report.of("W"), report.of("N"), merged)


def _resolve(tree: Node, catalog: Catalog, report: Report) -> Resolved | None:
    structure = Structure(tree, catalog, report)
    structure.read()
    kinds = {kind: {i: d for i, d in found.items() if d is not None} for kind, found in structure.declared.items()}
    if structure.telemetry is None or not tree.value:
        return None
    text = json.dumps(tree.plain(), sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    resolved = Resolved(
        **kinds,
        pipelines=structure.pipelines,
        extensions_on=structure.extensions_on,
        telemetry=structure.telemetry,
        digest=digest,
    )
    advise(resolved, structure.declared, tree, report)
    return resolved


def config_error(loaded: Loaded) -> ConfigError:
    """All errors as one exception whose text is ready to print."""
    count = len(loaded.errors)
    lines = [problem.render() for problem in loaded.errors]
    return ConfigError("\n".join([*lines, f"{count} error{'s' if count != 1 else ''} in the configuration"]))


def failure(message: str) -> Loaded:
    """A load that failed before any source could be read (a component folder, for example)."""
    report = Report()
    report.add("C024", Mark(Source("command line", "", single=True), 0, 0), (), message)
    return Loaded(None, report.of("C"))
