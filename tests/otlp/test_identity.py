"""otlp.identity: a resource without a service name gets one, all others stay as they are, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from collector.model import Batch, Group, Signal, open_envelope
from collector.otlp.identity import UNKNOWN, with_service
from tests.support import any_value, span, traces


def opened(*resources: dict[str, object]) -> Batch:
    body = b"".join(traces(span(), span(), resource=resource).SerializeToString() for resource in resources)
    return open_envelope(Signal.TRACES, body)


def service(group: Group) -> list[object]:
    found = ResourceSpans.FromString(group.header).resource.attributes
    return [entry.value.string_value or entry.value.int_value for entry in found if entry.key == "service.name"]


def test_named_resources_are_not_touched() -> None:
    before = opened({"service.name": "a"}, {"x": 1, "service.name": "b" * 300}, {"service.name": 5})
    after, unnamed = with_service(before)
    assert after is before
    assert unnamed == 0


@pytest.mark.parametrize("size", [0, 10_000])
def test_nameless_ones_get_the_name_that_the_conventions_give_and_keep_the_rest(size: int) -> None:
    """R-110."""
    before = opened({"pad": "x" * size}, {"service.name": "shop"}, {"service.name": "", "host": "h"}, {})
    for _ in range(2):
        after, unnamed = with_service(before)
        assert unnamed == 6
        assert [service(group) for group in after.groups] == [[UNKNOWN], ["shop"], [UNKNOWN], [UNKNOWN]]
    assert after.raw is None
    assert after.items() == before.items()
    first = ResourceSpans.FromString(after.groups[0].header).resource.attributes
    assert (first[0].key, first[0].value.string_value) == ("pad", "x" * size)
    again = with_service(after)
    assert again == (after, 0)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from(["service.name", "a", "service.names"]), st.sampled_from(["", "x", 0, 7, None, ["y"]])))
)
def test_afterwards_no_resource_is_nameless(pairs: list[tuple[str, object]]) -> None:
    group = ResourceSpans(schema_url="s")
    for key, value in pairs:
        entry = group.resource.attributes.add(key=key)
        if value is not None:
            entry.value.CopyFrom(any_value(value))
    before = Batch(Signal.TRACES, [Group(group.SerializeToString(), [])])
    after, _ = with_service(before)
    (found,) = after.groups
    names = [e.value for e in ResourceSpans.FromString(found.header).resource.attributes if e.key == "service.name"]
    assert any(value.string_value or value.WhichOneof("value") != "string_value" for value in names)
    assert with_service(after)[0].groups[0].header == found.header
