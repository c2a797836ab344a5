"""Prometheus names for OTLP names: units become words, counters get `_total`, colliding labels keep both values.

Source: OpenTelemetry compatibility specification, "OTLP metric points to Prometheus"; the translation strategies are otelcol's.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

_WORD = re.compile(r"[A-Za-z0-9:]+")
_NOT_LABEL = re.compile(r"[^A-Za-z0-9]+|_+")
_BRACES = re.compile(r"\{[^}]*\}")
_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds",
    "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes",
    "KBy": "kilobytes", "kBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "B": "bytes", "KB": "kilobytes", "MB": "megabytes", "GB": "gigabytes", "TB": "terabytes",
    "KiB": "kibibytes", "MiB": "mebibytes", "GiB": "gibibytes", "TiB": "tibibytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
    "Cel": "celsius", "Hz": "hertz", "1": "", "%": "percent", "$": "dollars",
}  # fmt: skip
_PER = {"s": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}


@dataclass(frozen=True, slots=True)
class Namer:
    """Builds metric and label names; `suffixes`: unit and `_total`; `escape`: only letters, digits and underscores."""

    namespace: str = ""
    suffixes: bool = True
    escape: bool = True

    def metric(self, name: str, unit: str, kind: str) -> str:
        """The exposed name; `kind` is counter, gauge, histogram ...; empty when nothing of the name can be kept."""
        return _metric(self, name, unit, kind)

    def labels(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Labels of attributes. Where two keys become one label, the values are joined with `;` in order of the keys."""
        out: dict[str, str] = {}
        for key, value in sorted(pairs):
            if not value:
                continue  # an empty label is no label to Prometheus
            name = label_name(key) if self.escape else key
            if not self.escape and key == "__name__":
                name = "key__name__"
            if name:
                out[name] = f"{out[name]};{value}" if name in out else value
        return out


def join(base: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Both label sets; a label of both keeps both values."""
    out = dict(base)
    for name, value in more.items():
        out[name] = f"{out[name]};{value}" if name in out else value
    return out


@lru_cache(maxsize=8192)
def label_name(key: str) -> str:
    """A valid label name; what starts with no letter gets `key_`, so that it never is a reserved name."""
    name = _NOT_LABEL.sub("_", key)
    if not name.strip("_"):
        return ""
    return name if name[0].isalpha() else f"key_{name.lstrip('_')}"


@lru_cache(maxsize=4096)
def _metric(namer: Namer, name: str, unit: str, kind: str) -> str:
    words = _WORD.findall(name) if namer.escape else [name] if name else []
    if not words:
        return ""
    if namer.suffixes:
        words = _suffixed(words, unit, kind, namer.escape)
    space = "_".join(_WORD.findall(namer.namespace)) if namer.escape else namer.namespace
    text = "_".join([space, *words] if space else words)
    return f"_{text}" if namer.escape and text[0].isdigit() else text


def _suffixed(words: list[str], unit: str, kind: str, escape: bool) -> list[str]:
    suffixes = [word for word in unit_words(unit) if word]
    if kind == "gauge" and unit == "1":
        suffixes.append("ratio")
    if kind == "counter":
        suffixes.append("total")
    if not escape:
        return [_utf8_suffixed(words[0], suffixes, unit_words(unit)[0])]
    moving = {"total", "ratio"} & set(suffixes)
    kept = [word for word in words if word not in moving]
    return kept + [word for word in suffixes if word in moving or word not in kept]


def _utf8_suffixed(name: str, suffixes: list[str], main: str) -> str:
    """otlptranslator's rule: later suffixes are cut off and put back, the unit itself stays where it stands already."""
    later = [word for word in suffixes if word != main]
    for word in reversed(later):
        if name.endswith(word) and len(name) > len(word) + 1:
            name = name[: -len(word) - 1]
    stem = name if not main or name.endswith(main) else f"{name}_{main}"
    return "_".join([stem, *later])


def unit_words(unit: str) -> tuple[str, str]:
    """`By/s` -> (`bytes`, `per_second`); what stands in braces is an annotation and left out."""
    main, _, per = _BRACES.sub("", unit).strip().partition("/")
    main, per = main.strip(), per.strip()
    first = _clean(_UNITS.get(main, main))
    second = _clean(_PER.get(per, per))
    return first, f"per_{second}" if second else ""


def _clean(word: str) -> str:
    return "_".join(_WORD.findall(word))


def text(value: Any) -> str:
    """The label value of an AnyValue, spelled as otelcol does: `true`, `1.5`, JSON for lists and maps, base64 for bytes."""
    plain = _plain(value)
    if isinstance(plain, str):
        return plain
    return orjson.dumps(plain).decode() if plain is not None else ""


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(value, kind)
    if kind == "bytes_value":
        return base64.b64encode(content).decode()
    if kind == "array_value":
        return [_plain(entry) for entry in content.values]
    if kind == "kvlist_value":
        return {entry.key: _plain(entry.value) for entry in content.values}
    if kind == "double_value":
        return int(content) if content.is_integer() and abs(content) < 1e15 else _float(content)
    return content


def _float(content: float) -> float | str:
    return content if content - content == 0 else {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}[str(content)]
