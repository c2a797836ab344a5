"""Writes every generated file, or with --check says which ones are stale."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import pictures  # noqa: E402
import reference  # noqa: E402
import requirements  # noqa: E402

from bench.report import markdown  # noqa: E402
from collector.config.problems import code_table  # noqa: E402


def between(path: Path, name: str, text: str) -> str:
    """The file with `text` between its markers `<!-- name -->` and `<!-- /name -->`."""
    before, _, rest = path.read_text().partition(f"<!-- {name} -->\n")
    _, _, after = rest.partition(f"<!-- /{name} -->")
    return f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{after}"


def files() -> Iterator[tuple[Path, str]]:
    """Every generated file with what it should hold."""
    yield (
        ROOT / "collector/README.md",
        between(ROOT / "collector/README.md", "rooms", f"```mermaid\n{pictures.rooms_picture()}\n```"),
    )
    yield ROOT / "config/REFERENCE.md", reference.markdown()
    yield ROOT / "config/schema.json", reference.schema()
    yield ROOT / "docs/config-errors.md", code_table()
    measured = json.loads((ROOT / "docs/benchmark/results.json").read_text())
    yield ROOT / "docs/performance.md", between(ROOT / "docs/performance.md", "results", markdown(measured))
    yield ROOT / "docs/requirements.md", requirements.current()


def main() -> int:
    """Write, or compare."""
    stale = [(path, text) for path, text in files() if not path.exists() or path.read_text() != text]
    for path, text in stale:
        if "--check" in sys.argv:
            print(f"stale: {path.relative_to(ROOT)}; run `make docs`")
        else:
            path.write_text(text)
            print(f"written: {path.relative_to(ROOT)}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
