"""The processor as a pipeline sees it: what leaves, what is counted, what is refused."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from collector.errors import Refused
from collector.model import Group, Scope, Signal, data_points, open_envelope
from collector.otlp.request import open_request
from collector.processors.redaction import Redaction
from collector.processors.redaction.config import TYPES
from collector.processors.redaction.walk import Walk
from tests.support import REQUEST, any_value, attribute, attributes, batch, build, decode, span, spans_of, traces

CARD = "4111 1111 1111 1111"


def metrics(*points, name="m", **fields):
    request = REQUEST[Signal.METRICS]()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name, **fields)
    for values in points:
        metric.sum.data_points.add(as_int=1, attributes=attributes(values))
    return request


def logs(*bodies, values=None):
    request = REQUEST[Signal.LOGS]()
    records = request.resource_logs.add().scope_logs.add().log_records
    for body in bodies:
        records.add(body=any_value(body), attributes=attributes(values or {}))
    return request


def test_a_request_without_findings_is_the_very_same_batch():
    """R-301 (partly)."""
    given = batch(traces(span("GET /orders", {"http.route": "/orders", "gen_ai.usage.input_tokens": 12})))
    raw = given.raw
    assert build(Redaction).process(given, 0) is given
    assert given.encode() == raw


def test_a_candidate_that_is_none_leaves_the_request_byte_identical():
    given = batch(traces(span("op", {"image": "logo@2x.png", "n": "4111 1111 1111 1112"})))
    raw = given.raw
    out = build(Redaction).process(given, 0)
    assert out is given
    assert out.encode() == raw


def test_only_the_dirty_span_is_encoded_again():
    given = batch(traces(span("clean"), span("dirty", {"to": "anna@example.com"}), span("clean too")))
    before = given.items()
    out = build(Redaction).process(given, 0)
    assert [a is b for a, b in zip(out.items(), before, strict=True)] == [True, False, True]
    assert attribute(spans_of(out)[1], "to") == "[EMAIL]"


def test_all_three_signals_are_on_by_default():
    """R-301 (partly)."""
    processor = build(Redaction)
    assert b"anna@" not in processor.process(batch(traces(span("anna@example.com"))), 0).encode()
    assert b"anna@" not in processor.process(batch(logs("anna@example.com"), Signal.LOGS), 0).encode()
    assert b"anna@" not in processor.process(batch(metrics({"to": "anna@example.com"}), Signal.METRICS), 0).encode()


def test_detections_are_counted_by_type_signal_and_action():
    """R-309."""
    processor = build(Redaction)
    processor.process(batch(logs(f"a@example.com b@example.com {CARD}"), Signal.LOGS), 0)
    assert processor._detections.series() == {
        ("email", "logs", "redact", "sidecar"): 2,
        ("credit_card", "logs", "mask", "sidecar"): 1,
    }


@pytest.mark.parametrize(
    "key", ["authorization", "http.request.header.cookie", "api_key", "x-api-key", "dbPassword", "Set-Cookie"]
)
def test_the_value_under_a_key_that_names_a_secret_goes_whatever_it_is(key):
    """R-304."""
    for value in ("plain words", 7, True, b"\xff\xfe", ["a"], {"a": 1}, 1.5):
        out = spans_of(build(Redaction).process(batch(traces(span("op", {key: value}))), 0))[0]
        assert attribute(out, key) == "[REDACTED]"


@pytest.mark.parametrize(
    "key",
    ["gen_ai.usage.input_tokens", "session.id", "author", "llm.prompt_length", "sources_count", "password_length", "classname"],
)
def test_harmless_keys_and_all_counts_keep_their_value(key):
    """R-312."""
    given = batch(traces(span("op", {key: 4111111111111111, "to": "a@example.com"})))
    want = 4111111111111111 if "length" in key or "count" in key or "tokens" in key else "************1111"
    assert attribute(spans_of(build(Redaction).process(given, 0))[0], key) == want
    text = batch(traces(span("op", {key: "4111111111111111", "to": "a@example.com"})))
    out = attribute(spans_of(build(Redaction).process(text, 0))[0], key)
    assert out == (str(want) if isinstance(want, int) else want)


@pytest.mark.parametrize("name", ["SLACK_WEBHOOK_URL", "PAGERDUTY_API_KEY", "SENTRY_DSN", "SMTP_PASSWORD"])
def test_the_values_of_secret_environment_variables_are_found_anywhere(name, monkeypatch):
    """R-304."""
    monkeypatch.setenv(name, "unlikely words of no shape")
    out = build(Redaction).process(batch(logs("before unlikely words of no shape after"), Signal.LOGS), 0)
    assert decode(out).resource_logs[0].scope_logs[0].log_records[0].body.string_value == "before [SECRET:CONFIGURED] after"


@pytest.mark.parametrize(
    "key",
    ["error", "error_message", "error_details", "error.message", "exception.message", "exception.stacktrace", "task", "key"],
)
def test_error_text_is_scanned_like_content(key):
    """R-307."""
    given = batch(traces(span("op", {key: "no user anna@example.com"})))
    assert attribute(spans_of(build(Redaction).process(given, 0))[0], key) == "no user [EMAIL]"


def test_detect_only_counts_and_changes_nothing():
    """R-313."""
    processor = build(Redaction, {"types": {"email": {"action": "detect_only"}}})
    given = batch(traces(span("op", {"to": "anna@example.com"})))
    raw = given.raw
    assert processor.process(given, 0).encode() == raw
    assert processor._detections.value("email", "traces", "detect_only", "sidecar") == 1


def test_dry_run_counts_everything_and_changes_nothing():
    """R-313."""
    processor = build(Redaction, {"mode": "dry_run", "allow_unredacted": True, "types": {"email": {"action": "drop_record"}}})
    given = batch(traces(span("op", {"to": "anna@example.com", "password": "x"})))
    assert processor.process(given, 0) is given
    assert processor._detections.value("key_name", "traces", "detect_only", "sidecar") == 1
    assert not processor.settings.drop


def test_drop_attribute_removes_attributes_and_marks_what_is_none():
    """R-305."""
    processor = build(Redaction, {"types": {"email": {"action": "drop_attribute"}}})
    out = spans_of(
        processor.process(batch(traces(span("a@example.com", {"to": "a@example.com", "n": {"m": "a@example.com"}}))), 0)
    )[0]
    assert out.name == "[REDACTED]"
    assert [a.key for a in out.attributes] == ["n"]
    assert not out.attributes[0].value.kvlist_value.values
    body = (
        decode(processor.process(batch(logs("a@example.com"), Signal.LOGS), 0)).resource_logs[0].scope_logs[0].log_records[0].body
    )
    assert body.string_value == "[REDACTED]"


def test_drop_record_removes_spans_log_records_and_data_points_and_books_them():
    processor = build(Redaction, {"types": {"email": {"action": "drop_record"}}})
    drops = processor.settings.drop
    out = processor.process(batch(traces(span("keep"), span("op", {"to": "a@example.com"}))), 0)
    assert [s.name for s in spans_of(out)] == ["keep"]
    assert drops[Signal.TRACES, "redacted"] == 1
    assert processor.process(batch(logs("a@example.com"), Signal.LOGS), 0) is None
    given = batch(metrics({"to": "a@example.com"}, {"ok": "x"}, {"to": "b@example.com"}), Signal.METRICS)
    assert processor.process(given, 0).count() == 1
    assert drops[Signal.METRICS, "redacted"] == 2
    assert processor.process(batch(metrics({"to": "a@example.com"}), Signal.METRICS), 0) is None
    assert drops[Signal.METRICS, "redacted"] == 3
    assert processor.process(batch(metrics({}, {}, name="a@example.com"), Signal.METRICS), 0) is None
    assert drops[Signal.METRICS, "redacted"] == 5
    assert processor._dropped.value("metrics") == 5


def test_metrics_know_their_data_points_when_some_of_them_were_dropped():
    processor = build(Redaction, {"types": {"email": {"action": "drop_record"}}})
    request = metrics({"ok": "x"}, {"ok": "y"}, {"ok": "z"})
    for values in ([{"to": "a@example.com"}], [{"to": "b@example.com"}, {"ok": "x"}, {"ok": "y"}]):
        item = metrics(*values).resource_metrics[0].scope_metrics[0].metrics[0]
        request.resource_metrics[0].scope_metrics[0].metrics.append(item)
    opened = open_request(Signal.METRICS, request.SerializeToString()).batch
    assert opened.groups[0].scopes[0].points == [3, 1, 3]
    out = processor.process(opened, 0)
    assert out.groups[0].scopes[0].points == [3, 2]
    assert opened.groups[0].scopes[0].points == [3, 1, 3], "another pipeline may have the same"
    assert out.count() == sum(map(data_points, out.items())) == 5


def test_a_finding_in_an_event_drops_the_span_around_it():
    processor = build(Redaction, {"types": {"email": {"action": "drop_record"}}})
    item = span("op")
    item.events.add(name="sent to a@example.com")
    item.trace_id = b"odd length"
    assert processor.process(batch(traces(item)), 0) is None
    assert processor.settings.drop == {(Signal.TRACES, "redacted"): 1}


def test_an_id_of_odd_length_without_finding_stays():
    item = span("to a@example.com")
    item.trace_id = b"odd length"
    assert spans_of(build(Redaction).process(batch(traces(item)), 0))[0].trace_id == b"odd length"


def test_a_resource_that_asks_for_dropping_takes_its_records_along():
    processor = build(Redaction, {"types": {"email": {"action": "drop_record"}}})
    request = traces(span(), span(), resource={"owner": "a@example.com"})
    request.resource_spans.add().scope_spans.add().spans.add(name="other")
    out = processor.process(batch(request), 0)
    assert [s.name for s in spans_of(out)] == ["other"]
    assert processor.settings.drop == {(Signal.TRACES, "redacted"): 2}


def test_forced_keys_go_and_excluded_keys_are_searched_for_secrets_only():
    """R-305."""
    processor = build(Redaction, {"keys": {"force": ["*.customer_note", "raw"], "exclude": ["k8s.*"]}})
    values = {
        "x.customer_note": "hi",
        "raw": 5,
        "k8s.pod": "a@example.com",
        "k8s.env": "password=hunter22",
        "to": "a@example.com",
    }
    out = spans_of(processor.process(batch(traces(span("op", values))), 0))[0]
    assert attribute(out, "x.customer_note") == attribute(out, "raw") == "[REDACTED]"
    assert attribute(out, "k8s.pod") == "a@example.com"
    assert attribute(out, "k8s.env") == "password=[SECRET:KV_SECRET]"


def test_a_public_client_address_goes_and_a_private_one_stays():
    out = spans_of(build(Redaction).process(batch(traces(span("a", {"client.address": "93.184.216.34"}))), 0))[0]
    assert attribute(out, "client.address") == "[IP]"
    given = batch(traces(span("a", {"client.address": "10.1.2.3", "server.address": "93.184.216.34"})))
    assert build(Redaction).process(given, 0) is given
    off = build(Redaction, {"types": {"client_ip": {"enabled": False}}})
    given = batch(traces(span("a", {"client.address": "93.184.216.34", "to": "a@example.com"})))
    assert attribute(spans_of(off.process(given, 0))[0], "client.address") == "93.184.216.34"


def test_ip_addresses_are_found_everywhere_when_switched_on():
    """R-303."""
    given = batch(traces(span("a", {"note": "from 93.184.216.34 and 2606:2800:220:1:248:1893:25c8:1946"})))
    assert build(Redaction).process(given, 0) is given
    processor = build(Redaction, {"types": {"ip_address": {}}})
    assert attribute(spans_of(processor.process(given, 0))[0], "note") == "from [IP] and [IP]"


@pytest.mark.parametrize("stage", ["decode", "walk", "text"])
def test_a_failure_at_any_stage_never_lets_the_original_through(stage, monkeypatch):
    """R-310."""

    def fail(*_args, **_kwargs):
        raise RuntimeError("anna@example.com")

    processor = build(Redaction)
    given = batch(traces(span("clean"), span("op", {"to": "anna@example.com"})))
    if stage == "decode":
        monkeypatch.setattr("collector.processors.redaction.edit.decode", fail)
    elif stage == "walk":
        monkeypatch.setattr(Walk, "message", fail)
    else:
        monkeypatch.setattr("collector.processors.redaction.findings._exempt", fail)
    out = processor.process(given, 0)
    assert b"anna@" not in out.encode()
    if stage == "text":
        assert attribute(spans_of(out)[1], "to") == "[REDACTED:error]"
    else:
        assert [s.name for s in spans_of(out)] == ["clean"]
        assert processor.settings.drop == {(Signal.TRACES, "redaction_failed"): 1}
    assert sum(processor._fail_closed.series().values()) >= 1


def test_without_any_engine_the_request_is_refused_as_retryable(monkeypatch):
    """R-310."""
    monkeypatch.setattr("collector.otlp.scan._COMPILERS", {})
    processor = build(Redaction)
    with pytest.raises(Refused):
        processor.process(batch(traces(span("a@example.com"))), 0)
    assert processor._fail_closed.value("engine") == 1


def test_an_undecodable_item_or_header_is_dropped_and_counted():
    processor = build(Redaction)
    given = batch(traces(span("keep")))
    given.raw = None
    given.groups[0].scopes[0].items.append(b"\x0a\xffanna@example.com")
    out = processor.process(given, 0)
    assert [s.name for s in spans_of(out)] == ["keep"]
    assert processor.settings.drop == {(Signal.TRACES, "redaction_failed"): 1}
    bad = batch(traces(span()))
    bad.groups = [Group(b"\x0a\xffanna@example.com", [Scope(b"", [span().SerializeToString()])])]
    bad.raw = None
    assert processor.process(bad, 0) is None
    assert processor._fail_closed.value("undecodable") == 2


def test_invalid_utf8_never_switches_redaction_off():
    raw = span("XY anna@example.com", {"to": "anna@example.com"}).SerializeToString().replace(b"XY", b"\xff\xfe")
    given = batch(traces(span()))
    given.groups[0].scopes[0].items[0] = raw
    given.raw = None
    out = spans_of(build(Redaction).process(given, 0))[0]
    assert out.name == "�� [EMAIL]"
    assert attribute(out, "to") == "[EMAIL]"


def test_invalid_utf8_in_a_repeated_text_field_is_repaired_too():
    request = traces(span("a@example.com"))
    request.resource_spans[0].resource.entity_refs.add(id_keys=["XY", "a@example.com"])
    given = batch(request)
    given.groups[0].header = given.groups[0].header.replace(b"XY", b"\xff\xfe")
    given.raw = None
    out = decode(build(Redaction).process(given, 0))
    assert list(out.resource_spans[0].resource.entity_refs[0].id_keys) == ["\ufffd\ufffd", "[EMAIL]"]


def test_a_metric_without_points_costs_no_count_when_it_goes():
    processor = build(Redaction, {"types": {"email": {"action": "drop_record"}}})
    assert processor.process(batch(metrics(name="a@example.com"), Signal.METRICS), 0) is None
    assert not processor.settings.drop


def test_an_empty_value_under_a_secret_key_stays_empty():
    given = batch(traces(span("op", {"password": ""})))
    given.groups[0].scopes[0].items[0] += b"\x4a\x08\x0a\x06secret"
    given.raw = None
    assert build(Redaction).process(given, 0) is given


def test_every_example_of_the_page_loads_and_every_type_is_on_it():
    page = (Path(__file__).parents[3] / "docs" / "redaction.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) >= 3
    for block in blocks:
        Redaction.Config.model_validate(yaml.safe_load(block)["processors"]["redaction"])
    assert [name for name in TYPES if f"`{name}`" not in page] == []


def test_an_edited_item_loses_fields_nobody_can_see_into_and_others_keep_them():
    hidden = b"\xa2\x06\x10anna@example.com"  # field 100
    given = batch(traces(span("clean")))
    given.groups[0].scopes[0].items = [
        span("dirty").SerializeToString() + hidden,
        span("clean").SerializeToString() + b"\xa2\x06\x01x",
    ]
    given.raw = None
    processor = build(Redaction)
    out = processor.process(given, 0)
    assert b"anna@" not in out.encode()
    assert out.items()[1].endswith(b"\xa2\x06\x01x")
    assert processor._unknown.value("traces") == 1


def test_text_in_a_shadowed_duplicate_field_does_not_leave():
    given = batch(traces(span("clean")))
    given.groups[0].scopes[0].items = [b"\x2a\x10anna@example.com" + span("second name wins").SerializeToString()]
    given.raw = None
    out = build(Redaction).process(given, 0)
    assert b"anna@" not in out.encode()
    assert spans_of(out)[0].name == "second name wins"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"allow_all_keys": False}, "allow_all_keys: false is not supported: .*name what must go in keys.force"),
        ({"allowed_keys": ["a"]}, "allowed_keys is not supported: .*name what has to go in keys.force"),
        ({"overrides": []}, "overrides is not supported: .*one of its own"),
        ({"ignored_key_patterns": ["a"]}, "ignored_key_patterns is not supported: .*write them in keys.exclude"),
        ({"blocked_values": ["a(?=b)"]}, "no look-around"),
        ({"blocked_values": ["a*"]}, "matches the empty string"),
        ({"allowed_values": ["("]}, "RE2 syntax"),
        ({"custom": [{"name": "email", "pattern": "x"}]}, "is a built-in type"),
        ({"custom": [{"name": "own", "pattern": "x", "action": "hmac"}]}, "needs pseudonym.key"),
        ({"redact_all_types": True}, "redact_all_types is not supported: .*write scan_numbers: all"),
        ({"hash_function": "md5"}, "hash_function is not supported: .*write default_action: pseudonym"),
        ({"hmac_key": "x" * 32}, "hmac_key is not supported: .*write default_action: pseudonym and pseudonym.key"),
        ({"url_sanitizer": {}}, r"url_sanitizer is not supported: .*write keys.force: \[url.query\]"),
        ({"db_sanitizer": {}}, r"db_sanitizer is not supported: .*write keys.force: \[db.query.text\]"),
        ({"mode": "dry_run"}, "confirm with allow_unredacted"),
        ({"types": {"emial": {}}}, 'unknown type "emial"'),
        ({"types": {"email": {"action": "pseudonym"}}}, "needs pseudonym.key"),
        ({"types": {"secrets": {"action": "mask"}}}, "secrets are replaced as a whole"),
        ({"types": {"jwt": {"action": "hmac"}}}, "secrets are replaced as a whole"),
        ({"types": {"email": {"text": 'a"b'}}}, "JSON would break"),
        ({"keys": {"force": ["**"]}}, "names nothing"),
        ({"summary": "debug"}, "summary: only silent is supported, .*leave it out"),
    ],
)
def test_what_is_not_supported_or_unsafe_is_refused_by_name(config, message):
    with pytest.raises(ValidationError, match=message):
        build(Redaction, config)


def test_unknown_fields_of_the_request_itself_do_not_leave_unseen():
    """R-302."""
    raw = traces(span("op")).SerializeToString()
    for extra in (b"\xfa\x3f\x0eanna@x.example", b"\xfa\x3f\x04abcd"):
        processor = build(Redaction)
        out = processor.process(open_envelope(Signal.TRACES, raw + extra), 0)
        assert out.encode() == raw
        assert processor._unknown.value("traces") == 1
    dry = build(Redaction, {"mode": "dry_run", "allow_unredacted": True})
    assert dry.process(open_envelope(Signal.TRACES, raw + extra), 0).encode() == raw + extra


def test_a_resource_that_comes_in_two_pieces_is_searched_as_one():
    """R-302."""
    first = traces(span("op"), resource={"to": "anna@x.example"}).resource_spans[0].SerializeToString()
    group = first + b"\x0a\x00"
    body = b"\x0a" + bytes([len(group) & 127 | 128, len(group) >> 7]) + group
    out = build(Redaction).process(open_envelope(Signal.TRACES, body), 0)
    assert decode(out).resource_spans[0].resource.attributes[0].value.string_value == "[EMAIL]"


def test_warming_compiles_the_patterns():
    processor = build(Redaction)
    processor.warm()
    assert processor._scanner._search is not None
