"""The prefilter is a superset: whatever a finder finds lies in an item that is marked for it. The design stands on this."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collector.otlp.scan import ENGINES, Scanner
from collector.processors.redaction import finders, json_text, secrets
from collector.processors.redaction.config import RedactionConfig
from collector.processors.redaction.keys import is_secret_key
from collector.processors.redaction.prefilter import GROUPS, PATTERNS
from collector.processors.redaction.views import GATE
from tests.support import span

EVERYTHING = {"types": {"ip_address": {}, "mac": {}}}
REDACTOR = RedactionConfig.model_validate(EVERYTHING).build({})
SCANNERS = {engine: Scanner(REDACTOR.masks.patterns, engine=engine) for engine in ENGINES}
RULES = {rule.name: rule for rule in REDACTOR.rules}
BODY = "A" * 900
SAMPLES = {
    "email": ["a@b.co", "müller@xn--bcher-kva.example", "é@ü.de", "x" * 64 + "@" + ".".join(["l" * 62] * 8) + "." + "t" * 24, "_@a.bc"],
    "credit_card": [
        "4222222222222",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004",
        "378282246310005",
        "3782 822463 10005",
        "3056 930902 5904",
        "30569309025904",
        "4000 0000 0000 0000 006",
        "6011000990139424",
        "3530111333300000",
        "2223000048400011",
    ],
    "iban": ["NO9386011117947", "NO93 8601 1117 947", "MT84MALT011000012345MTLCAST001S", "DE89 3704 0044 0532 0130 00"],
    "us_ssn": ["536-90-4399", "536 90 4399", "ssn 536904399", "Social-Security 536904399", "social security: 536904399"],
    "phone": ["+1(2)3.4 5-6-7-8-9", "+49 151 23456789", "(212) 555-0187", "212.555.0187", "1 (212)555-0187", "Phone: (88) 684-334"],
    "uk_nhs": ["NHS 943 476 5919", "nhs no. 9434765919"],
    "passport": ["PAssport AB1234567", "passport no 123456789"],
    "dob": ["dob 0/0/00", "dob 1980-01-02", "Born on 2 January 1980", "born January 2nd, 1980", "birthxday 1/2/80"],
    "uk_nino": ["nino AB123456C", "NATIONAL INSURANCE AB 12 34 56 C"],
    "ip_address": ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "2600::", "8.8.8.8"],
    "mac": ["00:1b:44:11:3A:B7", "00-1b-44-11-3a-b7"],
    "aws_key": ["AKIA" + "A2" * 8, "aws_secret_access_key = " + "aB3/" * 10, "AWSSECRET" + "." * 30 + "aB3/" * 10],
    "gcp_key": ["AIza" + "x" * 35],
    "azure_secret": ["abc8Q~" + "x" * 31, "AccountKey=" + "A" * 86 + "=="],
    "openai_key": ["sk-proj-" + "x" * 20, "sk-None-" + "-" * 20, "sk-" + "a" * 20 + "T3BlbkFJ" + "b" * 20, "sk-" + "a" * 48],
    "anthropic_key": ["sk-ant-api03-" + "x" * 20, "sk-ant-sid01-" + "-" * 120],
    "llm_key": ["sk-or-v1-" + "a" * 64, "sk-" + "a" * 32, "gsk_" + "a" * 52, "xai-" + "a" * 80, "pplx-" + "a" * 48],
    "langfuse_key": ["pk-lf-01234567-89ab-cdef-0123-456789abcdef"],
    "hf_token": ["hf_" + "a" * 30, "hf_" + "a" * 40],
    "github_token": ["ghp_" + "a" * 36, "ghs_" + "a" * 255, "github_pat_" + "a" * 82],
    "slack_token": ["xoxb-1234567890", "xapp-1-A123456789", "hooks.slack.com/services/T00/B00/xyz"],
    "stripe_key": ["sk_live_" + "a" * 10, "rk_test_" + "a" * 247, "whsec_" + "a" * 16],
    "jwt": ["eyJhbGciOiJIUzI1NiJ9.eyJ", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.", "_eyJhbGciOiJIUzI1NiJ9.eyJ9.abc"],
    "private_key": ["--BEGIN PRIVATE KEY--", "-----BEGIN " + "A" * 29 + " PRIVATE KEY-----\n" + BODY + "\n-----END PRIVATE KEY-----"],
    "auth_header": ["BeARer abcdefghijklmnop", "token=abcdefghijklmno1", "Basic   dXNlcm5hbWU6cGFzc3dvcmQ="],
    "url_credentials": ["redis://:pw@host", "x://" + "u" * 16 + "@", "a://😀:" + "😀" * 70 + "@h", "p://u:" + "x" * 900 + "@h"],
    "kv_secret": [
        "password=hunter22",
        "PassWD : 'a b c d'",
        'Token\\\\\\\\"   :   \\\\\\\\"abcdefgh',
        "passphrase=abcd",
        "PRIVATE-KEY=abcd",
        "credentials: abcd",
        "accesskey=abcd",
    ],
}  # fmt: skip


def item(text: str, key: str = "k", name: str = "op") -> bytes:
    return span(name, {key: text}, trace=b"\1" * 16, span_id=b"\2" * 8, start=0, duration=0).SerializeToString()


def assert_marked(kind: str, data: bytes) -> None:
    for engine, scanner in SCANNERS.items():
        assert scanner.scan([data]).marks.get(0, 0) & REDACTOR.masks.wakes[kind], (kind, engine, data)


def found(kind: str, text: str, key: str = "k") -> bool:
    return any(True for _ in RULES[kind].find(text, key))


def test_every_type_has_samples_and_patterns():
    """R-303."""
    assert set(SAMPLES) | {"key_name", "client_ip"} == set(RULES) == set(GROUPS)
    assert {name for names in GROUPS.values() for name in names.split()} | {"escaped", "iban_any"} == set(PATTERNS)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in SAMPLES.items() for text in texts])
def test_the_extremes_of_every_type_are_found_and_marked_whatever_the_length_byte(kind, text):
    """R-303."""
    assert found(kind, text)
    for padding in (0, 1, 31, 40, 57, 79, 107, 130, 300):
        padded = " " * padding + text
        assert found(kind, padded)
        assert_marked(kind, item(padded))
    assert_marked(kind, item("", name=text))


def test_no_length_byte_hides_a_finding():
    """The byte before a text is its length: it may look like a letter, a digit or a dot."""
    items = [item(text + " " * padding) for kind in SAMPLES for text in SAMPLES[kind][:1] for padding in range(0, 400, 3)]
    wanted = [REDACTOR.masks.wakes[kind] for kind in SAMPLES for _ in range(0, 400, 3)]
    marks = SCANNERS["hyperscan"].scan(items, max_hits=200_000).marks
    assert all(marks.get(position, 0) & want for position, want in enumerate(wanted))


FRAGMENTS = [text for texts in SAMPLES.values() for text in texts if len(text) < 200]
pieces = (
    st.sampled_from(FRAGMENTS)
    | st.sampled_from(
        [*"@.+-:/ \"'\\=%é0149aA", "\\n", "\\u0040", "%40", "://", "sk-", "eyJ", "token", "ssn ", "phone ", "iban "]
    )
    | st.text(max_size=4)
    | st.integers(0, 10**19).map(str)
)
texts = st.lists(pieces, max_size=8).map("".join)


@settings(max_examples=100, deadline=None)
@given(texts, st.sampled_from(["k", "phone", "user.ssn", "passport", "nhs_number", "iban", "tel", "dob"]))
def test_whatever_is_found_in_mixed_text_is_marked(text, key):
    data = item(text, key)
    for kind in RULES:
        if found(kind, text, key):
            assert_marked(kind, data)
    if GATE.search(text):
        assert_marked("dob", data)
    if any(True for _ in json_text.members(text, is_secret_key)):
        assert_marked("key_name", data)


@pytest.mark.parametrize("kind", list(secrets.SHAPES))
def test_whatever_the_pattern_of_a_secret_can_produce_is_marked(kind):
    """R-304."""
    pattern = secrets.SHAPES[kind][1]

    @settings(max_examples=25, deadline=None)
    @given(st.from_regex(re.compile(re.sub(r"\(\?<=[^)]*\)", "", pattern), re.A), fullmatch=True))
    def check(text):
        if found(kind, text):
            assert_marked(kind, item(text))

    check()


@settings(max_examples=60, deadline=None)
@given(st.from_regex(finders._CARD, fullmatch=False) | st.from_regex(finders._IBAN_UPPER) | st.from_regex(finders._NANP))
def test_whatever_the_patterns_of_numbers_can_produce_is_marked(text):
    for kind in ("credit_card", "iban", "phone"):
        if found(kind, text):
            assert_marked(kind, item(text))


@settings(max_examples=60, deadline=None)
@given(
    st.from_regex(
        r"\A[a-z]{0,3}[._\-]?(PASSWD|password|Api-Key|apiKey|set-cookie|CVV|card_number|refreshToken|ssn)s?[._\-]?[a-z]{0,3}\Z"
    )
)
def test_every_key_that_names_a_secret_is_marked(key):
    """R-304."""
    if is_secret_key(key):
        assert_marked("key_name", item("anything", key))


def test_numbers_that_could_be_cards_are_marked():
    for value in (2**35, 4222222222222, 4111111111111111, 4000000000000000006, 4111111111111111.0, 4222222222222.0):
        assert_marked("credit_card", item(value))  # type: ignore[arg-type]
        assert_marked("credit_card", item(-value))  # type: ignore[arg-type]


def test_a_number_that_is_written_longer_than_it_need_be_is_marked() -> None:
    card = AnyValue(int_value=4111111111111111).SerializeToString()
    longer = card[:-1] + bytes((card[-1] | 0x80, 0x80, 0))
    assert AnyValue.FromString(longer).int_value == 4111111111111111
    assert_marked("credit_card", longer)


def test_ordinary_spans_are_rarely_marked():
    values = {
        "gen_ai.request.model": "gpt-4o",
        "http.route": "/v1/chat",
        "gen_ai.usage.input_tokens": 1234,
        "llm.temperature": 0.7,
    }
    items = [span("chat", values).SerializeToString() for _ in range(2000)]
    assert len(SCANNERS["hyperscan"].scan(items).marks) < 100
