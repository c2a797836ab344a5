"""The size of an encoded batch, told without encoding it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.model import Batch, Group, Scope, Signal
from collector.otlp.request import open_request
from collector.otlp.sizes import encoded_size
from tests.otlp.generated import requests

_headers = st.sampled_from([b"", b"\x1a\x03url", b"\x0a\x02\x10\x07", b"\x0a\xc8\x01" + b"\x0a\xc5\x01" + b"n" * 197])
_items = st.sampled_from([b"", b"i" * 127, b"i" * 128, b"i" * 750, b"i" * 16383, b"i" * 16384])
_scopes = st.builds(Scope, _headers, st.lists(_items, max_size=5))
_groups = st.builds(Group, _headers, st.lists(_scopes, max_size=3))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(Signal), st.lists(_groups, max_size=3))
def test_any_batch_is_as_long_as_its_encoded_form(signal, groups):
    batch = Batch(signal, groups)
    assert encoded_size(batch) == len(batch.encode())


@pytest.mark.parametrize("signal", Signal)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_opened_request_without_unknown_fields_is_as_long_as_its_bytes(signal, data):
    body = data.draw(requests(signal)).SerializeToString()
    batch = open_request(signal, body).batch
    if batch.raw is not None:
        assert encoded_size(batch) == len(Batch(signal, batch.groups).encode()) == len(body)
