"""Where each emitter writes what: one pass over a span's attributes finds every logical field, in any dialect.

The names are data (`dialects.yaml`). Values stay AnyValue until somebody asks for a field; JSON in an attribute is parsed only
if no plainer name of that field was usable, and once per span.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import orjson
import yaml

from collector.otlp.find import Condition

T = TypeVar("T")
Path_ = tuple[str, ...]
_MAX_JSON = 64 << 10
_MAX_REPR = 4 << 10
_MARKERS = ("input_tokens", "output_tokens", "total_tokens", "uncached_input", "cost_reported")
_MODELS = ("request_model", "response_model")
_SHAPES, _WIDEST, _LONGEST = 128, 64, 4096
"""Sequences of keys remembered; how many keys and characters one of them has at most."""


@cache
def data() -> dict[str, Any]:
    """The content of dialects.yaml."""
    text = (Path(__file__).parent / "dialects.yaml").read_bytes()
    loaded: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return loaded


def plain(value: Any) -> object:
    """The Python value of an AnyValue; None when it is empty, lists and maps stay protobuf messages."""
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def text(value: object) -> str | None:
    """A usable text: stripped and not empty."""
    if isinstance(value, str):
        return value.strip() or None
    return None


def matches(pattern: str, value: str) -> bool:
    """Shell glob, without regard to case."""
    return fnmatchcase(value.lower(), pattern.lower())


Shape = tuple[Mapping[str, Sequence[tuple[Path_, str, int]]], frozenset[str]]
"""Field -> (path, name, position) of its places, best first; and the fields with a strong name."""


class Found:
    """The logical fields of one span: what was written under which name, best name first."""

    __slots__ = ("_attributes", "_json", "fields", "strong")

    def __init__(self, attributes: Sequence[Any], shape: Shape) -> None:
        self.fields, self.strong = shape
        self._attributes = attributes
        self._json: dict[str, object] = {}

    def has(self, field: str) -> bool:
        """Whether any name of the field is there, usable or not."""
        return field in self.fields

    def lacks(self, field: str, name: str) -> bool:
        """Whether that name of the field is not there, not even with an unusable value."""
        return name not in self.names(field)

    def pick(self, field: str, usable: Callable[[object], T | None]) -> T | None:
        """The first usable value; None when no name is there or none holds a usable value."""
        entries = self.fields.get(field)
        if entries is None:
            return None
        for path, name, position in entries:
            value = self._attributes[position].value
            found = usable(self._inside(name, value, path) if path else plain(value))
            if found is not None:
                return found
        return None

    def names(self, field: str) -> list[str]:
        """The attribute names under which the field was written."""
        return [name for _, name, _ in self.fields.get(field, ())]

    def values(self, field: str) -> Iterator[tuple[str, object]]:
        """Name and value of every place of the field, best first; None where a JSON attribute lacks the key."""
        for path, name, position in self.fields.get(field, ()):
            value = self._attributes[position].value
            yield name, self._inside(name, value, path) if path else plain(value)

    def _inside(self, name: str, value: Any, path: Path_) -> object:
        if name not in self._json:
            self._json[name] = _parsed(plain(value))
        inner = self._json[name]
        for key in path:
            if not isinstance(inner, dict):
                return None
            inner = inner.get(key)
        return inner


def _parsed(value: object) -> object:
    if hasattr(value, "values") and not isinstance(value, dict):  # KeyValueList (or ArrayValue, which has no keys)
        return {e.key: _parsed_leaf(plain(e.value)) for e in value.values if hasattr(e, "key")}
    if not isinstance(value, str) or len(value) > _MAX_JSON:
        return None
    try:
        return orjson.loads(value)
    except ValueError:
        return _literal(value)


def _parsed_leaf(value: object) -> object:
    return _parsed(value) if hasattr(value, "values") else value


def _literal(value: str) -> object:
    if len(value) > _MAX_REPR or not value.startswith("{'"):
        return None
    try:
        return ast.literal_eval(value)
    except Exception:  # whatever the parser makes of a stranger's text, it is no usage
        return None


class Dialects:
    """All attribute names, compiled into one dictionary: name -> fields it feeds."""

    def __init__(self, extra: Mapping[str, Sequence[str]] | None = None, carried: Iterable[str] = ()) -> None:
        """`extra`: the user's names per field, tried first; `carried`: names to note under the field `written`.

        Raises ValueError for a field that does not exist.
        """
        rules = data()
        fields: dict[str, list[str]] = rules["fields"]
        for field in extra or {}:
            if field not in fields:
                raise ValueError(f'dialects: unknown field "{field}" (valid: {", ".join(fields)})')
        self._weak = frozenset(rules["weak_names"])
        self.names: dict[str, list[tuple[str, int, Path_]]] = {}
        """Attribute name -> field, rank and path of all it feeds."""
        for field, aliases in fields.items():
            for rank, alias in enumerate([*(extra or {}).get(field, ()), *aliases]):
                name, _, path = alias.partition("#")
                self.names.setdefault(name, []).append((field, rank, tuple(path.split(".")) if path else ()))
        for name in carried:
            self.names.setdefault(name, []).append(("written", 0, ()))
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._extra = [alias.partition("#")[0] for aliases in (extra or {}).values() for alias in aliases]

    def add(self, field: str, names: Sequence[str]) -> None:
        """Read one more field, for example an opt-in label."""
        for rank, name in enumerate(names):
            self.names.setdefault(name, []).append((field, rank, ()))
        self._shapes.clear()

    def read(self, attributes: Sequence[Any]) -> Found:
        """What the attributes of one span say. Spans of one emitter have the same keys, so the search is done once for them."""
        keys = tuple([entry.key for entry in attributes])
        shape = self._shapes.get(keys)
        if shape is None:
            shape = self._shape(keys)
            if len(keys) <= _WIDEST and sum(map(len, keys)) <= _LONGEST:
                if len(self._shapes) >= _SHAPES:
                    self._shapes.clear()
                self._shapes[keys] = shape
        return Found(attributes, shape)

    def _shape(self, keys: Sequence[str]) -> Shape:
        ranked: dict[str, list[tuple[int, Path_, str, int]]] = {}
        strong: set[str] = set()
        for position, key in enumerate(keys):
            for field, rank, path in self.names.get(key, ()):
                ranked.setdefault(field, []).append((rank, path, key, position))
                if key not in self._weak:
                    strong.add(field)
        places = {field: [entry[1:] for entry in sorted(entries, key=itemgetter(0))] for field, entries in ranked.items()}
        return places, frozenset(strong)

    def conditions(self) -> list[Condition]:
        """What marks every span that may hold an LLM call; ordinary spans fulfil none."""
        names = dict.fromkeys([*_NAMES, *self._extra])
        return [*(Condition(text.encode(), prefix=True) for text in _BEGINNINGS), *(Condition(n.encode()) for n in names)]

    def patterns(self) -> list[bytes]:
        """The same as byte patterns: only one, because two that end in one place would be two hits."""
        names = dict.fromkeys([*_NAMES, *self._extra])
        return [b"|".join([*(re.escape(text.encode()) for text in _BEGINNINGS), *(_key(name) for name in names)])]


def meaningful(found: Found) -> bool:
    """Whether the span is about a language model at all: a strong name, or a weak model beside a weak token count."""
    strong = found.strong
    if any(field in strong for field in _MARKERS) or any(field in strong for field in _MODELS) or "operation" in strong:
        return True
    return any(found.has(field) for field in _MARKERS) and any(found.has(field) for field in _MODELS)


def _key(name: str) -> bytes:
    encoded = name.encode()
    length = bytes([len(encoded)]) if len(encoded) < 128 else bytes([len(encoded) & 127 | 128, len(encoded) >> 7])
    return re.escape(b"\n" + length + encoded)


_BEGINNINGS = (
    "gen_ai.usage.", "gen_ai.operation.name", "gen_ai.request.model", "gen_ai.response.model", "gen_ai.client.token.usage",
    "llm.token_count.", "llm.token.counts.", "llm.usage.", "llm.cost.", "llm.cost_", "llm.tokens_used", "llm.model",
    "llm.request.model", "llm.request.type", "llm.response.model", "llm.response.type", "embedding.model_name",
    "reranker.model_name", "llm.invocation_parameters", "openinference.span.kind", "ai.usage.", "ai.operationId", "ai.model.id",
    "ai.response.model", "ai.response.providerMeta", "traceloop.span.kind", "langfuse.observation.type",
    "langfuse.observation.model", "langfuse.observation.usage", "langfuse.observation.cost", "langsmith.span.kind",
    "mlflow.spanType", "mlflow.llm.", "mlflow.chat.tokenUsage", "genkit:metadata:subtype", "litellm.cost",
    "litellm.provider.model",
)  # fmt: skip
_NAMES = ("operation.cost", "prompt_tokens", "completion_tokens", "total_tokens")
