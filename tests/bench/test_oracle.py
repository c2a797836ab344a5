"""The default chain and the plain reference make the same of generated requests, and a difference would be seen."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench import oracle
from bench.naive import Naive


def test_both_agree_on_generated_requests(capsys):
    """R-201, R-401."""
    assert oracle.main(["--requests", "150"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["spans"] > 1000
    assert found["kept"] > 150
    assert found["calls"] > 50


def test_a_difference_in_what_is_kept_masked_or_counted_is_seen(monkeypatch, capsys):
    for name in ("_price", "_sample"):
        with monkeypatch.context() as patch:
            patch.setattr(Naive, name, lambda *_: [])
            assert oracle.main(["--requests", "60"]) == 1
            assert "DIFFERENT" in capsys.readouterr().out


def span(**values):
    out = Span(name="x")
    for key, value in values.items():
        entry = out.attributes.add(key=key.replace("__", "."))
        setattr(entry.value, "double_value" if isinstance(value, float) else "string_value", value)
    return out


def test_masks_of_any_form_are_equal_and_text_around_them_counts():
    before = span(note="to jane.doe@example.com now")
    oracle.compare(before, span(note="to [EMAIL] now"), span(note="to **** now"))
    with pytest.raises(oracle.Different, match="note"):
        oracle.compare(before, span(note="to [EMAIL]now"), span(note="to **** now"))
    with pytest.raises(oracle.Different, match="left"):
        oracle.compare(before, before, before)


def test_costs_are_compared_to_a_millionth_of_a_millionth():
    oracle.compare(span(), span(gen_ai__usage__cost=0.1), span(gen_ai__usage__cost=0.1 + 1e-13))
    for other in (span(), span(gen_ai__usage__cost=0.1 + 1e-11)):
        with pytest.raises(oracle.Different, match="cost"):
            oracle.compare(span(), span(gen_ai__usage__cost=0.1), other)
