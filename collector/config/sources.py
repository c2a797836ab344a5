"""Where configuration comes from (files, variables, command line), and how several sources become one tree."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from collector.config.nodes import MAX_DEPTH, Node, parse
from collector.config.problems import Mark, Report, Source

MAX_BYTES, MAX_SOURCES = 1 << 20, 100
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
SECTIONS = ("receivers", "processors", "exporters", "connectors", "extensions")


def read(uri: str, environ: Mapping[str, str], report: Report) -> Source | None:
    """The text behind one `--config`: a path, `file:`, `env:`, `yaml:`, or `-` for standard input."""
    found = _SCHEME.match(uri)
    scheme = found[1].lower() if found else "file"
    rest = uri[len(found[0]) :] if found else uri
    if scheme in ("http", "https"):
        _refuse(report, uri, "C007", "remote configuration is not supported", "mount a file or use env:NAME")
        return None
    if scheme == "yaml":
        return Source("yaml:" + rest[:60], rest, single="\n" not in rest)
    if scheme == "env":
        if rest not in environ:
            _refuse(report, uri, "C008", f"environment variable {rest!r} is not set")
            return None
        return _capped(Source(uri, environ[rest]), report)
    if scheme != "file":
        if Path(uri).exists():
            return _file(uri, report)
        _refuse(report, uri, "C006", f'scheme "{scheme}" is not supported', "use file:, env:, yaml: or a path")
        return None
    return _file(rest, report)


def _file(path: str, report: Report) -> Source | None:
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        _refuse(report, path, "C006", f"cannot be read: {error.strerror}")
        return None
    except UnicodeDecodeError as error:
        mark = Mark(Source(path, data[: error.start].decode("utf-8", "replace")), data[: error.start].count(b"\n") + 1, 1)
        report.add("C006", mark, (), f"not UTF-8 text at byte {error.start}")
        return None
    return _capped(Source("<stdin>" if path == "-" else path, text), report)


def _capped(source: Source, report: Report) -> Source | None:
    if len(source.text.encode()) > MAX_BYTES:
        _refuse(report, source.name, "C006", "larger than 1 MiB")
        return None
    return source


def _refuse(report: Report, name: str, code: str, message: str, hint: str = "") -> None:
    report.add(code, Mark(Source(name, "", single=True), 0, 0), (), message, hint)


def set_flag(flag: str, report: Report) -> Source | None:
    """The source of one `--set a.b.c=value`."""
    key, equals, value = flag.partition("=")
    if not equals or not key.strip():
        _refuse(report, f"--set {flag}", "C006", "missing equal sign for set flag", "write --set processors.batch.timeout=2s")
        return None
    return Source(f"--set {key}", f"{key.strip().replace('.', '::')}: {value}", single=True)


def gather(uris: Sequence[str], sets: Sequence[str], environ: Mapping[str, str], report: Report) -> Node:
    """All sources, parsed and merged from left to right; `--set` wins over all."""
    if len(uris) > MAX_SOURCES:
        _refuse(report, "--config", "C006", f"{len(uris)} sources, at most {MAX_SOURCES}")
        uris = uris[:MAX_SOURCES]
    sources = [*(read(uri, environ, report) for uri in uris), *(set_flag(flag, report) for flag in sets)]
    tree: Node | None = None
    for source in sources:
        if source is not None:
            report.register(source)
        node = parse(source, report) if source else None
        if node is None:
            continue
        if node.value is not None and not isinstance(node.value, dict):
            hint = "write a space after the colon" if isinstance(node.value, str) and ":" in node.value else ""
            report.add("C001", node.mark, (), "a configuration is a mapping of receivers, exporters, service ...", hint)
            continue
        node = unfold(node)
        if tree is not None and isinstance(node.value, dict):
            _warn_erased(tree, node, report)
        tree = node if tree is None or (node.value is None and tree.value is None) else merge(tree, node, top=True)
    return tree or Node(Mark(Source("configuration", "", single=True), 0, 0), None)


def unfold(node: Node) -> Node:
    """`a::b: v` as `a: {b: v}` (otelcol's key delimiter, at the top level only)."""
    if not isinstance(node.value, dict) or not any("::" in key for key in node.value):
        return node
    out = Node(node.mark, {}, size=node.size)
    for key, child in node.value.items():
        mark = node.keys[key]
        steps = [step for step in key.split("::") if step] or [key]
        steps = steps if len(steps) <= MAX_DEPTH else [key]
        for step in reversed(steps[1:]):
            child = Node(mark, {step: child}, {step: mark})
        out = merge(out, Node(mark, {steps[0]: child}, {steps[0]: mark}))
    return out


def merge(first: Node, second: Node, *, top: bool = False) -> Node:
    """Mappings merge deeply; lists and scalars of the second replace; a null erases (except an empty source).

    What is replaced stands where the second wrote it; a mapping that both write stands where the first named it.
    """
    if top and second.value is None:
        return first
    if not isinstance(first.value, dict) or not isinstance(second.value, dict):
        return second
    out = Node(first.mark if first.value else second.mark, dict(first.value), {**first.keys, **second.keys})
    for key, child in second.value.items():
        before = first.value.get(key)
        out.value[key] = child if before is None else merge(before, child)
        if before is not None and isinstance(before.value, dict) and isinstance(child.value, dict):
            out.keys[key] = first.keys[key]
    return out


def _warn_erased(first: Node, second: Node, report: Report) -> None:
    for section in SECTIONS:
        before, after = first.child(section), second.child(section)
        if before is not None and before.value and after is not None and after.value is None:
            message = f"'{section}' is null and erases {len(before.value)} earlier definitions"
            report.add("W107", second.keys[section], (section,), message, f"write {section}: {{}}")
