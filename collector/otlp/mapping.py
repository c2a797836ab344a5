"""OTLP JSON: what OTLP's own mapping says, not protobuf's (hex ids, integer enums), read leniently and written strictly.

Rules (OTLP specification, "JSON Protobuf Encoding"): ids are hex in any case; enums are integers; unknown keys are ignored;
keys are lowerCamelCase; 64-bit integers are strings or numbers; other bytes are base64. As otelcol does, snake_case keys and
enum names are read too unless `strict`. The tables are made from the descriptors: a new field of OTLP needs no edit here.
Longer than usual, because both directions share these tables.
"""

from __future__ import annotations

import base64
import binascii
import gc
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.errors import Malformed, TooLarge
from collector.model import Signal
from collector.otlp.transcode import transcode

REQUEST: dict[Signal, Any] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
"""The full schema of each signal's export request."""
MAX_ITEMS = 100_000
MAX_NESTED = 1_000_000
FREE = 512 << 10
"""Up to this size a body needs no counting: its worst case (45 MiB, 30 ms) fits what is set aside for decoding."""
MAX_ITEM_NESTED = 100_000
LIMITS = (MAX_ITEMS, MAX_NESTED, MAX_ITEM_NESTED)
"""What `transcode` takes at most, in its order."""
SLICE = 4000
"""Nested elements after which others may work: a few milliseconds."""
DEPTH = 64
_IDS = {"trace_id", "span_id", "parent_span_id"}
_URL_SAFE = str.maketrans("-_", "+/")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WIDE = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
    FieldDescriptor.TYPE_SINT64,
}
_REALS = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}


def from_json(signal: Signal, text: bytes, *, strict: bool = False) -> bytes:
    """The encoded Export...ServiceRequest of one JSON request. Raises Malformed or TooLarge, without payload in the text."""
    reader = Reader(signal, text, strict=strict)
    for _ in reader.slices():
        pass
    return reader.encoded


def to_json(signal: Signal, data: bytes) -> bytes:
    """One strict OTLP JSON object, without line break. Raises Malformed when `data` is not such a request."""
    try:
        request = REQUEST[signal]
        return orjson.dumps(_message_shower(_table(request.DESCRIPTOR), request.DESCRIPTOR)(request.FromString(data)))
    except DecodeError as error:
        raise Malformed("not an OTLP request") from error


class Reader:
    """Reads one JSON request in slices of a few milliseconds, so that the caller may let others work in between.

    `nonstandard` counts what the letter of the specification forbids, by kind: `snake_case`, `enum_name`.
    """

    def __init__(
        self, signal: Signal, text: bytes, *, strict: bool = False, reserve: Callable[[int], None] | None = None
    ) -> None:
        """`reserve(n)` is asked for the memory that the parsed text will take, before it is parsed."""
        self._signal, self._text, self._reserve = signal, text, reserve
        self._state, self._held = _State(strict), 0 if len(text) > FREE else math.inf
        self.encoded = b""

    @property
    def nonstandard(self) -> Counter[str]:
        return self._state.seen

    def slices(self) -> Iterator[None]:
        """Do the work; `encoded` holds the result afterwards. Raises Malformed or TooLarge."""
        found = yield from transcode(self._signal, self._text, LIMITS, self._hold)
        if found is not None:
            self.encoded, self._text = found, b""
            return
        root = self._parse()
        request = REQUEST[self._signal]()
        parts: list[bytes] = []
        for _ in _requests(request, root, self._state):
            parts.append(request.SerializeToString())
            request.Clear()
            yield
        self.encoded = b"".join(parts)

    def _hold(self, size: int) -> None:
        """Have `size` bytes reserved, of which some may be already."""
        if self._reserve and size > self._held:
            self._reserve(size - int(self._held))
            self._held = size

    def _parse(self) -> dict[str, Any]:
        text, self._text = self._text, b""
        if len(text) > FREE:
            containers = text.count(b"{") + text.count(b"[")
            if containers > 4 * MAX_NESTED:
                raise TooLarge("too many objects and arrays in one request")
            self._hold(len(text) + 240 * containers + 40 * text.count(b","))
        collects = gc.isenabled()
        gc.disable()  # what is parsed is a tree: looking for cycles in it while it grows takes twice as long as parsing
        try:
            root = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"not JSON: line {error.lineno} column {error.colno}") from None
        finally:
            if collects:
                gc.enable()
        if not isinstance(root, dict):
            raise Malformed("not a JSON object")
        return root


@dataclass(slots=True)
class _State:
    """What one request has used up so far."""

    strict: bool
    items: int = 0
    nested: int = 0
    mark: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def count(self, size: int) -> None:
        self.nested += size
        if self.nested > MAX_NESTED or self.nested - self.mark > MAX_ITEM_NESTED:
            raise TooLarge(f"more than {MAX_ITEM_NESTED} nested elements in one item or {MAX_NESTED} in one request")


def _requests(request: Any, root: dict[str, Any], state: _State) -> Iterator[None]:
    """Fill `request` again and again with as many items as make one slice."""
    groups, scopes, items = _levels(request.DESCRIPTOR)
    start = 0
    for i, group in enumerate(_members(root, groups, state)):
        where = f"{groups.json}[{i}]"
        target = _open(request, groups, scopes, group, state, where)
        for j, scope in enumerate(_members(group, scopes, state, where)):
            inside = f"{where}.{scopes.json}[{j}]"
            inner = _open(target, scopes, items, scope, state, inside)
            for k, item in enumerate(_members(scope, items, state, inside)):
                if state.nested - start > SLICE:
                    yield
                    start = state.nested
                    target = _open(request, groups, scopes, group, state, where)
                    inner = _open(target, scopes, items, scope, state, inside)
                state.items += 1
                state.mark = state.nested
                if state.items > MAX_ITEMS:
                    raise TooLarge(f"more than {MAX_ITEMS} items in one request")
                with _position(f"{inside}.{items.json}[{k}]"):
                    _fill(getattr(inner, items.name).add(), item, items.table, state, 3)
    yield


def _members(owner: Any, entry: _Field, state: _State, where: str = "") -> list[Any]:
    """The list under either spelling of a key."""
    found: list[Any] = []
    for key in dict.fromkeys((entry.json, entry.name)):
        value = owner.get(key)
        if value is None or (key != entry.json and state.strict):
            continue
        if key != entry.json:
            state.seen["snake_case"] += 1
        if not isinstance(value, list):
            raise Malformed(f"{where}.{key}: an array expected")
        found += value
    return found


def _open(parent: Any, entry: _Field, inner: _Field, value: Any, state: _State, where: str) -> Any:
    """A new group or scope with everything but its members."""
    if not isinstance(value, dict):
        raise Malformed(f"{where}: an object expected")
    target = getattr(parent, entry.name).add()
    state.mark = state.nested
    state.count(1)
    with _position(where):
        _fill(target, {k: v for k, v in value.items() if k != inner.json and k != inner.name}, entry.table, state, 2)
    return target


@contextmanager
def _position(where: str) -> Iterator[None]:
    try:
        yield
    except Malformed as error:
        raise Malformed(f"{where}{error}") from None


@dataclass(slots=True)
class _Field:
    """One field: both spellings, how its value is read and written, and the table of the message in it."""

    name: str
    json: str
    put: Callable[[Any, Any, _State, int], None]
    show: Callable[[Any], Any]
    table: _Table


@dataclass(slots=True)
class _Table:
    """One message type: fields by lowerCamelCase key, by other spelling, by number and by name."""

    by_json: dict[str, _Field] = field(default_factory=dict)
    by_snake: dict[str, _Field] = field(default_factory=dict)
    by_number: dict[int, _Field] = field(default_factory=dict)
    by_name: dict[str, _Field] = field(default_factory=dict)


_tables: dict[str, _Table] = {}


def _table(descriptor: Descriptor) -> _Table:
    found = _tables.get(descriptor.full_name)
    if found is None:
        found = _tables[descriptor.full_name] = _Table()
        for each in descriptor.fields:
            inner = _table(each.message_type) if each.message_type else found
            entry = _Field(each.name, each.json_name, _putter(each, inner), _shower(each, inner), inner)
            found.by_json[each.json_name] = found.by_number[each.number] = found.by_name[each.name] = entry
            if each.name != each.json_name:
                found.by_snake[each.name] = entry
    return found


def _levels(descriptor: Descriptor) -> tuple[_Field, _Field, _Field]:
    """The fields that hold groups, scopes and items."""
    groups = _table(descriptor).by_number[1]
    scopes = groups.table.by_number[2]
    return groups, scopes, scopes.table.by_number[2]


def _fill(message: Any, value: Any, table: _Table, state: _State, depth: int) -> None:
    """Put the members of one JSON object into `message`."""
    if type(value) is not dict:
        raise Malformed(": an object expected")
    if depth > DEPTH:
        raise Malformed(f": nested deeper than {DEPTH} levels")
    known = table.by_json
    for key, member in value.items():
        entry = known.get(key)
        if entry is None:
            entry = table.by_snake.get(key)
            if entry is None or state.strict:
                continue
            state.seen["snake_case"] += 1
        if member is not None:
            entry.put(message, member, state, depth)


def _putter(each: FieldDescriptor, table: _Table) -> Callable[[Any, Any, _State, int], None]:
    """How one JSON value gets into the field."""
    if each.message_type:
        return _put_messages(each, table) if each.is_repeated else _put_message(each, table)
    name, at, read = each.name, f".{each.json_name}", _reader(each)

    def put(message: Any, value: Any, state: _State, depth: int) -> None:
        try:
            setattr(message, name, read(value, state))
        except (ValueError, TypeError, OverflowError):  # protobuf's own checks of type and range
            raise Malformed(f"{at}: not a value of this field") from None

    def put_all(message: Any, value: Any, state: _State, depth: int) -> None:
        try:
            getattr(message, name).extend([read(member, state) for member in _list(value, at)])
        except (ValueError, TypeError, OverflowError):
            raise Malformed(f"{at}: not values of this field") from None

    return put_all if each.is_repeated else put


def _put_message(each: FieldDescriptor, table: _Table) -> Callable[[Any, Any, _State, int], None]:
    name, at = each.name, f".{each.json_name}"

    def put(message: Any, value: Any, state: _State, depth: int) -> None:
        inner = getattr(message, name)
        inner.SetInParent()
        try:
            _fill(inner, value, table, state, depth + 1)
        except Malformed as error:
            raise Malformed(f"{at}{error}") from None

    return put


def _put_messages(each: FieldDescriptor, table: _Table) -> Callable[[Any, Any, _State, int], None]:
    name, at = each.name, f".{each.json_name}"

    def put(message: Any, value: Any, state: _State, depth: int) -> None:
        members = _list(value, at)
        state.count(len(members))
        add = getattr(message, name).add
        position = 0
        try:
            for position, member in enumerate(members):  # noqa: B007
                _fill(add(), member, table, state, depth + 1)
        except Malformed as error:
            raise Malformed(f"{at}[{position}]{error}") from None

    return put


def _list(value: Any, at: str) -> list[Any]:
    if type(value) is not list:
        raise Malformed(f"{at}: an array expected")
    return value


def _reader(each: FieldDescriptor) -> Callable[[Any, _State], Any]:
    """JSON value -> what protobuf takes; raises ValueError or TypeError. Ranges and UTF-8 are protobuf's own check."""
    if each.enum_type:
        numbers = {value.name: value.number for value in each.enum_type.values}
        return lambda value, state: _enum(value, state, numbers)
    if each.type == FieldDescriptor.TYPE_BYTES:
        read: Callable[[Any], Any] = _hex if each.name in _IDS else _base64
    elif each.type == FieldDescriptor.TYPE_STRING:
        read = _string
    elif each.type == FieldDescriptor.TYPE_BOOL:
        read = _bool
    else:
        read = _real if each.type in _REALS else _integer
    return lambda value, state: read(value)


def _enum(value: Any, state: _State, numbers: Mapping[str, int]) -> int:
    if isinstance(value, str) and not state.strict and value in numbers:
        state.seen["enum_name"] += 1
        return numbers[value]
    if type(value) is not int:
        raise TypeError
    return value


def _string(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError
    return value


def _hex(value: Any) -> bytes:
    return binascii.unhexlify(_string(value))


def _base64(value: Any) -> bytes:
    text = _string(value).translate(_URL_SAFE).rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is str and _INTEGER.fullmatch(value):
        return int(value)
    raise TypeError


def _real(value: Any) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    if value in _SPECIAL:
        return _SPECIAL[value]
    if not _FLOAT.fullmatch(_string(value)):
        raise ValueError
    return float(value)


def _message_shower(table: _Table, descriptor: Descriptor) -> Callable[[Any], dict[str, Any]]:
    """A message -> what orjson takes. Depth is bounded by the parser's own limit of 100."""
    by_number, by_name = table.by_number, table.by_name

    def show(message: Any) -> dict[str, Any]:
        return {(entry := by_number[each.number]).json: entry.show(value) for each, value in message.ListFields()}

    def show_one(message: Any) -> dict[str, Any]:
        name = message.WhichOneof(oneof)
        if name is None:
            return {}
        entry = by_name[name]
        return {entry.json: entry.show(getattr(message, name))}

    oneof = descriptor.oneofs[0].name if descriptor.oneofs else ""
    only = oneof and len(descriptor.oneofs[0].fields) == len(descriptor.fields)
    return show_one if only else show  # an AnyValue, the most frequent one: asking for its only field is cheaper


def _shower(each: FieldDescriptor, table: _Table) -> Callable[[Any], Any]:
    """Protobuf value -> JSON value."""
    show: Callable[[Any], Any]
    if each.message_type:
        show = _message_shower(table, each.message_type)
    elif each.type == FieldDescriptor.TYPE_BYTES:
        show = bytes.hex if each.name in _IDS else lambda value: base64.b64encode(value).decode()
    elif each.type in _WIDE:
        show = str
    elif each.type in _REALS:
        show = _show_real
    else:
        show = _same
    return (lambda values: [show(value) for value in values]) if each.is_repeated else show


def _same(value: Any) -> Any:
    return value


def _show_real(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
