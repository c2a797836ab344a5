from __future__ import annotations

from pathlib import Path

import pytest

from collector.catalog import Catalog
from collector.config.load import load
from collector.model import Signal
from tests.config.conftest import BASE, COMPONENTS, Load, codes, lines


def test_a_correct_configuration_is_resolved(load_text: Load) -> None:
    loaded = load_text(
        """
        receivers: {intake/a: , intake/b: {}}
        processors: {redaction: , shape/x: {text: hi}}
        exporters: {otlp/old: {endpoint: "h:4317"}, otlp_grpc/new: {endpoint: "h:4317"}}
        extensions: {lamp: }
        service:
          extensions: [lamp]
          telemetry: {metrics: {level: none}}
          pipelines:
            traces/one: {receivers: [intake/a, intake/b], processors: [redaction, shape/x], exporters: [otlp_grpc/old, otlp/new]}
            logs: {receivers: [intake/a], processors: [redaction], exporters: [otlp/old]}
        """
    )
    assert not loaded.errors
    assert not loaded.warnings
    resolved = loaded.resolved
    assert resolved is not None
    spec = resolved.pipelines["traces/one"]
    assert (spec.id, spec.signal) == ("traces/one", Signal.TRACES)
    assert spec.receivers == ("intake/a", "intake/b")
    assert spec.processors == ("redaction", "shape/x")
    assert spec.exporters == ("otlp/old", "otlp_grpc/new")
    old = resolved.exporters["otlp/old"]
    assert (old.id, old.kind, old.type, old.cls.__name__) == ("otlp/old", "exporters", "otlp_grpc", "OtlpGrpc")
    assert resolved.processors["shape/x"].config.text == "hi"  # type: ignore[attr-defined]
    assert resolved.extensions_on == ("lamp",)
    assert resolved.telemetry.self_metrics() is None
    assert codes(loaded.notes) == ["N201"]
    assert [p.message for p in loaded.notes] == ['"otlp" is the older name of exporter "otlp_grpc"']


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("receivers: {intake", "reciever: {}\nreceivers: {intake", "1:1 C003 configuration has invalid keys: reciever"),
        ("service:", "service:\n  pipeline: {}", "5:3 C003 'service' has invalid keys: pipeline"),
        ("receivers: [intake], p", "recievers: [], receivers: [intake], p", "6:24 C003 'service::pipelines::traces' has invalid keys: recievers"),
        ("{intake: {}}", "[intake]", "1:12 C004 'receivers' expected a mapping"),
        ("{intake: {}}", "{intake: 5}", "1:21 C004 'receivers::intake' expected a mapping"),
        ("receivers: [intake]", "receivers: intake", "6:35 C004 'service::pipelines::traces::receivers' expected a list"),
        ("[redaction, shape]", "[redaction, {shape: 1}]", "6:69 C004 'service::pipelines::traces::processors::1' expected an id"),
        ("traces: {", "spans: {", '6:15 C015 service::pipelines::spans: unknown signal "spans" (valid values: [traces metrics logs])'),
        ("traces: {", "profiles: {", '6:15 C015 service::pipelines::profiles: unknown signal "profiles" (valid values: [traces metrics logs])'),
        ("traces: {", "traces/: {", '6:15 C013 in "traces/" id: the part after / should not be empty'),
        ("exporters: [outlet]", "exporters: []", "6:77 C014 service::pipelines::traces: must have at least one exporter"),
        ("receivers: [intake], ", "", "6:15 C014 service::pipelines::traces: must have at least one receiver"),
        ("exporters: [outlet]", "exporters: [outlt]", '6:89 C011 service::pipelines::traces: references exporter "outlt" which is not configured'),
        ("exporters: [outlet]", "exporters: [outlet, outlet]", '6:97 C012 service::pipelines::traces: references exporter "outlet" multiple times'),
        ("service:", "service:\n  extensions: [lmp]", '5:16 C011 service::extensions: references extension "lmp" which is not configured'),
        ("processors: {redaction: {}", "processors: {/x: {}, redaction: {}", '2:14 C013 in "/x" id: the part before / should not be empty'),
        ("service:", "connectors: {spanmetrics: {}}\nservice:", '4:14 C017 connectors: "spanmetrics" cannot be used: otel-sidecar has no connectors yet'),
        ("shape: {}}", "shape: {}, spans_only: {}}", None),
        ("service:", "connectors: {}\nservice:", None),
        ("service:", "connectors:\nservice:", None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_structure_is_told_at_its_place(load_text: Load, old: str, new: str, error: str | None) -> None:
    assert old in BASE
    assert lines(load_text(BASE.replace(old, new, 1)).errors) == ([error] if error else [])


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("exporters: [outlet]", "exporters: [outlt]", 'did you mean "outlet"? (line 3)'),
        ("[redaction, shape]", "[redaction, outlet]", "it is defined under exporters"),
        ("[redaction, shape]", "[redaction, spans_only]", "define it: processors: {spans_only: {}}"),
        ("{redaction: {}", "{shap: {}, redaction: {}", 'did you mean "shape"?'),
        ("{redaction: {}", "{attributes: {}, redaction: {}", "planned, not there yet: remove it for now"),
        ("{redaction: {}", "{outlet: {}, redaction: {}", "outlet is one of the exporters"),
        ("{redaction: {}", "{qqq: {}, redaction: {}", "`otel-sidecar components` lists all; own ones need --components DIR"),
        ("{intake: {}}", "{intake: {}, hostmetrics: {}}", "otel-sidecar does not have this receiver of otelcol: remove it"),
        ("exporters: {", "exporters: {logging: {}, ", "use debug, its newer name"),
        ("traces: {", "trace: {", 'did you mean "traces"?'),
        ("traces: {", "profiles: {", "profiles need the gate service.profilesSupport in otelcol and are not supported here"),
    ],
)
def test_the_hint_leads_to_the_fix(load_text: Load, old: str, new: str, hint: str) -> None:
    assert load_text(BASE.replace(old, new, 1)).errors[0].hint == hint


def test_an_unknown_type_names_all_valid_values_sorted(load_text: Load) -> None:
    loaded = load_text(BASE.replace("{intake: {}}", "{intake: {}, intaek/1: {}}"))
    types = Catalog([COMPONENTS]).types("receivers")
    assert loaded.errors[0].message == f'unknown type: "intaek" for id: "intaek/1" (valid values: [{" ".join(sorted(types))}])'


def test_a_component_in_a_pipeline_of_a_signal_it_does_not_take_is_an_error(load_text: Load) -> None:
    text = BASE.replace("shape: {}}", "shape: {}, spans_only: {}}").replace("shape]", "spans_only]").replace("traces:", "logs:")
    (problem,) = load_text(text).errors
    assert problem.message == 'service::pipelines::logs: processor "spans_only": telemetry type is not supported'
    assert (problem.code, problem.hint) == ("C016", "it takes traces only")


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["empty configuration file"]),
        ("# nothing", ["empty configuration file"]),
        (
            "extensions: {}",
            [
                "no exporter configuration specified in config",
                "no receiver configuration specified in config",
                "service must have at least one pipeline",
            ],
        ),
        (
            "receivers:\nexporters: {}\nservice: {pipelines: }",
            [
                "no receiver configuration specified in config",
                "no exporter configuration specified in config",
                "service must have at least one pipeline",
            ],
        ),
    ],
)
def test_an_incomplete_configuration_says_what_is_missing(load_text: Load, text: str, messages: list[str]) -> None:
    assert sorted(p.message for p in load_text(text).errors) == sorted(messages)


def test_an_empty_pipeline_says_both_that_is_missing(load_text: Load) -> None:
    text = BASE.replace("{receivers: [intake], processors: [redaction, shape], exporters: [outlet]}", "null")
    assert codes(load_text(text).errors) == ["C014", "C014"]


def test_a_reference_to_a_component_whose_settings_are_wrong_is_no_second_error(load_text: Load) -> None:
    assert codes(load_text(BASE.replace("shape: {}", "shape: {numbr: 1}")).errors) == ["C003"]


def test_a_component_file_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "processors").mkdir(parents=True)
    (folder / "processors" / "broken_by_test.py").write_text("import nothing_of_this_name")
    config = tmp_path / "c.yaml"
    config.write_text(BASE.replace("{redaction: {}", "{broken_by_test: {}, redaction: {}").replace("intake", "otlp"))
    loaded = load([str(config)], catalog=Catalog([folder, COMPONENTS]), environ={})
    assert "C024" in codes(loaded.errors)
    assert "cannot be loaded: ModuleNotFoundError" in next(p.message for p in loaded.errors if p.code == "C024")
