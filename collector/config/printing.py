"""The merged configuration for `print-config`: secrets as `****` unless asked otherwise."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from pydantic import SecretStr

from collector.config.load import Loaded
from collector.config.resolved import Resolved
from collector.config.settings import value_at

MASK = "****"
_USER_PART = re.compile(r"(://)[^/@\s]+@")
_NAMED = re.compile(r"(?i)(?:^|_)(?:password|passwd|secret|token|api_?key|hmac_key|key_pem|authorization|credentials?)$")


def redacted(loaded: Loaded) -> dict[str, Any]:
    """The merged data with every secret field, every header value and every key that is called a secret masked."""
    out = _mask(loaded.merged, (), loaded.resolved)
    assert isinstance(out, dict)
    return out


def text(data: dict[str, Any], form: str) -> str:
    """As `yaml` or `json`."""
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False).rstrip("\n")


def _mask(value: Any, path: tuple[str | int, ...], resolved: Resolved | None) -> Any:
    if isinstance(value, dict):
        return {key: _mask(child, (*path, key), resolved) for key, child in value.items()}
    if isinstance(value, list):
        return [_mask(child, (*path, index), resolved) for index, child in enumerate(value)]
    if value not in (None, "") and _secret(value, path, resolved):
        return MASK
    return _USER_PART.sub(rf"\1{MASK}@", value) if isinstance(value, str) else value


def _secret(value: Any, path: tuple[str | int, ...], resolved: Resolved | None) -> bool:
    if any(step in ("headers", "response_headers") for step in path[:-1]):
        return True
    if isinstance(value, str) and path and _NAMED.search(str(path[-1])):
        return True
    if resolved is None or len(path) < 3 or path[0] not in ("receivers", "processors", "exporters", "extensions"):
        return False
    declared = resolved.of(str(path[0])).get(str(path[1]))
    return declared is not None and isinstance(value_at(declared.config, path[2:]), SecretStr)
