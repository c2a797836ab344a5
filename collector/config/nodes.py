"""YAML to a tree whose every value knows where it was written. YAML 1.2 core types only, as otelcol reads them.

libyaml scans; the tree is built from its events, because libyaml's own composer recurses and crashes on deep nesting.
`yes` and `12:30` are text, `1e3` is a number, `017` is an error; keys are text; duplicate keys are errors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from collector.config.problems import Mark, Report, Source

MAX_VALUES, MAX_DEPTH = 50_000, 64
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
_SPECIAL: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_SPECIAL |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SPECIAL |= {sign + word: number * (-1 if sign == "-" else 1) for sign in ("", "+", "-")
             for word, number in ((".inf", math.inf), (".Inf", math.inf), (".INF", math.inf))}  # fmt: skip
_SPECIAL |= {".nan": math.nan, ".NaN": math.nan, ".NAN": math.nan}
_NO_SPACE = re.compile(r"([ -]*)([A-Za-z_]\w*):(\S.*)")
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Node:
    """One value. Mappings hold Nodes by key and the keys' marks; `raw` is the text of a variable that made the whole value.

    `size` counts the values inside, aliases counted each time; `variable`: a variable took part, so it is no clear text;
    `failed`: a variable in it could not be replaced, which is told already.
    """

    mark: Mark
    value: Any
    keys: dict[str, Mark] = field(default_factory=dict)
    raw: str | None = None
    variable: bool = False
    size: int = 1
    failed: bool = False

    def plain(self) -> Any:
        """As Python data."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        return [child.plain() for child in self.value] if isinstance(self.value, list) else self.value

    def child(self, step: str | int) -> Node | None:
        """The value under a key or at an index."""
        if isinstance(self.value, dict):
            found = self.value.get(step)
            return found if isinstance(found, Node) else None
        if isinstance(self.value, list) and isinstance(step, int) and 0 <= step < len(self.value):
            item: Node = self.value[step]
            return item
        return None

    def walk(self, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Node]]:
        """This node and all below it, with their paths."""
        yield path, self
        pairs = (
            self.value.items() if isinstance(self.value, dict) else enumerate(self.value) if isinstance(self.value, list) else ()
        )
        for step, child in pairs:
            yield from child.walk((*path, step))


class _Broken(Exception):
    def __init__(self, code: str, mark: Mark, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.mark, self.hint = code, mark, hint


def parse(source: Source, report: Report, *, octal: bool = False) -> Node | None:
    """The tree of one source; None after an error that leaves nothing to look at. `octal`: 017 is 15, as in otelcol."""
    try:
        return _Composer(source, report, octal).document()
    except _Broken as error:
        report.add(error.code, error.mark, (), str(error), error.hint)
    except yaml.MarkedYAMLError as error:
        report.add(*_explain(source, error))
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        before = source.text[:position] if isinstance(position, int) else ""
        mark = Mark(source, before.count("\n") + 1, position - before.rfind("\n"))
        report.add("C001", mark, (), f"not valid YAML: {getattr(error, 'reason', error)}")
    return None


def _explain(source: Source, error: yaml.MarkedYAMLError) -> tuple[str, Mark, tuple[()], str, str]:
    at = error.problem_mark or error.context_mark
    mark = Mark(source, at.line + 1, at.column + 1) if at else Mark(source, 1, 1)
    lines = source.lines()
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        return "C001", Mark(source, mark.line, indent.index("\t") + 1), (), "a tab indents this line", "use spaces"
    problem = error.problem or "not readable"
    hint = ""
    if "mapping values" in problem:
        hint = "quote text that contains ': '"
        before = lines[mark.line - 2] if 1 < mark.line <= len(lines) else ""
        if joined := _NO_SPACE.fullmatch(before):
            place = Mark(source, mark.line - 1, len(joined[1]) + 1)
            return "C023", place, (), f"no space after {joined[2]}:", f"write {joined[2]}: {joined[3][:60]}"
    return "C001", mark, (), f"not valid YAML: {problem}", hint


def core_value(text: str, *, octal: bool = False) -> Any:
    """What an unquoted scalar means under YAML 1.2's core schema; `octal` as for `parse`."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if text[0] not in "+-.0123456789":
        return text
    if octal and _LEADING_ZERO.fullmatch(text):
        return int(text, 8) if not set(text) & {"8", "9"} else text
    if _INT.fullmatch(text) and len(text) < 64:
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Composer:
    """Builds Nodes from libyaml's events."""

    def __init__(self, source: Source, report: Report, octal: bool) -> None:
        self.source, self.report, self.octal = source, report, octal
        self.parser = _Parser(source.text)
        self.anchors: dict[str, Node | None] = {}

    def document(self) -> Node:
        first = Mark(self.source, 1, 1)
        self.parser.get_event()  # stream start
        if self.parser.check_event(yaml.StreamEndEvent):
            return Node(first, None)
        self.parser.get_event()  # document start
        node = self.node(0)
        self.parser.get_event()  # document end
        if not self.parser.check_event(yaml.StreamEndEvent):
            raise _Broken("C001", self.at(self.parser.peek_event()), "a second document starts here", "use one file each")
        return node

    def at(self, event: yaml.Event) -> Mark:
        assert event.start_mark is not None
        return Mark(self.source, event.start_mark.line + 1, event.start_mark.column + 1)

    def node(self, depth: int) -> Node:
        event = self.parser.get_event()
        mark = self.at(event)
        if isinstance(event, yaml.AliasEvent):
            found = self.anchors.get(event.anchor or "")
            if found is None:
                what = "contains itself" if event.anchor in self.anchors else "is not defined"
                raise _Broken("C019" if event.anchor in self.anchors else "C001", mark, f"alias *{event.anchor} {what}")
            return found
        if depth > MAX_DEPTH:
            raise _Broken("C019", mark, f"more than {MAX_DEPTH} levels")
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Node(mark, self.scalar(event, mark))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(mark, depth)
        else:
            node = self.mapping(mark, depth)
        if node.size > MAX_VALUES:
            raise _Broken("C019", mark, f"more than {MAX_VALUES} values (an alias bomb?)")
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def scalar(self, event: yaml.ScalarEvent, mark: Mark) -> Any:
        if event.tag in ("tag:yaml.org,2002:str", "!") or (event.tag is None and not event.implicit[0]):
            return event.value
        if event.tag not in (None, *(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))):
            raise _Broken("C001", mark, f"unknown YAML tag {event.tag}")
        text = event.value
        if not self.octal and _LEADING_ZERO.fullmatch(text):
            sign, digits = text[0].strip("0123456789"), text.lstrip("+-0") or "0"
            octal = "" if set(text) & {"8", "9"} else f", 0o{digits} for octal"
            hint = f"write {sign}{digits}{octal}, or quote it for text"
            self.report.add("C018", mark, (), f"leading zero in {text[:40]}", hint)
            return int(sign + digits) if len(digits) < 64 else 0
        return core_value(text, octal=self.octal)

    def sequence(self, mark: Mark, depth: int) -> Node:
        items: list[Node] = []
        size = 1
        while not self.parser.check_event(yaml.SequenceEndEvent):
            items.append(self.node(depth + 1))
            size += items[-1].size
            if size > MAX_VALUES:
                break
        else:
            self.parser.get_event()
        return Node(mark, items, size=size)

    def mapping(self, mark: Mark, depth: int) -> Node:
        out = Node(mark, {})
        merged: list[Node] = []
        while not self.parser.check_event(yaml.MappingEndEvent):
            event = self.parser.peek_event()
            at = self.at(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise _Broken("C001", at, "a key must be plain text")
            self.parser.get_event()
            if event.anchor:
                self.anchors[event.anchor] = Node(at, event.value)
            child = self.node(depth + 1)
            out.size += child.size
            if event.value == "<<" and event.implicit[0]:
                merged += child.value if isinstance(child.value, list) else [child]
                continue
            self.entry(out, event.value, at, child)
            if out.size > MAX_VALUES:
                return out
        self.parser.get_event()
        for node in merged:
            if not isinstance(node.value, dict):
                raise _Broken("C001", mark, "<< needs a mapping or a list of mappings")
            for key, child in node.value.items():
                if key not in out.value:
                    out.value[key], out.keys[key] = child, node.keys[key]
        return out

    def entry(self, out: Node, key: str, at: Mark, child: Node) -> None:
        """Put one key in place; first one wins when it stands twice, which is reported."""
        if key in out.value:
            self.report.add("C002", at, (key,), f"duplicate key {key!r}, first on line {out.keys[key].line}")
            return
        out.value[key], out.keys[key] = child, at
