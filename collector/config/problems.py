"""Every problem a configuration can have: its code, its position, its text. docs/config-errors.md is generated from CODES.

C = error (exit code 78), W = warning (`validate --strict` fails), N = note. A code keeps its meaning for ever.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

CODES: dict[str, tuple[str, str]] = {
    "C001": ("Not readable as YAML", "The text breaks the rules of YAML at the marked place. Tabs never indent: use spaces."),
    "C002": ("Duplicate key", "The same key stands twice in one mapping. Remove one; otherwise one of them would not count."),
    "C003": ("Unknown key", "The component has no such setting. Unknown keys are never ignored."),
    "C004": ("Wrong value", "The value has the wrong type or is outside its limits. `no` is not false."),
    "C005": ("Missing setting", "A setting without default is not given."),
    "C006": ("Source not usable", "A `--config` source cannot be read, is larger than 1 MiB, or there are more than 100."),
    "C007": ("Remote configuration", "http and https are not supported: whoever controls the address would run pipelines here. "
             "Mount a file or use `env:NAME`."),
    "C008": ("Variable is not set", "`${env:X}` names a variable that does not exist. Set it, or write `${env:X:-default}`."),
    "C009": ("Malformed variable", "A name must match `^[a-zA-Z_][a-zA-Z0-9_]*$`; providers are env, file and yaml. "
             "A literal dollar is written `$$`."),
    "C010": ("Unknown component type", "No receiver, processor, exporter or extension has this name. "
             "`otel-sidecar components` lists them; see also the hint."),
    "C011": ("Reference to nothing", "A pipeline or `service::extensions` names a component that is not defined."),
    "C012": ("Referenced twice", "A pipeline lists the same component two times."),
    "C013": ("Malformed id", "An id is `type` or `type/name`; the type starts with a letter and has no spaces."),
    "C014": ("Incomplete configuration", "At least one receiver, one exporter and one pipeline that joins them are needed."),
    "C015": ("Unknown pipeline signal", "A pipeline is `traces`, `metrics` or `logs`, optionally with `/name`."),
    "C016": ("Signal not supported", "The component cannot work in a pipeline of this signal."),
    "C017": ("Connectors", "There are no connectors yet. Remove the section."),
    "C018": ("Leading zero", "`017` is 17 for some readers and 15 (octal) for others. Write 17 or 0o17; quote text."),
    "C019": ("Too large or too deep", "More than 50,000 values, 64 levels, or an alias that contains itself."),
    "C020": ("Endpoint without port", "Nothing tells which port is meant. Write `host:port`."),
    "C021": ("Two listeners on one port", "Two parts of the configuration want to listen on the same port."),
    "C022": ("Duration without unit", "A duration is a number with a unit: `5s`, `300ms`, `1h30m`."),
    "C023": ("Missing space after colon", "`endpoint:0.0.0.0` is one word for YAML. Write a space after the colon."),
    "C024": ("Component file not usable", "A file of `--components` cannot be loaded."),
    "W101": ("Unused component", "It is defined, but no pipeline (or `service::extensions`) names it, so it does nothing."),
    "W102": ("Pipeline without redaction", "Personal data and secrets leave unchanged. Add the `redaction` processor."),
    "W103": ("memory_limiter is not first", "Data is worked on before the limiter can refuse it."),
    "W104": ("Percentage below 1", "`sampling_percentage` is in percent: 0.1 keeps one of 1000. Write 10 for 10 %."),
    "W105": ("Jaeger port for Thrift", "Jaeger 2 takes OTLP on 4317 (gRPC) and 4318 (HTTP); 6831, 14250, 14268 are older."),
    "W106": ("Secret in clear text", "Whoever reads the file can use it. Write `${env:NAME}` and set the variable."),
    "W107": ("A null erases", "`processors:` without value removes what earlier files defined. Write `{}` to add nothing."),
    "W108": ("Loki without /otlp", "Loki takes OTLP under `/otlp`: `http://loki:3100/otlp`."),
    "W109": ("0.0.0.0 as destination", "0.0.0.0 is an address to listen on. Name the host to send to, for example localhost."),
    "N201": ("Older name", "The component was renamed; both names work."),
    "N202": ("Variable is empty", "The variable is set but empty, which reads as null (empty text for a text setting)."),
    "N203": ("Dollar without braces", "`$NAME` is not replaced. Write `${env:NAME}`, or `$$` for a literal dollar."),
    "N204": ("Variable is not set", "Read as null because unset variables were allowed."),
}  # fmt: skip

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


@dataclass(frozen=True)
class Source:
    """One text of configuration. `name` is what messages show; `single`: one short line, shown without a position."""

    name: str
    text: str = field(repr=False)
    single: bool = False

    def lines(self) -> list[str]:
        """The lines as YAML counts them; control characters shown as `?`, so that nothing reaches the terminal."""
        return ["".join(c if c.isprintable() or c == "\t" else "?" for c in line) for line in _BREAK.split(self.text)]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a source; line and column count from 1."""

    source: Source
    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """One thing to tell the user. `message` keeps otelcol's core phrase where it has one; `hint` says what to do."""

    code: str
    file: str
    line: int
    column: int
    path: tuple[str | int, ...]
    message: str
    hint: str = ""
    source_line: str = field(default="", repr=False)
    single: bool = False
    order: int = 0

    def text(self) -> str:
        """One line: `file:line:column: message - hint [code]`."""
        where = self.file if self.single or not self.line else f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.message}{f' - {self.hint}' if self.hint else ''} [{self.code}]"

    def render(self, color: bool = False) -> str:
        """The line, then the source line with a caret under the place."""
        tint = {"C": "31", "W": "33", "N": "36"}[self.code[0]]
        head = f"\x1b[{tint}m{self.text()}\x1b[0m" if color else self.text()
        if self.single or not self.line:
            return head
        lead = "".join("\t" if c == "\t" else " " for c in self.source_line[: self.column - 1])
        return f"{head}\n{self.line:>6} | {self.source_line}\n       | {lead}^"

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "code": self.code,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": "::".join(map(str, self.path)),
            "message": self.message,
            "hint": self.hint,
            "url": f"docs/config-errors.md#{self.code.lower()}",
        }


class Report:
    """Collects the problems of one load."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._sources: dict[Source, int] = {}

    def register(self, source: Source) -> None:
        """Fix the place of a source in the order of problems."""
        self._sources.setdefault(source, len(self._sources))

    def add(self, code: str, mark: Mark | None, path: Sequence[str | int], message: str, hint: str = "") -> None:
        """Note a problem once; `mark` None where there is no text to point at."""
        assert code in CODES, code
        source = mark.source if mark else Source("configuration", "", single=True)
        lines = source.lines()
        line = lines[mark.line - 1] if mark and 0 < mark.line <= len(lines) else ""
        position = (mark.line, mark.column) if mark else (0, 0)
        order = self._sources.setdefault(source, len(self._sources)) if mark else -1
        line = line if len(line) <= 160 or position[1] > 150 else line[:160] + "..."
        message = "".join(c if c.isprintable() else "?" for c in message)
        problem = Problem(code, source.name, *position, tuple(path), message, hint, line[:400], source.single, order)
        if problem not in self._found:
            self._found.append(problem)

    def of(self, severity: str) -> tuple[Problem, ...]:
        """Problems whose code starts with `severity` (C, W or N), sorted by position."""
        chosen = [p for p in self._found if p.code.startswith(severity)]
        return tuple(sorted(chosen, key=lambda p: (p.order, p.line, p.column, p.code)))

    def failed(self) -> bool:
        """Whether there is any error."""
        return any(p.code.startswith("C") for p in self._found)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?` for the nearest known word, else nothing."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1, 0.6)
    if not near:
        lower = {k.lower(): k for k in known}
        near = difflib.get_close_matches(word.lower(), list(lower), 1, 0.6)
        near = [lower[n] for n in near]
    return f'did you mean "{near[0]}"?' if near else ""


def code_table() -> str:
    """The text of docs/config-errors.md."""
    parts = [
        "# Configuration errors\n",
        "Generated from `collector/config/problems.py`. Every message of `otel-sidecar validate` ends with one of these codes.",
        "C = error, the configuration is not used (exit code 78). W = warning (`validate --strict` fails). N = note.\n",
    ]
    parts += [f"## {code}\n\n**{title}.** {text}\n" for code, (title, text) in CODES.items()]
    return "\n".join(parts)
