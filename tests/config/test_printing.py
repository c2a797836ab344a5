from __future__ import annotations

import json

import yaml

from collector.config.load import Loaded
from collector.config.printing import redacted, text
from tests.config.conftest import BASE, Load

FULL = BASE.replace("shape: {}", 'shape: {key: hunter2, text: "héllo", labels: {api_key: hunter2, x: y}, wait: 5s}').replace(
    '"localhost:4317"}', '"https://user:hunter2@h:4317", headers: {x-any: hunter2, authorization: "${env:S}"}}'
)


def test_secrets_headers_and_passwords_in_addresses_are_masked(load_text: Load) -> None:
    data = redacted(load_text(FULL, env={"S": "hunter2"}))
    assert data["processors"]["shape"] == {"key": "****", "text": "héllo", "labels": {"api_key": "****", "x": "y"}, "wait": "5s"}
    assert data["exporters"]["outlet"] == {
        "endpoint": "https://****@h:4317",
        "headers": {"x-any": "****", "authorization": "****"},
    }
    assert data["service"]["pipelines"]["traces"]["processors"] == ["redaction", "shape"]


def test_both_forms_say_the_same_and_hide_the_same(load_text: Load) -> None:
    data = redacted(load_text(FULL, env={"S": "hunter2"}))
    for form, reader in (("yaml", yaml.safe_load), ("json", json.loads)):
        shown = text(data, form)
        assert reader(shown) == data
        assert "hunter2" not in shown
        assert "héllo" in shown


def test_the_plain_form_shows_values_after_merge_and_expansion(load_text: Load) -> None:
    loaded = load_text(FULL, env={"S": "hunter2"}, sets=["processors.shape.number=0x10"])
    assert loaded.merged["exporters"]["outlet"]["headers"]["authorization"] == "hunter2"
    assert loaded.merged["processors"]["shape"]["number"] == 16


def test_nothing_checked_is_still_masked_by_name() -> None:
    assert redacted(Loaded(None, merged={"a": {"password": "x", "headers": {"h": 1}}, "processors": {"q": {"z": 1}}})) == {
        "a": {"password": "****", "headers": {"h": "****"}},
        "processors": {"q": {"z": 1}},
    }
