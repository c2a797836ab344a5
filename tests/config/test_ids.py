from __future__ import annotations

import pytest

from collector.config.ids import id_fault, same_id


@pytest.mark.parametrize(
    ("component_id", "fault"),
    [
        ("otlp", ""),
        ("otlp/a", ""),
        ("otlp/a/b", ""),
        ("otlp/é-2.x", ""),
        ("", "id must not be empty"),
        ("/x", 'in "/x" id: the part before / should not be empty'),
        ("x/", 'in "x/" id: the part after / should not be empty'),
        ("1x", 'invalid character(s) in type "1x"'),
        ("a b", 'invalid character(s) in type "a b"'),
        (" otlp / name", 'invalid character(s) in type " otlp "'),
        ("a" * 64, f'invalid character(s) in type "{"a" * 64}"'),
        ("a/b c", 'invalid character(s) in name "b c"'),
        ("a/b+c", 'invalid character(s) in name "b+c"'),
        ("a/" + "b" * 1025, f'invalid character(s) in name "{"b" * 60}"'),
    ],
)
def test_ids_follow_the_rules_of_otelcol(component_id: str, fault: str) -> None:
    assert id_fault(component_id) == fault


def test_a_reference_means_the_same_component_in_either_spelling() -> None:
    assert same_id("exporters", "otlp_grpc/a", ["otlp/a"]) == "otlp/a"
    assert same_id("exporters", "otlp/a", ["otlp_grpc/a"]) == "otlp_grpc/a"
    assert same_id("exporters", "otlp/a", ["otlp_grpc/a", "otlp/a"]) == "otlp/a"
    assert same_id("exporters", "otlp/a", ["otlp_grpc", "otlp_http/a"]) is None
    assert same_id("extensions", "zpages", ["console"]) == "console"
