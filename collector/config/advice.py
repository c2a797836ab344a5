"""Named checks: mistakes that are valid settings but surely or probably not meant. One function, one code each.

Longer than other files because every check is its own small function, and they read best side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr

from collector.config.nodes import Node
from collector.config.problems import Mark, Report
from collector.config.resolved import Declared, Resolved
from collector.config.settings import value_at

LISTENING_EXPORTERS = frozenset({"prometheus"})
_THRIFT = frozenset({6831, 6832, 14250, 14268})
_ANY = frozenset({"", "0.0.0.0", "::"})  # noqa: S104
_SENSITIVE = re.compile(r"(?i)authorization|api[-_]?key|token|secret|password|cookie|credential")
_ENDPOINT = re.compile(r"(?:[a-z][a-z0-9+.-]*:///?)?(?:[^@/]*@)?(\[[^\]]*\]|[^/:\[\]]*)(?::([0-9]+))?(/.*)?", re.I)
_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Endpoint:
    """An address in the settings of a component, written or default."""

    declared: Declared
    path: _Path
    text: str
    listens: bool
    mark: Mark
    written: bool

    @property
    def host(self) -> str:
        """Host or address, without brackets."""
        found = _ENDPOINT.fullmatch(self.text)
        return found[1].strip("[]") if found else ""

    @property
    def port(self) -> int | None:
        """The port, None when there is none."""
        found = _ENDPOINT.fullmatch(self.text)
        return int(found[2]) if found and found[2] else None


@dataclass(frozen=True)
class Scene:
    """What the checks look at."""

    resolved: Resolved
    declared: Mapping[str, Mapping[str, Declared | None]]
    tree: Node
    report: Report

    def key_mark(self, path: _Path) -> Mark:
        """Where the last key of `path` is written, or the nearest place above it."""
        node, mark = self.tree, self.tree.mark
        for step in path:
            child = node.child(step)
            if child is None:
                break
            mark = node.keys.get(str(step), child.mark)
            node = child
        return mark

    def node(self, path: _Path) -> Node | None:
        """What is written at `path`."""
        node: Node | None = self.tree
        for step in path:
            node = node.child(step) if node else None
        return node

    def value_mark(self, path: _Path) -> Mark:
        """Where the value at `path` is written, or the nearest key above it."""
        node = self.node(path)
        return node.mark if node else self.key_mark(path)

    def used(self) -> set[tuple[str, str]]:
        """(kind, id) of every component that a pipeline or service::extensions names."""
        found = {("extensions", name) for name in self.resolved.extensions_on}
        for spec in self.resolved.pipelines.values():
            for kind in ("receivers", "processors", "exporters"):
                found |= {(kind, name) for name in getattr(spec, kind)}
        return found

    def endpoints(self) -> list[Endpoint]:
        """Addresses of all components in use."""
        used = self.used()
        found = []
        for kind in ("receivers", "exporters", "extensions"):
            for declared in self.resolved.of(kind).values():
                if (kind, declared.id) not in used:
                    continue
                listens = kind != "exporters" or declared.type in LISTENING_EXPORTERS
                for inner, text in _endpoints(declared.config):
                    path = (kind, declared.id, *inner)
                    found.append(Endpoint(declared, path, text, listens, self.value_mark(path), self.node(path) is not None))
        return found


def _endpoints(config: Any, path: _Path = ()) -> Iterator[tuple[_Path, str]]:
    if isinstance(config, BaseModel):
        if getattr(config, "transport", "") == "unix" or getattr(config, "enabled", True) is False:
            return
        for name, field in type(config).model_fields.items():
            value = getattr(config, name)
            if (name == "endpoint" or name.endswith("_endpoint")) and isinstance(value, str):
                if value and not value.startswith(("unix:", "/")):
                    yield (*path, field.alias or name), value
            else:
                yield from _endpoints(value, (*path, field.alias or name))
    elif isinstance(config, list | tuple):
        for index, item in enumerate(config):
            yield from _endpoints(item, (*path, index))
    elif isinstance(config, dict):
        for key, item in config.items():
            yield from _endpoints(item, (*path, key))


def without_port(scene: Scene) -> None:
    """C020: a listener or a gRPC destination that names no port."""
    for end in scene.endpoints():
        web = end.text.lower().startswith(("http://", "https://"))
        if end.port is None and not (web and not end.listens):
            port = {"otlp_grpc": 4317, "prometheus": 8889}.get(end.declared.type, 4318 if "http" in end.path else 4317)
            scene.report.add("C020", end.mark, end.path, f"'{_name(end)}' has no port", f"write {end.text or 'localhost'}:{port}")


def same_port(scene: Scene) -> None:
    """C021: two listeners on one port (typical: the prometheus exporter on 8888, where our own metrics are)."""
    taken: list[tuple[str, int, str, Endpoint | None]] = []
    own = scene.resolved.telemetry.self_metrics()
    if own is not None:
        taken.append((own.host, own.port, "service::telemetry::metrics (own metrics)", None))
    for end in scene.endpoints():
        if not end.listens or not end.port:
            continue
        clash = next((t for t in taken if t[1] == end.port and _overlap(t[0], end.host) and not _alternative(t[3], end)), None)
        if clash is not None:
            message = f"'{_name(end)}' listens on port {end.port}, which {clash[2]} already uses"
            scene.report.add("C021", end.mark, end.path, message, "choose another port")
        taken.append((end.host, end.port, f"'{_name(end)}'", end))


def _alternative(first: Endpoint | None, second: Endpoint) -> bool:
    """Two defaults of one component are two forms of one setting, not two listeners."""
    return first is not None and first.declared is second.declared and not (first.written and second.written)


def _overlap(first: str, second: str) -> bool:
    one, other = ("127.0.0.1" if host == "localhost" else host for host in (first, second))
    return one == other or one in _ANY or other in _ANY


def any_address_target(scene: Scene) -> None:
    """W109: 0.0.0.0 as a place to send to."""
    for end in scene.endpoints():
        if not end.listens and end.host in _ANY - {""}:
            hint = f"write localhost:{end.port}" if end.port else "name the host"
            scene.report.add("W109", end.mark, end.path, f"'{_name(end)}' sends to {end.host}, an address to listen on", hint)


def thrift_port(scene: Scene) -> None:
    """W105: an OTLP exporter pointed at a Jaeger port for older protocols."""
    for end in scene.endpoints():
        if not end.listens and end.port in _THRIFT and end.declared.type.startswith("otlp"):
            hint = "Jaeger 2 takes OTLP on 4317/4318"
            scene.report.add("W105", end.mark, end.path, f"'{_name(end)}' sends OTLP to port {end.port}", hint)


def loki_path(scene: Scene) -> None:
    """W108: an OTLP exporter pointed at Loki without its OTLP path."""
    for end in scene.endpoints():
        if end.declared.type != "otlp_http" or end.path[-1] != "endpoint" or (end.port != 3100 and "loki" not in end.host):
            continue
        if not end.text.rstrip("/").endswith("/otlp"):
            scene.report.add("W108", end.mark, end.path, f"'{_name(end)}' points at Loki", f"write {end.text.rstrip('/')}/otlp")


def low_percentage(scene: Scene) -> None:
    """W104: a sampling percentage that looks like a share."""
    for path, node in scene.tree.walk():
        value = node.value
        if path and path[-1] == "sampling_percentage" and isinstance(value, int | float) and 0 < value < 1:
            message = f"'{'::'.join(map(str, path))}' keeps {value:g} %"
            scene.report.add("W104", node.mark, path, message, f"did you mean {value * 100:g}?")


def unused(scene: Scene) -> None:
    """W101: a component that no pipeline names."""
    used = scene.used()
    for kind, components in scene.declared.items():
        for name, declared in components.items():
            if declared is not None and (kind, name) not in used:
                where = "service::extensions" if kind == "extensions" else "a pipeline"
                scene.report.add(
                    "W101", scene.key_mark((kind, name)), (kind, name), f'{kind[:-1]} "{name}" is not used', f"name it in {where}"
                )


def without_redaction(scene: Scene) -> None:
    """W102: a pipeline whose data leaves as it came."""
    for spec in scene.resolved.pipelines.values():
        broken = [n for n in scene.declared["processors"].values() if n is None]
        types = {scene.resolved.processors[name].type for name in spec.processors if name in scene.resolved.processors}
        if spec.exporters and "redaction" not in types and not broken:
            path = ("service", "pipelines", spec.id)
            message = f"service::pipelines::{spec.id}: personal data and secrets are not removed"
            scene.report.add("W102", scene.key_mark(path), path, message, "add the redaction processor")


def limiter_first(scene: Scene) -> None:
    """W103: memory_limiter behind another processor."""
    for spec in scene.resolved.pipelines.values():
        for place, name in enumerate(spec.processors):
            declared = scene.resolved.processors.get(name)
            if place and declared is not None and declared.type == "memory_limiter":
                path = ("service", "pipelines", spec.id, "processors", place)
                message = f"service::pipelines::{spec.id}: {name} is not the first processor"
                scene.report.add("W103", scene.value_mark(path), path, message, "put it first")


def clear_secret(scene: Scene) -> None:
    """W106: a secret that stands in a file instead of coming from a variable."""
    for path, node in scene.tree.walk():
        if not isinstance(node.value, str) or not node.value or node.variable or len(path) < 3:
            continue
        declared = scene.resolved.of(str(path[0])).get(str(path[1])) if path[0] in scene.declared else None
        if declared is not None and is_secret(declared.config, path[2:]):
            message = f"'{'::'.join(map(str, path))}' is written in clear text"
            scene.report.add("W106", node.mark, path, message, "write ${env:NAME} and set the variable")


def is_secret(config: Any, path: _Path) -> bool:
    """Whether settings hold a secret at `path`: a secret field, or a header whose name says so."""
    if "headers" in path[:-1] and _SENSITIVE.search(str(path[-1])):
        return True

    return "headers" not in path and isinstance(value_at(config, path), SecretStr)


def _name(end: Endpoint) -> str:
    return "::".join(map(str, end.path))


CHECKS = (
    without_port,
    same_port,
    any_address_target,
    thrift_port,
    loki_path,
    low_percentage,
    unused,
    without_redaction,
    limiter_first,
    clear_secret,
)


def advise(resolved: Resolved, declared: Mapping[str, Mapping[str, Declared | None]], tree: Node, report: Report) -> None:
    """Run every check."""
    scene = Scene(resolved, declared, tree, report)
    for check in CHECKS:
        check(scene)
