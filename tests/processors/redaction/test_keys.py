"""What a key alone says of its value."""

import pytest

from collector.processors.redaction import Redaction
from collector.processors.redaction.keys import is_count, is_secret_key
from tests.support import attribute, batch, build, span, spans_of, traces


@pytest.mark.parametrize(
    "key", ["password", "db_passwd", "apiKey", "X-API-Key", "http.request.header.authorization", "session_token", "cookies"]
)
def test_keys_that_name_a_secret(key):
    """R-304."""
    assert is_secret_key(key)


@pytest.mark.parametrize("key", ["passwordless", "token", "max_tokens", "secretary", "keyboard", "author"])
def test_keys_that_only_look_like_it(key):
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("key", "count"), [("max_tokens", True), ("itemCount", True), ("token_count.total", True), ("account", False)]
)
def test_keys_that_name_a_count(key, count):
    """R-312."""
    assert is_count(key) is count


@pytest.mark.parametrize("mode", ["large", "all"])
@pytest.mark.parametrize("key", ["n", "account", "bank_account", "discount", "orderCount2"])
@pytest.mark.parametrize("value", [4111111111111111, 4111111111111111.0, "4111111111111111"])
def test_a_card_number_alone_in_its_span_is_found_under_any_key_that_is_no_count(mode, key, value):
    """R-303."""
    given = batch(traces(span("op", {key: value})))
    assert attribute(spans_of(build(Redaction, {"scan_numbers": mode}).process(given, 0))[0], key) == "************1111"


@pytest.mark.parametrize("key", ["customer.phone", "mobile", "nhs_number", "phoneNumber"])
def test_a_short_number_is_found_under_a_key_that_names_it(key):
    """R-303."""
    given = batch(traces(span("op", {key: 9434765919, "mobile.latency_ns": 9434765919})))
    out = spans_of(build(Redaction).process(given, 0))[0]
    assert str(attribute(out, key)).startswith("[")
    assert attribute(out, "mobile.latency_ns") == 9434765919
