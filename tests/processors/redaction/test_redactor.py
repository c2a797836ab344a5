"""One text at a time: actions, overlaps, escaped views, pseudonyms, floods; and what settings accept."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collector.model import Signal
from collector.processors.redaction import Redaction
from collector.processors.redaction import redactor as redactor_module
from collector.processors.redaction.actions import Pseudonyms, masked, normalise
from collector.processors.redaction.config import RedactionConfig
from collector.processors.redaction.redactor import Redactor, Report
from collector.processors.redaction.views import TooDeep, back, views
from tests.processors.redaction.test_prefilter import SAMPLES, texts
from tests.support import REQUEST, any_value, attribute, batch, build, decode, span, spans_of, traces

KEY = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
REDACTOR = RedactionConfig().build({})


def redactor(**config: object) -> Redactor:
    return RedactionConfig.model_validate(config).build({})


def one(action: str, kind: str = "email", **options: object) -> Redactor:
    return redactor(types={kind: {"action": action, **options}}, pseudonym={"key": KEY})


def test_the_default_forms():
    """R-305."""
    text = "a@example.com 4111-1111-1111-1111 DE89370400440532013000 536-90-4399 +4915123456789 AKIAIOSFODNN7EXAMPLE"
    wanted = "[EMAIL] ****-****-****-1111 DE89****************** [SSN] [PHONE] [SECRET:AWS_KEY]"
    assert REDACTOR.text(text) == wanted


def test_the_mask_of_the_first_four_and_a_tail():
    """R-305."""
    assert one("mask", keep_first=4, tail="***").text("x anna.smith@example.com") == "x anna***"
    assert one("mask", keep_last=3).text("anna@example.com") == "*************com"


def test_a_mask_never_shows_more_than_half():
    assert masked("abcd", 16, 16, "") == "ab**"
    assert masked("ab-cd", 0, 16, "") == "**-cd"
    assert masked("a", 4, 4, "") == "*"
    assert masked("abcdef", 0, 0, "***") == "***"


def test_own_text_for_a_type_and_a_default_action():
    assert redactor(types={"email": {"text": "***"}}).text("to a@example.com") == "to ***"
    assert redactor(default_action="mask").text("to a@example.com") == "to *************"


def test_allowed_values_pass_and_only_they():
    both = redactor(types={"email": {"allow": ["*@example.com"]}})
    assert both.text("a@example.com b@example.org") == "a@example.com [EMAIL]"


def test_switched_off_types_pass_and_one_type_overrides_its_group():
    both = redactor(types={"secrets": {"enabled": False}, "aws_key": {"text": "[GONE]"}})
    assert both.text("AKIAIOSFODNN7EXAMPLE password=hunter22") == "[GONE] password=hunter22"


def test_pseudonyms_are_the_same_in_all_signals_and_processes():
    """R-305."""
    config = {"types": {"email": {"action": "hmac"}, "credit_card": {"action": "pseudonym"}}, "pseudonym": {"key": KEY}}
    seen = set()
    for text in ("Anna@Example.com", "anna@example.com", "anna%40example.com"):
        out = build(Redaction, config).process(batch(traces(span("op", {"to": text}))), 0)
        seen.add(attribute(spans_of(out)[0], "to"))
    logs = REQUEST[Signal.LOGS]()
    logs.resource_logs.add().scope_logs.add().log_records.add(body=any_value("ANNA@example.com"))
    seen.add(
        decode(build(Redaction, config).process(batch(logs, Signal.LOGS), 0))
        .resource_logs[0]
        .scope_logs[0]
        .log_records[0]
        .body.string_value
    )
    metrics = REQUEST[Signal.METRICS]()
    metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m", description="anna@example.com")
    out = decode(build(Redaction, config).process(batch(metrics, Signal.METRICS), 0))
    seen.add(out.resource_metrics[0].scope_metrics[0].metrics[0].description)
    assert len(seen) == 1
    assert next(iter(seen)).startswith("<email:")
    both = one("pseudonym", "credit_card")
    assert both.text("4111111111111111") == both.text("4111 1111 1111 1111") != one("pseudonym").text("a@example.com")


def test_pseudonyms_depend_on_key_type_and_algorithm_and_are_never_all_digits():
    first, other = Pseudonyms(b"k" * 32), Pseudonyms(b"o" * 32)
    tokens = {
        first.token("email", "a"),
        first.token("phone", "a"),
        other.token("email", "a"),
        Pseudonyms(b"k" * 32, algorithm="hmac-sha256").token("email", "a"),
    }
    assert len(tokens) == 4
    short = Pseudonyms(b"k" * 32, digits=8)
    assert not any(short.token("email", str(n)).split(":")[1][:-1].isdigit() for n in range(3000))
    assert first.key_id != other.key_id
    assert len(first.key_id) == 4


def test_values_are_normalised_before_hashing():
    pairs = [
        ("us_ssn", "536-90 4399", "536904399"),
        ("phone", "+49 (1) 5", "+4915"),
        ("iban", "de89 37", "DE8937"),
        ("dob", "1.1.80", "1.1.80"),
    ]
    assert [normalise(kind, value) for kind, value, _ in pairs] == [wanted for _, _, wanted in pairs]


@pytest.mark.parametrize("algorithm", ["blake2b", "hmac-sha256"])
def test_the_key_may_come_from_a_private_file(tmp_path, algorithm):
    file = tmp_path / "key"
    file.write_text("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=\n")
    file.chmod(0o600)
    config = {
        "types": {"email": {"action": "pseudonym"}},
        "pseudonym": {"key_file": str(file), "algorithm": algorithm, "digest_chars": 8},
    }
    assert len(redactor(**config).text("a@example.com")) == len("<email:01234567>")
    file.chmod(0o644)
    with pytest.raises(ValidationError, match="chmod 600"):
        redactor(**config)
    with pytest.raises(ValidationError, match="No such file"):
        redactor(types={"email": {"action": "pseudonym"}}, pseudonym={"key_file": "/nowhere/key"})


@pytest.mark.parametrize(("key", "message"), [("zz", "neither hexadecimal nor base64"), ("00ff", "has 2 bytes, at least 32")])
def test_an_unusable_key_is_refused_and_not_shown(key, message):
    with pytest.raises(ValidationError, match=message):
        redactor(types={"email": {"action": "pseudonym"}}, pseudonym={"key": key})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("?to=anna%40example.com&x=1", "?to=[EMAIL]&x=1"),
        ("?to=anna%2540example.com&x=1", "?to=[EMAIL]&x=1"),
        ('{"to": "anna\\u0040example.com"}', '{"to": "[EMAIL]"}'),
        ('{"j": "{\\"to\\": \\"anna\\\\u0040example.com\\"}"}', '{"j": "{\\"to\\": \\"[EMAIL]\\"}"}'),
        ("c=4111%201111%201111%201111", "c=**** **** **** 1111"),
        ("tel=%2B4915123456789", "tel=[PHONE]"),
        ("password%3Dhunter22", "password%3D[SECRET:KV_SECRET]"),
        ("postgres%3A%2F%2Fu:pw@h", "postgres%3A%2F%2Fu:[SECRET:URL_CREDENTIALS]@h"),
        ("https:\\/\\/u:pw@h\\/x", "https:\\/\\/u:[SECRET:URL_CREDENTIALS]@h\\/x"),
        ("100%25 harmless", "100%25 harmless"),
        ("a%25252540b", "[REDACTED:depth]"),
    ],
)  # fmt: skip
def test_escaped_text_is_found_and_the_raw_text_edited(text, wanted):
    assert REDACTOR.text(text) == wanted


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["%40", "%2540", "\\u0041", "\\\\u0041", "\\/", "a", "é", "%", "\\", "%zz"]), max_size=12).map(
        "".join
    )
)
def test_offsets_of_views_lead_back_to_whole_escapes(raw):
    try:
        found = views(raw)
    except TooDeep:
        return
    for decoded, chain in found:
        spans = [back(chain, i, i + 1) for i in range(len(decoded))]
        assert [a for a, _ in spans[1:]] == [b for _, b in spans[:-1]]
        assert (spans[0][0], spans[-1][1]) == (0, len(raw))
        assert back(chain, 0, len(decoded)) == (0, len(raw))


@settings(max_examples=100, deadline=None)
@given(texts)
def test_a_second_pass_changes_nothing(text):
    once = REDACTOR.text(text)
    assert REDACTOR.text(once) == once


@settings(max_examples=60, deadline=None)
@given(texts)
def test_a_second_pass_over_pseudonyms_and_masks_changes_nothing(text):
    for both in (redactor(default_action="pseudonym", pseudonym={"key": KEY}), redactor(default_action="mask")):
        once = both.text(text)
        assert both.text(once) == once


def test_text_never_raises_and_never_returns_what_it_cannot_judge(monkeypatch):
    """R-310."""
    assert one("drop_attribute").text("a@example.com") == "[REDACTED]"
    assert one("drop_record").label("a@example.com") == "[REDACTED]"
    monkeypatch.setattr("collector.processors.redaction.redactor.views", lambda text: 1 / 0)
    assert REDACTOR.text("%") == "[REDACTED:error]"
    assert REDACTOR.text("") == ""


def test_values_of_secret_variables_shorter_than_six_characters_are_no_literals():
    found = RedactionConfig().build({"SMTP_PASSWORD": "smtp!", "SENTRY_DSN": "plain text dsn"})
    assert found.text("smtp! plain text dsn") == "smtp! [SECRET:CONFIGURED]"


def test_remembered_names_are_bounded_and_clean(monkeypatch):
    both = redactor()
    for number in range(5000):
        both.name(f"key.{number}", Report())
    both.name("anna@example.com", Report())
    both.name("k" * 101, Report())
    assert 0 < len(both._clean_names) <= 4096
    assert not {"anna@example.com", "k" * 101} & both._clean_names


def test_the_memory_of_masks_is_bounded():
    both = redactor()
    for mask in range(1, 600):
        both.edit("some text", "", mask, Report())
    assert len(both._selected) <= 256
    assert len(both._needs) <= 256


def test_the_memory_of_keys_that_force_a_rule_is_bounded_and_right():
    both = redactor()
    for number in range(5000):
        assert both.forced(f"key.{number}") is None
    for _ in range(2):
        assert both.forced("db.password").name == "key_name"
        assert both.forced("k" * 101) is None
    assert 0 < len(both._forced) <= 4096
    assert "k" * 101 not in both._forced


def log_lines(*bodies):
    request = REQUEST[Signal.LOGS]()
    for body in bodies:
        request.resource_logs.add().scope_logs.add().log_records.add(body=any_value(body))
    return batch(request, Signal.LOGS)


def bodies_of(out):
    return [g.scope_logs[0].log_records[0].body.string_value for g in decode(out).resource_logs]


def test_a_flood_of_numbers_is_searched_within_the_budget_and_harmless_ones_survive():
    rnd = random.Random(5)
    floats = ", ".join(f"{rnd.gauss(0, 1):.17f}" for _ in range(4_000))
    processor = build(Redaction)
    out = processor.process(log_lines("clean", floats, "a@example.com " + floats), 0)
    assert bodies_of(out) == ["clean", floats, "[EMAIL] " + floats]
    assert processor._floods.value("logs") == 2
    assert processor._fail_closed.value("budget") == 0


def test_a_flood_beyond_the_budget_is_replaced_not_passed_on():
    """R-310."""
    cards = "4111 1111 1111 1111, " * 40_000
    processor = build(Redaction)
    out = processor.process(log_lines("clean", cards), 0)
    assert bodies_of(out) == ["clean", "[REDACTED:budget]"]
    assert processor._fail_closed.value("budget") == 1


def test_many_findings_within_the_budget_are_all_redacted():
    cards = "4111 1111 1111 1111, " * 3000
    out = build(Redaction).process(log_lines(cards), 0)
    assert bodies_of(out) == ["**** **** **** 1111, " * 3000]


def test_the_word_in_the_key_counts_in_a_flood_too():
    processor = build(Redaction, {"limits": {"max_hits": 10}})
    text = "536-90-43999 " * 60 + "5550123"
    out = spans_of(processor.process(batch(traces(span("op", {"phone": text}))), 0))[0]
    assert processor._floods.value("traces") == 1
    assert attribute(out, "phone").endswith("[PHONE]")


def test_values_nested_too_deep_are_replaced():
    """R-310."""
    value: object = "deep"
    for _ in range(20):
        value = [value]
    kvlist: object = "deep"
    for _ in range(20):
        kvlist = {"k": kvlist}
    processor = build(Redaction)
    out = spans_of(processor.process(batch(traces(span("a@example.com", {"list": value, "map": kvlist}))), 0))[0]
    assert str(out).count("[REDACTED:depth]") == 2
    assert "deep" not in str(out)
    assert processor._fail_closed.value("depth") == 2


def test_numbers_are_looked_at_as_configured():
    values = {
        "card": 4111111111111111,
        "phone": 5550123,
        "n": 5550123,
        "to": "a@example.com",
        "nan": float("nan"),
        "inf": float("inf"),
        "half": 0.5,
    }
    given = lambda: batch(traces(span("op", values)))  # noqa: E731
    large = spans_of(build(Redaction).process(given(), 0))[0]
    assert attribute(large, "card") == "************1111"
    assert attribute(large, "phone") == "[PHONE]"
    assert attribute(large, "n") == 5550123
    everything = spans_of(build(Redaction, {"scan_numbers": "all"}).process(given(), 0))[0]
    assert attribute(everything, "phone") == "[PHONE]"
    assert attribute(everything, "half") == 0.5
    nothing = spans_of(build(Redaction, {"scan_numbers": "off"}).process(given(), 0))[0]
    assert attribute(nothing, "card") == 4111111111111111
    assert attribute(nothing, "phone") == 5550123


def test_a_secret_in_capitals_and_brackets_is_no_marker_of_ours():
    """R-304."""
    assert attribute(
        spans_of(build(Redaction).process(batch(traces(span("op", {"password": "[HUNTER]"}))), 0))[0], "password"
    ) == ("[REDACTED]")


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ("password=hunter22,a=b", "a=b"),
        ("a=b,bearer=abcdefghijklmnop1", "a=b"),
        ("ot=th:8,b=redis://u:pa,ss@host", "ot=th:8"),
        ("ot=th:8;rv:30569309025904;p:8;x:a@example.com,c=d", "ot=th:8;rv:30569309025904;p:8,c=d"),
        ("plain", "plain"),
    ],
)
def test_a_finding_across_parts_of_trace_state_drops_them(state, wanted):
    """R-302."""
    item = span("op", {"to": "a@example.com", "u": "redis://:pw@h", "k": "password=abcd Bearer abcdefghijklmnop"})
    item.trace_state = state
    assert spans_of(build(Redaction).process(batch(traces(item)), 0))[0].trace_state == wanted


def test_a_key_with_a_finding_stays_unique():
    """R-302."""
    out = spans_of(
        build(Redaction).process(batch(traces(span("op", {"a@example.com": 1, "b@example.com": 2, "c@example.com": 3}))), 0)
    )[0]
    assert [a.key for a in out.attributes] == ["[EMAIL]", "[EMAIL]#2", "[EMAIL]#3"]


def test_trace_state_keeps_sampling_numbers_and_loses_members_named_after_people():
    item = span("op")
    item.trace_state = "ot=th:8;rv:4111111111111111,a@example.com=1,v=b@example.com,w=1"
    out = spans_of(build(Redaction).process(batch(traces(item)), 0))[0]
    assert out.trace_state == "ot=th:8;rv:4111111111111111,v=[EMAIL],w=1"


def test_iban_in_any_case_when_asked_for():
    assert REDACTOR.text("de89370400440532013000") == "de89370400440532013000"
    assert redactor(types={"iban": {"any_case": True}}).text("de89370400440532013000") == "de89******************"
    out = build(Redaction, {"types": {"iban": {"any_case": True}}}).process(log_lines("de89370400440532013000"), 0)
    assert bodies_of(out) == ["de89******************"]


def test_every_sample_of_every_default_type_is_changed():
    """R-303 R-304."""
    for kind, samples in SAMPLES.items():
        for text in samples if kind not in ("ip_address", "mac") else ():
            assert REDACTOR.text(f" {text} ") != f" {text} ", text


@pytest.mark.parametrize("passes", [0, 1])
def test_a_text_that_never_becomes_clean_does_not_leave(passes, monkeypatch):
    """R-310 (partly)."""
    monkeypatch.setattr(redactor_module, "PASSES", passes)
    monkeypatch.setattr(redactor_module, "spliced", lambda text, *_: text)
    report = Report()
    assert REDACTOR.edit("to a@example.com", "k", REDACTOR.masks.all, report) == "[REDACTED:error]"
    assert report.failures["error"] == 1


def test_a_text_that_is_clean_after_the_last_pass_leaves(monkeypatch):
    monkeypatch.setattr(redactor_module, "PASSES", 1)
    assert REDACTOR.text("to a@example.com") == "to [EMAIL]"


@settings(max_examples=200, deadline=None)
@given(texts, st.sampled_from(["k", "phone", "usage.tokens"]), st.integers(0, REDACTOR.masks.all), st.booleans())
def test_searches_that_are_left_out_would_have_found_nothing(text, key, some, all_awake):
    """What a text must hold for a finding is asked before each search, and for our own markers."""
    mask, report, thorough = REDACTOR.masks.all if all_awake else some, Report(), Report()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Redactor, "_rules_out", lambda *_: False)
        patch.setattr(Redactor, "_markers", lambda self, text: [m.span() for m in self._marker.finditer(text)])
        expected = REDACTOR.edit(text, key, mask, thorough)
    assert REDACTOR.edit(text, key, mask, report) == expected
    assert report == thorough


@pytest.mark.parametrize("own", ["{}", "x", ""])
def test_own_markers_are_known_whatever_they_begin_with(own):
    both = redactor(types={"email": {"text": own}, "us_ssn": {}})
    assert both.text(f"a@example.com {own} [SSN] <email:0123456789abcdef>").count("[SSN]") == 1
    assert both._markers(f"{own} y") == ([(0, len(own))] if own else [])
