"""One component's part of the tree to its settings model; pydantic's errors to problems with positions and advice."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from collector.config.nodes import Node
from collector.config.problems import Mark, Report, did_you_mean

Model = TypeVar("Model", bound=BaseModel)
_Path = tuple[str | int, ...]
_EXPECTED = {
    "bool_type": ("'bool'", "write true or false"),
    "int_type": ("'int'", "write a whole number"),
    "int_from_float": ("'int'", "write a whole number"),
    "float_type": ("'float'", "write a number"),
    "string_type": ("'string'", "quote it"),
    "list_type": ("a list", "write [a, b] or one `- item` a line"),
    "tuple_type": ("a list", "write [a, b] or one `- item` a line"),
    "dict_type": ("a mapping", ""),
    "model_type": ("a mapping", ""),
    "model_attributes_type": ("a mapping", ""),
}
_WORDS = {bool: "'bool'", int: "'int'", float: "'float'", str: "'string'", list: "a list", dict: "a mapping", type(None): "null"}


def check(model: type[Model], node: Node, prefix: _Path, report: Report) -> Model | None:
    """The validated settings, or None with every error reported.

    Text settings get a variable's raw text, others its YAML reading; null means the default, as in otelcol.
    """
    data: Any = {} if node.value is None else node.plain()
    settled: set[_Path] = set()
    while True:
        try:
            config = model.model_validate(data)
        except ValidationError as failure:
            errors = failure.errors(include_url=False, include_input=False)
            if not _repair(data, node, errors, settled):
                for error in _strongest(errors, node):
                    _tell(error, model, node, prefix, report)
                return None
        else:
            return _with_raw_text(model, config, data, node)


def _repair(data: Any, node: Node, errors: list[ErrorDetails], settled: set[_Path]) -> bool:
    """Give text settings their raw text and take nulls out, where an error asks for it; whether anything changed."""
    changed = False
    for error in errors:
        path = _present(error["loc"], node)
        found = _find(node, path)
        if not path or found is None or path in settled or error["type"] in ("extra_forbidden", "missing"):
            continue
        parent = _data_at(data, path[:-1])
        if parent is None:
            continue
        if found.raw is not None and error["type"] == "string_type":
            parent[path[-1]] = found.raw
        elif found.value is None and isinstance(parent, dict):
            parent.pop(path[-1], None)
        else:
            continue
        settled.add(path)
        changed = True
    return changed


def _with_raw_text(model: type[Model], config: Model, data: Any, node: Node) -> Model:
    """Text settings whose YAML reading differs from the raw text (`"quoted"`, `a # b`) get the raw text."""
    for path, found in node.walk():
        if found.raw is None or not isinstance(found.value, str) or found.raw == found.value:
            continue
        kept = value_at(config, path)
        kept = kept.get_secret_value() if isinstance(kept, SecretStr) else kept
        parent = _data_at(data, path[:-1])
        if kept != found.value or parent is None:
            continue
        parent[path[-1]] = found.raw
        try:
            config = model.model_validate(data)
        except ValidationError:
            parent[path[-1]] = found.value
    return config


def value_at(config: Any, path: _Path) -> Any:
    """What stands in validated settings at a path of the file; None where the model has nothing there."""
    for step in path:
        if isinstance(config, BaseModel):
            names = [n for n, f in type(config).model_fields.items() if step in (f.alias or n, f.validation_alias, n)]
            config = getattr(config, names[0]) if names else None
        elif isinstance(config, dict):
            config = config.get(step)
        elif isinstance(config, list | tuple) and isinstance(step, int) and step < len(config):
            config = config[step]
        else:
            return None
    return config


def _present(loc: tuple[str | int, ...], node: Node) -> _Path:
    """`loc` without the steps that pydantic adds for unions and validators, as far as the file goes."""
    path: list[str | int] = []
    for step in loc:
        child = node.child(step)
        if child is not None:
            path.append(step)
            node = child
    return tuple(path)


def _find(node: Node | None, path: _Path) -> Node | None:
    for step in path:
        node = node.child(step) if node else None
    return node


def _data_at(data: Any, path: _Path) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data if isinstance(data, dict | list) else None


def _strongest(errors: list[ErrorDetails], node: Node) -> Iterator[ErrorDetails]:
    """One error for each place: of the branches of a union the one that reached deepest."""
    best: dict[tuple[_Path, str], ErrorDetails] = {}
    for error in errors:
        extra = str(error["loc"][-1]) if error["type"] in ("extra_forbidden", "missing") else ""
        place = (_present(error["loc"], node), extra)
        if place not in best:
            best[place] = error
    for (path, _), error in best.items():
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other, _ in best)
        if not deeper or error["type"] in ("extra_forbidden", "missing", "value_error"):
            yield error


def _tell(error: ErrorDetails, model: type[BaseModel], node: Node, prefix: _Path, report: Report) -> None:
    kind, loc = error["type"], error["loc"]
    path = _present(loc, node)
    found = _find(node, path)
    assert found is not None
    if found.failed:
        return
    name = "::".join(map(str, (*prefix, *path)))
    if kind == "extra_forbidden":
        owner = _find(node, path[:-1]) if path else node
        key = str(loc[-1])
        mark = owner.keys.get(key, found.mark) if owner else found.mark
        _unknown_key(key, mark, (*prefix, *path[:-1]), list(fields_at(model, loc[:-1])), report)
    elif kind == "missing":
        missing = str(loc[-1])
        report.add("C005", _key_mark(node, path), (*prefix, *path), f"'{name}' is missing {missing}", f"add {missing}: ...")
    else:
        code, message, hint = _describe(error, found)
        quoted = _quoted(message, found)
        path, name = ((*path, quoted), f"{name}::{quoted}") if quoted else (path, name)
        mark = _named_key(message, found) or (found.value[quoted] if quoted else found).mark
        report.add(code, mark, (*prefix, *path), f"'{name}' {message}", hint)


def _unknown_key(key: str, mark: Mark, owner: _Path, known: list[str], report: Report) -> None:
    where = "::".join(map(str, owner))
    if ":" in key and did_you_mean(key.partition(":")[0], known):
        name, _, value = key.partition(":")
        report.add("C023", mark, (*owner, key), f"'{where}' has invalid keys: {key}", f"write a space: {name}: {value}")
        return
    hint = did_you_mean(key, known) or (f"known: {', '.join(sorted(known))}" if 0 < len(known) <= 25 else "")
    report.add("C003", mark, (*owner, key), f"'{where}' has invalid keys: {key}", hint.replace('"', "'"))


def _describe(error: ErrorDetails, found: Node) -> tuple[str, str, str]:
    """Code, message and hint of a value error; the value itself is never shown (it may be a secret)."""
    kind = error["type"]
    if kind in _EXPECTED:
        wanted, hint = _EXPECTED[kind]
        if wanted == "a mapping" and isinstance(found.value, str) and re.match(r"[a-z_]+:\S", found.value):
            name, _, value = found.value.partition(":")
            return "C023", f"expected type {wanted}, got unconvertible type 'string'", f"write a space: {name}: {value}"
        got = _WORDS.get(type(found.value), "another value")
        return "C004", f"expected type {wanted}, got unconvertible type {got}", hint
    message = error["msg"].removeprefix("Value error, ")
    if "duration" in message:
        phrase, _, hint = message.partition(": ")
        return "C022" if "unit" in message else "C004", phrase, hint
    if isinstance(found.value, str) and "://" not in found.value and (" port" in message or "address to listen on" in message):
        phrase, _, hint = message.partition(": ")
        return "C020", phrase, hint
    if kind == "literal_error":
        choices = str(error.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
        hint = did_you_mean(str(found.value), choices)
        return "C004", f"is not one of {', '.join(choices)}", hint
    return "C004", message[:1].lower() + message[1:] if message.startswith("Input") else message, ""


def _named_key(message: str, found: Node) -> Mark | None:
    """The mark of the key that a model's own check names first (`tpm is not supported: ...`)."""
    word = message.split(" ", 1)[0].strip("':`\"")
    return found.keys.get(word.split(".")[0])


def _quoted(message: str, found: Node) -> str | None:
    """The key whose value a model's own check quotes first (`'foo' is not an address ...`)."""
    children = found.value.items() if isinstance(found.value, dict) else ()
    named = [key for key, child in children if isinstance(child.value, str) and message.startswith(f"{child.value!r} ")]
    return named[0] if len(named) == 1 else None


def _key_mark(node: Node, path: _Path) -> Mark:
    """Where a mapping is named, for what is missing inside it."""
    owner = _find(node, path[:-1]) if path else None
    found = _find(node, path)
    mark = owner.keys.get(str(path[-1])) if owner and path else None
    return mark or (found or node).mark


def fields_at(model: Any, loc: _Path) -> Iterator[str]:
    """Names a user may write at `loc`; dict keys and list indices stay on the same models."""
    models = _models_in(model)
    for step in loc:
        inner = [
            m for owner in models for n, f in owner.model_fields.items() if step in (n, f.alias) for m in _models_in(f.annotation)
        ]
        models = inner or models
    for owner in models:
        for name, field in owner.model_fields.items():
            yield field.alias or name


def _models_in(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for arg in typing.get_args(kind) for model in _models_in(arg)]
