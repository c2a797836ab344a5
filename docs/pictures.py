"""Draws the rooms of the code as Mermaid, from the imports that really are there."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "collector"
SMALL = {"compiled", "errors", "model", "meters", "fields", "component", "catalog", "cli", "__main__"}


def room(module: str) -> str:
    """The room of `collector.a.b`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports() -> set[tuple[str, str]]:
    """(from, to) for every pair of rooms of which one imports the other, anywhere in its code."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        own = room(".".join(("collector", *path.relative_to(PACKAGE).with_suffix("").parts)))
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith("collector.") and room(name) not in ("", own) and own != "__init__":
                    found.add((own, room(name)))
    return found


def reduced(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The same reachability with the fewest arrows: an arrow is left out when a longer way leads there too."""
    below: dict[str, set[str]] = {}
    for start, end in edges:
        below.setdefault(start, set()).add(end)

    def reach(start: str, seen: set[str]) -> set[str]:
        for following in below.get(start, ()):
            if following not in seen:
                seen.add(following)
                reach(following, seen)
        return seen

    return {(a, b) for a, b in edges if not any(b in reach(c, set()) for c in below[a] if c != b)}


def rooms_picture() -> str:
    """A Mermaid flowchart of the rooms."""
    lines = ["flowchart TD"]
    names = sorted({name for edge in imports() for name in edge})
    lines += [f"  {name}[{name if name in SMALL else name + '/'}]" for name in names]
    lines += [f"  {start} --> {end}" for start, end in sorted(reduced(imports()))]
    return "\n".join(lines)
