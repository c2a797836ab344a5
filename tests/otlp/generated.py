"""Hypothesis strategies: any OTLP request of a signal, made from the descriptors, so that no field is forgotten."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from collector.model import Signal
from tests.support import REQUEST

_F = FieldDescriptor
_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    _F.TYPE_STRING: _TEXT,
    _F.TYPE_BYTES: st.binary(max_size=9),
    _F.TYPE_BOOL: st.booleans(),
    _F.TYPE_ENUM: st.integers(-(2**31), 2**31 - 1),
    _F.TYPE_DOUBLE: st.floats(allow_nan=False) | st.just(math.nan),  # JSON has one NaN only
    _F.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    _F.TYPE_SFIXED64: st.integers(-(2**63), 2**63 - 1),
    _F.TYPE_UINT64: st.integers(0, 2**64 - 1),
    _F.TYPE_FIXED64: st.integers(0, 2**64 - 1),
    _F.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    _F.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
    _F.TYPE_UINT32: st.integers(0, 2**32 - 1),
    _F.TYPE_FIXED32: st.integers(0, 2**32 - 1),
}


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> Any:
    """One message with a random choice of its fields."""
    message = GetMessageClass(descriptor)()
    chosen = draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=3, unique_by=lambda f: f.number))
    if depth < 3:
        chosen = [f for f in descriptor.fields if f.message_type and f.is_repeated][:1] + chosen
    for each in chosen:
        if each.message_type and depth > 6:
            continue
        many = draw(st.integers(1, 3 - depth if depth < 2 else 1)) if each.is_repeated else 1
        for _ in range(many):
            value = draw(messages(each.message_type, depth + 1) if each.message_type else _SCALARS[each.type])
            if each.is_repeated:
                getattr(message, each.name).append(value)
            elif each.message_type:
                getattr(message, each.name).CopyFrom(value)
            else:
                setattr(message, each.name, value)
    return message


def requests(signal: Signal) -> st.SearchStrategy[Any]:
    """Any export request of one signal."""
    return messages(REQUEST[signal].DESCRIPTOR)
