"""Component ids, `type[/name]`: otelcol's rules, and the same id in its older and newer spelling."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from collector.catalog import ALIASES

_TYPE = re.compile(r"[a-zA-Z][0-9a-zA-Z_]{0,62}")


def id_fault(component_id: str) -> str:
    """What is wrong with `type[/name]`, in otelcol's words; empty when nothing."""
    type_id, slash, name = component_id.partition("/")
    if not component_id.strip():
        return "id must not be empty"
    if slash and not type_id.strip():
        return f'in "{component_id}" id: the part before / should not be empty'
    if slash and not name.strip():
        return f'in "{component_id}" id: the part after / should not be empty'
    if not _TYPE.fullmatch(type_id):
        return f'invalid character(s) in type "{type_id}"'
    if len(name) > 1024 or any(unicodedata.category(char)[0] in "ZCS" for char in name):
        return f'invalid character(s) in name "{name[:60]}"'
    return ""


def same_id(kind: str, written: str, defined: Any) -> str | None:
    """The id among `defined` that `written` means: itself, or the same with the component's other name."""
    if written in defined:
        return written
    type_id, slash, name = written.partition("/")
    wanted = ALIASES[kind].get(type_id, type_id)
    for candidate in defined:
        other, other_slash, other_name = candidate.partition("/")
        if (ALIASES[kind].get(other, other), other_slash, other_name) == (wanted, slash, name):
            return str(candidate)
    return None
