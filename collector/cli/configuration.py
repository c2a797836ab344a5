"""`validate`, `print-config` and `components`: they load no client library and open no port."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from inspect import getdoc
from pathlib import Path
from typing import Any

import click

from collector.catalog import ALIASES, KINDS, Catalog
from collector.cli import EX_CONFIG, Command, places, sourced
from collector.config.load import Loaded, Problem, Resolved, failure, load
from collector.errors import ConfigError


def _load(command: str, given: Sequence[str], sets: Sequence[str], dev: bool, relax: bool, folders: Sequence[str]) -> Loaded:
    chosen = places.sources(given, dev, command)
    try:
        catalog = Catalog([Path(folder) for folder in folders])
    except ConfigError as error:
        return failure(str(error))
    return load(chosen, sets, catalog=catalog, relax_unset_env=relax)


def _color() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@click.command(cls=Command)
@click.argument("files", nargs=-1)
@sourced
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def validate(
    ctx: click.Context,
    files: tuple[str, ...],
    sources: tuple[str, ...],
    sets: tuple[str, ...],
    feature_gates: tuple[str, ...],
    dev: bool,
    relax_unset_env: bool,
    folders: tuple[str, ...],
    strict: bool,
    as_json: bool,
) -> None:
    """Check FILES (`-` = standard input, also --config): every problem of all sources at once. Opens no port."""
    places.note_gates(feature_gates)
    loaded = _load("validate", (*sources, *files), sets, dev, relax_unset_env, folders)
    failed = bool(loaded.errors) or (strict and bool(loaded.warnings))
    if as_json:
        lists = {name: [p.to_json() for p in getattr(loaded, name)] for name in ("errors", "warnings", "notes")}
        click.echo(json.dumps({"schema": "otel-sidecar/validate/v1", "ok": not failed, **lists}, indent=2, ensure_ascii=False))
    else:
        _show(loaded)
    ctx.exit(EX_CONFIG if failed else 0)


def _show(loaded: Loaded) -> None:
    color = _color()
    for word, problems in (("", loaded.errors), ("warning: ", loaded.warnings), ("note: ", loaded.notes)):
        for problem in problems:
            click.echo(word + problem.render(color=color))
    if loaded.resolved is None:
        click.echo(f"failed: {_count(len(loaded.errors), 'error')}, {_count(len(loaded.warnings), 'warning')}")
        return
    click.echo(f"ok: {summary(loaded.resolved)}, {_count(len(loaded.warnings), 'warning')}")


def summary(resolved: Resolved) -> str:
    """`3 pipelines, 9 components`."""
    components = sum(len(resolved.of(kind)) for kind in KINDS)
    return f"{_count(len(resolved.pipelines), 'pipeline')}, {_count(components, 'component')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@click.command(cls=Command, name="print-config")
@click.argument("files", nargs=-1)
@sourced
@click.option("--mode", type=click.Choice(["redacted", "unredacted"]), default="redacted", show_default=True)
@click.option("--format", "form", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.option("--validate/--no-validate", "check", default=True, show_default=True, help="Fail on errors.")
@click.pass_context
def print_config(
    ctx: click.Context,
    files: tuple[str, ...],
    sources: tuple[str, ...],
    sets: tuple[str, ...],
    feature_gates: tuple[str, ...],
    dev: bool,
    relax_unset_env: bool,
    folders: tuple[str, ...],
    mode: str,
    form: str,
    check: bool,
) -> None:
    """Print the configuration as it results from FILES (also --config), variables and --set; secrets and headers as ****."""
    from collector.config import printing

    places.note_gates(feature_gates)
    loaded = _load("print-config", (*sources, *files), sets, dev, relax_unset_env, folders)
    if loaded.errors and (check or not loaded.merged or mode == "redacted"):
        # Without checked settings nobody knows which values are secrets, so nothing is shown as redacted.
        _errors(loaded.errors)
        ctx.exit(EX_CONFIG)
    click.echo(printing.text(loaded.merged if mode == "unredacted" else printing.redacted(loaded), form))


def _errors(problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(problem.render(), err=True)


@click.command(cls=Command)
@click.option("--components", "folders", multiple=True, metavar="DIR", help="Folder with own components; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def components(ctx: click.Context, folders: tuple[str, ...], as_json: bool) -> None:
    """List all components with their signals and aliases."""
    try:
        catalog = Catalog([Path(folder) for folder in folders])
        found = {kind: [_described(catalog, kind, name) for name in catalog.types(kind)] for kind in KINDS}
    except ConfigError as error:
        click.echo(str(error), err=True)
        ctx.exit(EX_CONFIG)
    if as_json:
        click.echo(json.dumps({"schema": "otel-sidecar/components/v1", **found}, indent=2, ensure_ascii=False))
        return
    for kind, entries in found.items():
        click.echo(f"{kind}:")
        for entry in entries:
            aliases = f" (also {', '.join(entry['aliases'])})" if entry["aliases"] else ""
            click.echo(f"  {entry['type']:<22} {'/'.join(entry['signals']):<20} {entry['summary']}{aliases}")


def _described(catalog: Catalog, kind: str, name: str) -> dict[str, Any]:
    cls = catalog.load(kind, name)
    path = catalog.path(kind, name)
    text = getdoc(catalog.module(kind, name)) or ""
    return {
        "type": name,
        "summary": text.partition("\n")[0],
        "signals": sorted(cls.signals) if kind != "extensions" else [],
        "aliases": [alias for alias, target in ALIASES[kind].items() if target == name],
        "file": str(path) if path else None,
    }
