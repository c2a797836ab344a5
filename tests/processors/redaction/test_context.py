"""Context words: where they are looked for, and that many of them cost little."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.processors.redaction import context, finders, secrets


def spans(kind: str, text: str, key: str = "k") -> list[str]:
    return [text[start:end] for start, end in getattr(finders, kind)(text, key)]


def test_the_word_in_the_key_is_context_for_the_whole_value():
    far = "x " * 60
    assert spans("iban", f"{far}de89370400440532013000", "customer.iban") == ["de89370400440532013000"]
    assert spans("phone", f"{far}5550123", "phone") == ["5550123"]
    assert spans("us_ssn", f"{far}536904399 {far}000123456", "user.ssn") == ["536904399"]


@pytest.mark.parametrize("kind", ["dob", "phone", "uk_nhs", "passport", "uk_nino"])
def test_a_text_full_of_context_words_is_searched_once_and_quickly(kind):
    """R-303."""
    words = {"dob": "born ", "phone": "phone ", "uk_nhs": "nhs ", "passport": "passport ", "uk_nino": "nino "}[kind]
    values = {
        "dob": "1980-01-02",
        "phone": "030 1234567",
        "uk_nhs": "943 476 5919",
        "passport": "AB1234567",
        "uk_nino": "AB123456C",
    }
    text = words * 20_000 + values[kind] + " " + words * 300 + "x" * 100 + " " + values[kind]
    start = time.thread_time()
    found = list(getattr(finders, kind)(text, "k"))
    assert time.thread_time() - start < 0.5
    assert [text[low:high] for low, high in found] == [values[kind]]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["ssn ", "PHONE", "xfax", "token=", "Token: abcdefgh", "secret_key=abcdef", "İ", "born ", "ſ", "K", "sk-", "1 "]
        )
    )
)
def test_matches_by_word_are_those_of_the_whole_search(fragments):
    text = "".join(fragments)
    for name, words in context._QUICK.items():
        pattern = context._WORDS[name]
        assert [m.span() for m in context.matches(pattern, words, text)] == [m.span() for m in pattern.finditer(text)]
    for pattern, starts in ((secrets._KV, secrets._KV_STARTS), (secrets._AUTH, ("bearer", "basic", "token"))):
        assert [m.span() for m in context.matches(pattern, starts, text)] == [m.span() for m in pattern.finditer(text)]


@pytest.mark.parametrize(("distance", "near"), [(25, True), (26, False)])
def test_a_whole_word_counts_within_thirty_characters(distance, near):
    """R-303."""
    assert context.is_near("phone", f"phone{' ' * distance}5550123", "k", 5 + distance, 12 + distance) is near


def test_only_the_last_part_of_a_key_names_a_person():
    assert context.names_person("customer.phone")
    assert not context.names_person("phone.latency")
