"""Walks one decoded message along its descriptors and edits every text, bytes value and attribute in place.

Which fields exist comes from the protobuf descriptors alone, so a field of a newer version is walked without a change here. The
only hand-written part is `IDS`: fixed-size ids, which are not text as long as they have their size.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from collector.processors.redaction.context import names_person
from collector.processors.redaction.finders import is_public
from collector.processors.redaction.keys import is_count
from collector.processors.redaction.redactor import DropAttribute, DropRecord, Redactor, Report

IDS = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
_CLIENT_KEYS = frozenset(("client.address", "http.client_ip", "client_ip"))
_LARGE = 1 << 35
_LEAST = {"off": (float("inf"), float("inf")), "large": (_LARGE, 1_000_000), "all": (0, 0)}
"""Least number to look at: under any key, and under one that names what it holds, such as a phone or a passport."""
_SAMPLING = re.compile(r"(?:th|rv):[0-9a-f]{1,16}|p:\d{1,2}", re.A)
_MESSAGE, _STRING, _BYTES = FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES


class Walk:
    """One item under edit: `changed` tells whether anything was, `dropped` how many data points went."""

    def __init__(self, redactor: Redactor, mask: int, report: Report, *, max_depth: int = 16, numbers: str = "large") -> None:
        self._redactor, self._mask, self._report = redactor, mask, report
        self._max_depth, (self._least, self._named) = max_depth, _LEAST[numbers]
        self.changed = False
        self.dropped = 0

    def message(self, message: Message) -> None:
        """Edit `message` and everything below it. Raises DropRecord."""
        for entry, value in message.ListFields():
            if entry.type == _MESSAGE:
                self._submessage(message, entry, value)
            elif entry.type == _STRING:
                self._strings(message, entry, value)
            elif entry.type == _BYTES and len(value) != IDS.get(entry.name):
                edited = self._bytes(value, entry.name)
                if edited != value:
                    self._set(message, entry.name, edited)

    def _submessage(self, message: Message, entry: Any, value: Any) -> None:
        kind = entry.message_type.full_name
        if kind.endswith(".KeyValue"):
            self._attributes(value, "", 0)
        elif kind.endswith(".AnyValue"):
            for each in value if entry.is_repeated else (value,):
                self._field_value(each, entry.name)
        elif entry.is_repeated:
            self._repeated(entry, value)
        else:
            self.message(value)

    def _repeated(self, entry: Any, values: Any) -> None:
        for position in range(len(values) - 1, -1, -1):
            try:
                self.message(values[position])
            except DropRecord:
                if entry.name != "data_points":
                    raise
                del values[position]
                self.dropped += 1
                self.changed = True

    def _strings(self, message: Message, entry: Any, value: Any) -> None:
        if entry.is_repeated:
            for position, text in enumerate(value):
                edited = self._text(text, entry.name)
                if edited != text:
                    value[position] = edited
                    self.changed = True
            return
        edited = self._trace_state(value) if entry.name == "trace_state" else self._text(value, entry.name)
        if edited != value:
            self._set(message, entry.name, edited)

    def _set(self, message: Message, name: str, value: object) -> None:
        setattr(message, name, value)
        self.changed = True

    def _text(self, text: str, key: str) -> str:
        try:
            return self._redactor.edit(text, key, self._mask, self._report)
        except DropAttribute:
            return "[REDACTED]"

    def _bytes(self, value: bytes, key: str) -> bytes:
        try:
            return self._text(value.decode(), key).encode()
        except UnicodeDecodeError:
            text = value.decode("utf-8", "surrogateescape")
            edited = self._text(text, key)
            return value if edited == text else b"[REDACTED]"

    def _trace_state(self, value: str) -> str:
        """Members apart; what `ot=` says about sampling is never touched; a finding in a member's key, or across members,
        drops what it stands in.
        """
        kept = []
        for member in value.split(","):
            name, equals, content = member.partition("=")
            if name.strip() == "ot":
                kept.append(f"{name}{equals}{self._sampling(content)}")
            elif self._redactor.forced(name.strip()) is None and self._text(name, "trace_state") == name:
                edited = f"{name}{equals}{self._text(content, 'trace_state')}"
                if self._text(edited, "trace_state") == edited:
                    kept.append(edited)
        joined = ",".join(member for member in kept if not member.strip().startswith("ot="))
        if self._text(joined, "trace_state") != joined:
            kept = [member for member in kept if member.strip().startswith("ot=")]
        return ",".join(kept)

    def _sampling(self, content: str) -> str:
        """`th` and `rv` are hexadecimal and may look like numbers; any other part of `ot=` is text."""
        parts = [part for part in content.split(";") if _SAMPLING.fullmatch(part) or self._text(part, "trace_state") == part]
        return ";".join(parts)

    def _field_value(self, value: Any, key: str) -> None:
        try:
            self._value(value, key, 0)
        except DropAttribute:
            self._mark(value, "[REDACTED]")

    def _attributes(self, pairs: Any, prefix: str, depth: int) -> None:
        doomed = []
        for position, pair in enumerate(pairs):
            try:
                self._pair(pair, prefix, depth, pairs)
            except DropAttribute:
                doomed.append(position)
        for position in reversed(doomed):
            del pairs[position]
            self.changed = True

    def _pair(self, pair: Any, prefix: str, depth: int, siblings: Any = ()) -> None:
        name = pair.key
        key = f"{prefix}.{name}" if prefix else name
        if rule := self._redactor.forced(key) or (self._redactor.forced(name) if prefix else None):
            self._whole(pair.value, rule)
        else:
            self._value(pair.value, key, depth)
        edited = self._redactor.name(name, self._report)
        if edited != name:
            taken, count, unique = {other.key for other in siblings}, 1, edited
            while unique in taken:
                count += 1
                unique = f"{edited}#{count}"
            self._set(pair, "key", unique)

    def _whole(self, value: Any, rule: Any) -> None:
        kind = value.WhichOneof("value")
        if kind is None or (kind == "string_value" and not value.string_value):
            return
        text = _plain(value, kind)
        edited = self._redactor.whole(rule, text, self._report)
        if edited != text:
            self._mark(value, edited)

    def _mark(self, value: Any, text: str) -> None:
        value.Clear()
        value.string_value = text
        self.changed = True

    def _value(self, value: Any, key: str, depth: int) -> None:
        kind = value.WhichOneof("value")
        if kind == "string_value":
            self._string(value, key)
        elif kind == "array_value":
            if self._deep(value, depth):
                for each in value.array_value.values:
                    self._value(each, key, depth + 1)
        elif kind == "kvlist_value":
            if self._deep(value, depth):
                self._attributes(value.kvlist_value.values, key, depth + 1)
        elif kind == "bytes_value":
            edited = self._bytes(value.bytes_value, key)
            if edited != value.bytes_value:
                self._set(value, "bytes_value", edited)
        elif kind == "int_value" or kind == "double_value":
            self._number(value, kind, key)

    def _string(self, value: Any, key: str) -> None:
        text = value.string_value
        edited = _string(self._redactor, key, text, self._mask, self._report)
        if edited != text:
            self._set(value, "string_value", edited)

    def _number(self, value: Any, kind: str, key: str) -> None:
        number = getattr(value, kind)
        if (
            (abs(number) >= self._least or (abs(number) >= self._named and names_person(key)))
            and number == number
            and abs(number) != float("inf")
            and number == int(number)
        ):
            token = self._redactor.number(int(number), key, self._mask, self._report)
            if token is not None:
                self._mark(value, token)

    def _deep(self, value: Any, depth: int) -> bool:
        if depth < self._max_depth:
            return True
        self._report.failures["depth"] += 1
        self._mark(value, "[REDACTED:depth]")
        return False


def attribute(redactor: Redactor, key: str, text: str, mask: int, report: Report) -> str:
    """What `Walk` makes of a text right under an item, where the key goes on as it is. Raises DropAttribute or DropRecord."""
    rule = redactor.forced(key)
    if rule is None:
        return _string(redactor, key, text, mask, report)
    return text and redactor.whole(rule, text, report)


def _string(redactor: Redactor, key: str, text: str, mask: int, report: Report) -> str:
    if key in _CLIENT_KEYS and is_public(text):
        return redactor.client_address(text, report)
    if text.isdigit() and is_count(key):
        return text
    return redactor.edit(text, key, mask, report)


def _plain(value: Any, kind: str) -> str:
    content = getattr(value, kind)
    if kind == "bytes_value":
        return str(content.decode("utf-8", "surrogateescape"))
    if kind in ("array_value", "kvlist_value"):
        return str(content.SerializeToString().hex())
    return str(content)
