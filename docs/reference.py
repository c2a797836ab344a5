"""Reference and JSON schema of every setting, from the same `Config` classes that check what users write."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from collector.catalog import ALIASES, KINDS, Catalog

CATALOG = Catalog()
_OF_THE_FILE = re.compile(r"\s*(?:A little longer|Longer) than (?:most|other|usual)[^.]*\.")
_ENV = {"type": "string", "pattern": r"\$\{.+\}"}


def markdown() -> str:
    """config/REFERENCE.md: each component with its summary, example and settings."""
    lines = [
        "# Reference of all settings",
        "",
        "Generated from the components themselves by `make docs`. Durations are written `300ms`, `5s`, `1h30m`; sizes `64MiB`.",
        "Any value may come from the environment: `${env:NAME}` or `${env:NAME:-default}`.",
    ]
    for kind in KINDS:
        lines += ["", f"## {kind}"]
        for name in CATALOG.types(kind):
            lines += ["", *_component(kind, name)]
    return "\n".join(lines) + "\n"


def _component(kind: str, name: str) -> Iterator[str]:
    summary, example, more = _parts(inspect.getdoc(CATALOG.module(kind, name)) or "")
    also = [alias for alias, target in ALIASES[kind].items() if target == name]
    cls = CATALOG.load(kind, name)
    yield f"### `{name}`" + (f" (also `{'`, `'.join(also)}`)" if also else "")
    yield ""
    yield summary
    yield ""
    yield f"Signals: {', '.join(sorted(cls.signals))}." if kind != "extensions" else ""
    if example:
        yield from ("", "```yaml", f"{kind}:", f"  {name}:", *(f"    {line}" for line in example), "```")
    if more:
        yield from ("", more)
    rows = list(_settings(cls.Config.model_json_schema(), cls.Config.model_json_schema(), ""))
    if rows:
        yield from ("", "| setting | default | what it does |", "|---|---|---|", *rows)


def _parts(text: str) -> tuple[str, list[str], str]:
    """What stands before the example, the lines of the example, and what stands behind it, without words on the file itself."""
    before, _, behind = text.partition("Example:\n")
    lines = behind.splitlines()
    end = next((at for at, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    example = [line for line in inspect.cleandoc("\n" + "\n".join(lines[:end])).splitlines() if line]
    more = _OF_THE_FILE.sub("", "\n".join(lines[end:])).strip()
    return _OF_THE_FILE.sub("", before).strip(), example, more


def _settings(schema: dict[str, Any], root: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, field in schema.get("properties", {}).items():
        inner = _resolve(field, root)
        default = _default(field)
        text = (field.get("description") or inner.get("description") or "").replace("\n", " ").replace("|", "\\|")
        yield f"| `{prefix}{key}` | {f'`{default}`' if default else ''} | {text} |".replace("`null`", "")
        if "properties" in inner and prefix.count(".") < 4:
            yield from _settings(inner, root, f"{prefix}{key}.")


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    if value is None or isinstance(value, dict):
        return ""
    if field.get("format") == "duration" and isinstance(value, float | int):
        return f"{value:g}s" if value >= 1 or not value else f"{value * 1000:g}ms"
    return json.dumps(value)


def _resolve(field: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    for option in (field, *field.get("anyOf", ()), *field.get("allOf", ())):
        if "$ref" in option:
            found: dict[str, Any] = root["$defs"][option["$ref"].rsplit("/", 1)[-1]]
            return found
    return field


def schema() -> str:
    """config/schema.json: draft-07 for editors; ids are `type/name`, any value may be an environment reference."""
    out: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "otel-sidecar configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": {"service": {"type": "object"}, "connectors": {"type": ["object", "null"]}},
        "definitions": {},
    }
    for kind in KINDS:
        patterns = {}
        for name in CATALOG.types(kind):
            model = CATALOG.load(kind, name).Config.model_json_schema()
            for key, definition in model.pop("$defs", {}).items():
                out["definitions"][f"{kind}.{name}.{key}"] = _draft7(definition, f"{kind}.{name}.")
            out["definitions"][f"{kind}.{name}"] = _draft7(model, f"{kind}.{name}.")
            names = "|".join([name, *(alias for alias, target in ALIASES[kind].items() if target == name)])
            patterns[f"^({names})(/.+)?$"] = {"anyOf": [{"$ref": f"#/definitions/{kind}.{name}"}, {"type": "null"}]}
        out["properties"][kind] = {"type": ["object", "null"], "patternProperties": patterns, "additionalProperties": False}
    return json.dumps(out, indent=1, sort_keys=True) + "\n"


def _draft7(node: Any, prefix: str) -> Any:
    if isinstance(node, list):
        return [_draft7(item, prefix) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _draft7(value, prefix) for key, value in node.items()}
    if isinstance(out.get("$ref"), str):
        out["$ref"] = out["$ref"].replace("#/$defs/", f"#/definitions/{prefix}")
    if out.get("type") in ("integer", "number", "boolean") and "const" not in out:
        plain = {key: out.pop(key) for key in list(out) if key not in ("title", "description", "default")}
        out["anyOf"] = [plain, _ENV]
    return out
