"""`${env:X:-default}` in values: after parsing and merging, on single scalars, so a value can never change what stands around it.

A variable that makes the whole value is read as YAML, with its raw text kept beside it for text settings (otelcol:
confmap/expand.go). Inside longer text the raw text is inserted. `$$` is one dollar.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collector.config.nodes import Node, parse
from collector.config.problems import Mark, Report, Source, did_you_mean

MAX_EXPANSIONS, MAX_NESTED = 1000, 50
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_BARE = re.compile(r"(?:^|[^\\])\$([A-Z_][A-Z0-9_]{2,})\b")
_Path = tuple[str | int, ...]


class _Default(str):
    """Text of a default: `${env:X:-}` is empty text, while a variable that is set but empty is null."""

    __slots__ = ()


class Expander:
    """Replaces variables in one tree. Variables come from `environ`; `relax`: unset reads as null, as in otelcol."""

    def __init__(self, environ: Mapping[str, str], report: Report, *, relax: bool = False) -> None:
        self.environ, self.report, self.relax = environ, report, relax
        self.used = 0

    def tree(self, node: Node, path: _Path = (), nested: int = 0) -> Node:
        """The same tree with all variables replaced."""
        if isinstance(node.value, dict):
            pairs = {key: self.tree(child, (*path, key), nested) for key, child in node.value.items()}
            return Node(node.mark, pairs, node.keys, node.raw, node.variable)
        if isinstance(node.value, list):
            items = [self.tree(child, (*path, index), nested) for index, child in enumerate(node.value)]
            return Node(node.mark, items, {}, node.raw, node.variable)
        if not isinstance(node.value, str) or "$" not in node.value:
            return node
        before = len(self.report.of("C"))
        found = self.scalar(node, path, nested)
        found.failed = len(self.report.of("C")) > before
        return found

    def scalar(self, node: Node, path: _Path, nested: int) -> Node:
        """One text with at least one dollar."""
        parts = list(pieces(node.value))
        if len(parts) == 1 and parts[0][1]:
            return self.whole(parts[0][0], node.mark, path, nested)
        if nested == 0 and (bare := _BARE.search(node.value.replace("$$", ""))):
            self.report.add("N203", node.mark, path, f"${bare[1]} is not replaced", f"write ${{env:{bare[1]}}}")
        text = "".join(self.text(body, node.mark, path, nested) if variable else body for body, variable in parts)
        return Node(node.mark, text, variable=node.variable or any(variable for _, variable in parts))

    def whole(self, body: str, mark: Mark, path: _Path, nested: int) -> Node:
        """A variable that makes the whole value: its YAML reading with the raw text beside it."""
        raw = self.lookup(body, mark, path, nested)
        if raw is None:
            return Node(mark, None, raw="", variable=True)
        if not raw.strip():
            return Node(mark, raw if isinstance(raw, _Default) else None, raw=raw, variable=True)
        quiet = Report()
        found = parse(Source("variable", str(raw)), quiet, octal=True)
        if found is None or quiet.failed():
            found = Node(mark, raw)
        tree = self.tree(_moved(found, mark), path, nested + 1)
        expanded = raw if "$" not in raw else self.inner(raw, mark, path, nested + 1)
        return Node(mark, tree.value, tree.keys, expanded, True)

    def inner(self, raw: str, mark: Mark, path: _Path, nested: int) -> str:
        """The raw text of a value with the variables inside it replaced."""
        return "".join(self.text(body, mark, path, nested) if variable else body for body, variable in pieces(raw))

    def text(self, body: str, mark: Mark, path: _Path, nested: int) -> str:
        """The raw text of one variable inside longer text."""
        raw = self.lookup(body, mark, path, nested)
        return "" if raw is None else self.inner(raw, mark, path, nested + 1)

    def lookup(self, body: str, mark: Mark, path: _Path, nested: int) -> str | None:
        """Raw text of `env:X:-d`, `X`, `file:/p` or `yaml:v`; None after an error."""
        self.used += 1
        if self.used > MAX_EXPANSIONS or nested > MAX_NESTED:
            self.report.add("C009", mark, path, "too many recursive expansions")
            return None
        head, has_default, default = _split_default(body)
        head = self.inner(head, mark, path, nested + 1) if "$" in head else head
        found = _SCHEME.match(head)
        scheme, name = (found[1], head[len(found[0]) :]) if found else ("env", head)
        if scheme == "env":
            return self.variable(name, default if has_default else None, mark, path, nested)
        if scheme == "yaml":
            return name
        if scheme == "file":
            return self.file(name, mark, path)
        if scheme in ("http", "https"):
            self.report.add("C007", mark, path, "remote configuration is not supported", "mount a file or use ${env:NAME}")
        else:
            hint = did_you_mean(scheme, ("env", "file", "yaml")) or "providers are env, file and yaml"
            self.report.add("C009", mark, path, f'scheme "{scheme}" is not supported for uri "{head}"', hint)
        return None

    def variable(self, name: str, default: str | None, mark: Mark, path: _Path, nested: int) -> str | None:
        """Raw text of an environment variable or its default."""
        if not _NAME.fullmatch(name):
            message = f'environment variable "{name}" has invalid name: must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$'
            self.report.add("C009", mark, path, message)
            return None
        value = self.environ.get(name)
        if value is None and default is not None:
            return _Default(self.inner(default, mark, path, nested + 1))
        if value is None:
            code, hint = ("N204", "") if self.relax else ("C008", f"set it, or write ${{env:{name}:-default}}")
            self.report.add(code, mark, path, f'environment variable "{name}" is not set', hint)
        elif not value:
            self.report.add("N202", mark, path, f'environment variable "{name}" is empty')
        return value

    def file(self, name: str, mark: Mark, path: _Path) -> str | None:
        """Text of a file without its last line break."""
        try:
            with Path(name).open("rb") as stream:
                data = stream.read((1 << 20) + 1)
            if len(data) <= 1 << 20:
                return data.decode().removesuffix("\n").removesuffix("\r")
            reason = "larger than 1 MiB"
        except OSError as error:
            reason = error.strerror or "cannot be read"
        except UnicodeDecodeError:
            reason = "not UTF-8 text"
        self.report.add("C006", mark, path, f"file {name}: {reason}")
        return None


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Literal text (False) and bodies of `${...}` (True) in order; `$$` is a literal dollar, an unclosed `${` is literal."""
    literal, position = "", 0
    while position < len(text):
        char = text[position : position + 2]
        if char == "$$":
            literal, position = literal + "$", position + 2
        elif char == "${" and (end := _closing(text, position + 2)) >= 0:
            if literal:
                yield literal, False
            yield text[position + 2 : end], True
            literal, position = "", end + 1
        else:
            next_dollar = text.find("$", position + 1)
            end = next_dollar if next_dollar >= 0 else len(text)
            literal, position = literal + text[position:end], end
    if literal:
        yield literal, False


def _closing(text: str, position: int) -> int:
    depth = 1
    while position < len(text):
        if text.startswith("${", position):
            depth, position = depth + 1, position + 2
            continue
        if text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return -1


def _split_default(body: str) -> tuple[str, bool, str]:
    depth = 0
    for position in range(len(body)):
        if body.startswith("${", position):
            depth += 1
        elif body[position] == "}":
            depth -= 1
        elif depth == 0 and body.startswith(":-", position):
            return body[:position], True, body[position + 2 :]
    return body, False, ""


def _moved(node: Node, mark: Mark) -> Node:
    """The same tree with every mark at the variable's place."""
    value: Any = node.value
    if isinstance(value, dict):
        moved = {key: _moved(child, mark) for key, child in value.items()}
        return Node(mark, moved, dict.fromkeys(moved, mark), variable=True)
    if isinstance(value, list):
        return Node(mark, [_moved(child, mark) for child in value], variable=True)
    return Node(mark, value, variable=True)
