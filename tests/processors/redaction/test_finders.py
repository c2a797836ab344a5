"""What is found and what is not: ranges exhaustively, near misses, generated ids, hostile text."""

import base64
import json
import random
import re
import time
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.processors.redaction import finders, secrets
from collector.processors.redaction.config import RedactionConfig

REDACTOR = RedactionConfig.model_validate({"types": {"mac": {}, "ip_address": {}}}).build({})
RULES = {rule.name: rule for rule in REDACTOR.rules}


def spans(kind, text, key=""):
    return [text[a:b] for a, b in RULES[kind].find(text, key)]


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("email", 'mail\\nfoo@x.com"', ["foo@x.com"]),
        ("email", "\\u003cfoo@x.com>", ["foo@x.com"]),
        ("email", "<a.b+c@mail.example.co.uk>, ..d@e.fr", ["a.b+c@mail.example.co.uk", "d@e.fr"]),
        ("email", "logo@2x.png npm i left-pad@1.2.3 @handle a@b", []),
        ("credit_card", "4111111111111111 123", ["4111111111111111"]),
        ("credit_card", "1234 4111 1111 1111 1111 1234", ["4111 1111 1111 1111"]),
        ("credit_card", "4111-1111 1111-1111 4111 11111111 1111", []),
        ("credit_card", "0.4111111111111111 x4111111111111111 41111111111111111111", []),
        ("credit_card", "9111111111111111 4111111111111112", []),
        ("credit_card", "\\n4111111111111111", ["4111111111111111"]),
        ("credit_card", ".4111111111111111", ["4111111111111111"]),
        ("iban", "DE89370400440532013000", ["DE89370400440532013000"]),
        ("iban", "pay GB29 NWBK 6016 1331 9268 19 TODAY", ["GB29 NWBK 6016 1331 9268 19"]),
        ("iban", "DE89370400440532013001 DE8937040044053201300012 ZZ89370400440532013000", []),
        ("iban", "de89370400440532013000", []),
        ("iban", "iban: de89370400440532013000", ["de89370400440532013000"]),
        ("iban", "iban is a word that stands too far away from de89370400440532013000", []),
        ("us_ssn", "536-90-4399 536 90 4399", ["536-90-4399", "536 90 4399"]),
        ("us_ssn", "536-90 4399 000-12-3456 666-12-3456 912-12-3456 536-00-4399 536-90-0000 1-536-90-4399 536-90-4399-1", []),
        ("us_ssn", "zip 536904399", []),
        ("phone", "+49 (151) 234-56789 and 212-555-0187", ["+49 (151) 234-56789", "212-555-0187"]),
        ("phone", "+1.2345678901 +123 ++4915123456789 112-555-0187 1-212-555-0187-9", []),
        ("phone", "mobile 0151 2345678", ["0151 2345678"]),
        ("phone", "mobile 2024-01-02", []),
        ("uk_nhs", "NHS 943 476 5919, 943 476 5918", ["943 476 5919"]),
        ("uk_nhs", "943 476 5919", []),
        ("passport", "passport AB1234567", ["AB1234567"]),
        ("passport", "passport ABCDEFGHI", []),
        ("dob", "date of birth: 02/03/1980", ["02/03/1980"]),
        ("dob", "due 02/03/1980", []),
        ("uk_nino", "NINO AB123456C", ["AB123456C"]),
        ("mac", "00:1b:44:11:3a:b7 00:1b-44:11:3a:b7", ["00:1b:44:11:3a:b7"]),
        ("url_credentials", "postgres://u:p@ss@h/db?x=@", ["p@ss"]),
        ("url_credentials", "redis://:pw@host http://user@host http://host/@x", ["pw"]),
        ("url_credentials", "https://0123456789abcdef0123@o1.ingest.sentry.io/1", ["0123456789abcdef0123"]),
        ("kv_secret", "password=hunter22&user=x", ["hunter22"]),
        ("kv_secret", "password: null secret=${VAULT} token=<token> pwd=**** password=abc", []),
        ("kv_secret", "max_token: 4096 tokens=5000000 token_count: 12345 token: string", []),
        ("kv_secret", "{'api_key': 'a b c d'}", ["a b c d"]),
        ("auth_header", "Authorization: Bearer abcdefghijklmnop", ["abcdefghijklmnop"]),
        ("auth_header", "Basic dXNlcjpwYXNzd29yZA==", ["dXNlcjpwYXNzd29yZA=="]),
        ("auth_header", "basic transformations of tokens token authenticationserver basic ~~~~~~~~~~~~~~~~~", []),
        ("auth_header", "Basic abcdefghijklmnopq", []),
        ("email", "..@example.com .-a@example.com", ["a@example.com"]),
        ("us_ssn", "ssn unknown, this text goes on and on until a number of nine digits: 536904399", []),
        ("uk_nhs", "nhs this text goes on and on until a number of ten digits: 9434765919", []),
        ("ip_address", "10.0.0.1 999.1.1.1 1.2.3 8.8.8.8 ::1", ["8.8.8.8"]),
        ("jwt", "x eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig-_ y", ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig-_"]),
        ("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdW", ["eyJhbGciOiJIUzI1NiJ9.eyJzdW"]),
        ("jwt", "eyJhbGciOiJIUzI1NiJ9.abc eyJxxxxxxxxxxxxx.eyJ eyJhIjoxfQ.eyJ W10.eyJ", []),
        ("private_key", "-----BEGIN RSA PRIVATE KEY-----\nMII", ["-----BEGIN RSA PRIVATE KEY-----\nMII"]),
        ("private_key", '{"k": "-----BEGIN PRIVATE KEY-----\\nMII", "b": 1}', ["-----BEGIN PRIVATE KEY-----\\nMII"]),
        ("private_key", "-----BEGIN PUBLIC KEY----- PRIVATE KEY", []),
        ("openai_key", "sk-" + "a" * 20 + "T3BlbkFJ" + "b" * 20, ["sk-" + "a" * 20 + "T3BlbkFJ" + "b" * 20]),
        ("openai_key", "task-proj-aaaaaaaaaaaaaaaaaaaaaaaa", []),
        ("aws_key", "XAKIAIOSFODNN7EXAMPLE akiaiosfodnn7example", []),
    ],
)
def test_found(kind, text, wanted):
    """R-303 R-304."""
    assert spans(kind, text) == wanted


def test_two_private_keys_are_two_findings():
    pem = "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----"
    assert spans("private_key", f"{pem}\nand {pem}") == [pem, pem]


def test_every_valid_ssn_range_is_found_and_every_invalid_one_is_not():
    for area in range(1000):
        good = area not in (0, 666) and area < 900
        assert bool(spans("us_ssn", f"{area:03d}-12-3456")) is good
    for serial in range(0, 10_000, 7):
        assert bool(spans("us_ssn", f"536-90-{serial:04d}")) is (serial > 0)


def luhn_number(prefix, length, rnd):
    body = prefix + "".join(rnd.choice("0123456789") for _ in range(length - len(prefix) - 1))
    return next(body + check for check in "0123456789" if finders.luhn(body + check))


@pytest.mark.parametrize(
    ("prefix", "length"),
    [("4", 13), ("4", 16), ("4", 19), *((str(p), 16) for p in (51, 55, 2221, 2720, 6011, 644, 649, 65, 3528, 3589)),
     ("34", 15), ("37", 15), ("300", 14), ("305", 14), ("36", 14), ("38", 14)],
)  # fmt: skip
def test_every_brand_is_found_compact_and_grouped(prefix, length):
    rnd = random.Random(prefix)
    for _ in range(30):
        number = luhn_number(prefix, length, rnd)
        assert spans("credit_card", f"card {number}.") == [number]
        cuts = {15: (4, 10), 14: (4, 10)}.get(length, (4, 8, 12, 16))
        grouped = "-".join(number[a:b] for a, b in zip((0, *cuts), (*cuts, length), strict=True) if number[a:b])
        if length != 13:
            assert spans("credit_card", f"({grouped})") == [grouped]


def ids(kind, rnd):
    number = rnd.getrandbits
    return {
        "uuid": lambda: str(uuid.UUID(int=number(128))),
        "trace": lambda: f"{number(128):032x}",
        "span": lambda: f"{number(64):016x}",
        "epoch_ms": lambda: str(rnd.randrange(1_600_000_000_000, 1_900_000_000_000)),
        "epoch_ns": lambda: str(rnd.randrange(1_600_000_000 * 10**9, 1_900_000_000 * 10**9)),
        "iso": lambda: (
            f"20{rnd.randrange(10, 40)}-{rnd.randrange(1, 13):02d}-{rnd.randrange(1, 29):02d}T10:11:12.{number(30)}+02:00"
        ),
        "float": lambda: repr(rnd.random() * 10 ** rnd.randrange(6)),
        "snowflake": lambda: str(rnd.randrange(10**17, 10**18)),
        "base64": lambda: base64.b64encode(rnd.randbytes(60)).decode(),
        "agent": lambda: (
            f"Mozilla/5.0 (X11) Chrome/{rnd.randrange(140)}.0.{rnd.randrange(9999)}.{rnd.randrange(300)} Safari/537.36"
        ),
        "embedding": lambda: json.dumps([rnd.gauss(0, 1) for _ in range(4)]),
        "model": lambda: f"gpt-4o-2024-0{rnd.randrange(1, 9)}-0{rnd.randrange(1, 9)}",
        "chat": lambda: f"chatcmpl-{number(140):036x}",
        "call": lambda: f"call_{rnd.randrange(10**15, 10**16)}",
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    "uuid trace span epoch_ms epoch_ns iso float snowflake base64 agent embedding model chat call".split(),  # noqa: SIM905
)
def test_generated_ids_are_left_alone(kind):
    """At most one in 10,000."""
    rnd = random.Random(kind)
    hits = [text for text in (ids(kind, rnd) for _ in range(3000)) if REDACTOR.text(text) != text]
    assert len(hits) <= 1, hits[:5]


def test_random_numbers_of_16_digits_are_taken_for_cards_no_more_often_than_luhn_allows():
    rnd = random.Random(7)
    hits = sum(bool(spans("credit_card", str(rnd.randrange(10**15, 10**16)))) for _ in range(8000))
    assert hits / 8000 < 0.032


@pytest.mark.parametrize(
    "kind", ["openai_key", "anthropic_key", "gcp_key", "hf_token", "github_token", "aws_key", "langfuse_key"]
)
def test_near_misses_of_a_secret_are_no_secret(kind):
    misses = {
        "openai_key": ["sk-proj-short", "sk-" + "a" * 47, "SK-proj-" + "a" * 30, "sk_proj_" + "a" * 30],
        "anthropic_key": ["sk-ant-api03-short", "sk-ant-foo03-" + "a" * 40, "sk-ant-api-" + "a" * 40],
        "gcp_key": ["AIza" + "a" * 34, "AIza" + "a" * 36, "aIza" + "a" * 35],
        "hf_token": ["hf_" + "a" * 29, "hf_" + "a" * 41],
        "github_token": ["ghp_" + "a" * 35, "ghx_" + "a" * 36, "github_pat_" + "a" * 81],
        "aws_key": ["AKIA" + "A" * 15, "AKIA" + "A" * 17, "AKIA" + "1" * 16, "AXIA" + "A" * 16],
        "langfuse_key": ["sk-lf-0123", "xk-lf-01234567-89ab-cdef-0123-456789abcdef"],
    }
    assert [text for text in misses[kind] if spans(kind, f" {text} ")] == []


HOSTILE = [
    *(unit * (20_000 // len(unit)) for unit in (
        "1", "4", "1 ", "4111 ", "+1 1 1", "AB12", "DE89 3704 0044 ", "a@b.co ", "a@", "@a.", "a.", "://a", "://a:b@", "sk-xoxb-ghp_eyJ", "eyJ-",
        "eyJ.", "eyJhbGciOiJIUzI1NiJ9.eyJ.", "-----BEGIN PRIVATE KEY-----", "BEGIN RSA PRIVATE KEY", "password=", "token : ", "ssn 1", "phone 1-",
        '"password":[', '\\"', "{", "bearer ", "basic aaaa", "%40", "\\u0040", "12-34-", "born 1/1/", "0.123,", "nhs 1",
    )),
    base64.b64encode(random.Random(1).randbytes(15_000)).decode(),
]  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in RULES if kind not in ("key_name", "client_ip")])
def test_no_text_makes_a_finder_slow(kind):
    """Every finder is about linear: 20 KB of hostile text cost milliseconds; what is quadratic takes seconds (the bound leaves room for a tracer)."""
    for text in HOSTILE:
        began = time.process_time()
        list(RULES[kind].find(text, ""))
        assert time.process_time() - began < 0.6, (kind, text[:30])


def test_no_text_makes_the_whole_redactor_slow():
    for text in HOSTILE:
        began = time.process_time()
        REDACTOR.text(text)
        assert time.process_time() - began < 3, text[:30]


def test_literals_are_found_the_longest_first():
    find = secrets.literal_finder(["abc", "abcdef"])
    assert list(find("xabcdefx abc", "")) == [(1, 7), (9, 12)]


_pieces = st.sampled_from(
    ["@", ".eyJ", "eyJhbGciOiJIUzI1NiJ9", "://u:pw@h.example", "PRIVATE KEY-----", "-----BEGIN ", "sk-", "ghp_", "a" * 40, "hf_", "AKIA",
     "AIza", " ", ".", "x@y.example", "4111111111111111", "_live_", "xox", "b-", "Q~", "AccountKey=", "sk-ant-api03-", "pk-lf-"]
)  # fmt: skip


@given(st.lists(_pieces, max_size=8).map("".join))
@settings(max_examples=300, deadline=None)
def test_a_text_without_what_a_rule_needs_holds_no_finding(text):
    for rule in RedactionConfig().rules():
        if rule.needs and not any(word in text for word in rule.needs):
            assert not list(rule.find(text, "key")), rule.name


def test_what_a_rule_needs_is_known_of_those_that_are_awake_alone_most_often():
    needs = {rule.name: rule.needs for rule in RedactionConfig().rules()}
    assert needs["email"] == ("@",)
    assert needs["url_credentials"] == ("://",)
    assert needs["key_name"] == needs["credit_card"] == ()


@given(st.text("ab.%+- é_\n", max_size=80))
def test_the_local_part_of_an_address_is_what_a_search_from_the_left_would_find(before):
    text = f"{before}@example.com"
    expected = re.search(r"[\w%+\-.]{1,64}\Z", text[max(0, len(before) - 64) : len(before)])
    local = expected[0].lstrip(".-+%") if expected else ""
    assert list(finders.email(text, "")) == ([(len(before) - len(local), len(text))] if local else [])
