"""Configurations as text against a small catalogue of the tests' own components (and the built-in ones)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent

import pytest

from collector.catalog import Catalog
from collector.config.load import Loaded, Problem, load

COMPONENTS = Path(__file__).parent / "components"
Load = Callable[..., Loaded]

BASE = """
receivers: {intake: {}}
processors: {redaction: {}, shape: {}}
exporters: {outlet: {endpoint: "localhost:4317"}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [intake], processors: [redaction, shape], exporters: [outlet]}}
"""


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Loads texts as files a.yaml, b.yaml ...; `env` are the variables."""

    def loader(*texts: str, sets: Sequence[str] = (), env: dict[str, str] | None = None, relax: bool = False) -> Loaded:
        paths = []
        for name, text in zip("abcdefgh", texts, strict=False):
            path = tmp_path / f"{name}.yaml"
            path.write_text(dedent(text).lstrip("\n"))
            paths.append(str(path))
        return load(paths, sets, catalog=Catalog([COMPONENTS]), environ=env or {}, relax_unset_env=relax)

    return loader


def lines(problems: Sequence[Problem]) -> list[str]:
    """`line:column code message` of each."""
    return [f"{p.line}:{p.column} {p.code} {p.message}" for p in problems]


def codes(problems: Sequence[Problem]) -> list[str]:
    """The codes alone."""
    return [p.code for p in problems]


def shape(loaded: Loaded):
    """The settings of the processor `shape`."""
    assert loaded.resolved is not None, [p.text() for p in loaded.errors]
    return loaded.resolved.processors["shape"].config
