"""Every component of the catalogue keeps the contract of component.py before its own tests count."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from collector.catalog import KINDS, Catalog
from collector.component import ALL_SIGNALS, Exporter, Processor
from collector.errors import SendError
from collector.fields import described
from collector.model import Batch, Payload, Signal
from tests.support import REQUEST, any_value, attributes, batch, settings, span, traces

ROOT = Path(__file__).parents[2]
CATALOG = Catalog()
COMPONENTS = [(kind, name) for kind in KINDS for name in CATALOG.types(kind)]
PROCESSORS = [name for kind, name in COMPONENTS if kind == "processors"]
EXPORTERS = [name for kind, name in COMPONENTS if kind == "exporters"]


def example(kind: str, name: str) -> dict[str, Any]:
    """The `Example:` block of a component's module docstring."""
    text = inspect.getdoc(CATALOG.module(kind, name)) or ""
    assert "Example:" in text, f"{kind}/{name}: the module docstring has no Example: block"
    block = text.split("Example:", 1)[1].splitlines()[1:]
    kept = []
    for line in block:
        if line.strip() and not line.startswith(" "):
            break
        kept.append(line)
    return yaml.safe_load(textwrap.dedent("\n".join(kept))) or {}


def make(kind: str, name: str) -> Any:
    cls = CATALOG.load(kind, name)
    return cls(cls.Config.model_validate(example(kind, name)), settings(name))


def models(model: type[BaseModel], seen: set[type[BaseModel]] | None = None) -> set[type[BaseModel]]:
    """A settings model and all models inside its fields."""
    import typing

    seen = set() if seen is None else seen
    if model in seen:
        return seen
    seen.add(model)

    def inside(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            models(kind, seen)
        for argument in typing.get_args(kind):
            inside(argument)

    for field in model.model_fields.values():
        inside(field.annotation)
    return seen


def requests() -> dict[Signal, Any]:
    logs, metrics = REQUEST[Signal.LOGS](), REQUEST[Signal.METRICS]()
    record = logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=10**18, severity_number=9)
    record.body.CopyFrom(any_value("hello"))
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.gauge.data_points.add(as_int=1, time_unix_nano=10**18)
    start = 1_790_000_000_000_000_000
    ids = [bytes([n]) * 16 for n in range(1, 6)]
    spans = [span("op", {"k": n}, trace=trace, span_id=trace[:8], start=start, error=n == 2) for n, trace in enumerate(ids)]
    return {Signal.TRACES: traces(*spans), Signal.LOGS: logs, Signal.METRICS: metrics}


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_the_first_line_of_the_docstring_is_a_sentence_that_summarises(kind: str, name: str) -> None:
    first = (inspect.getdoc(CATALOG.module(kind, name)) or "").splitlines()[0]
    assert 20 <= len(first) <= 130


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_setting_is_described(kind: str, name: str) -> None:
    missing = [
        f"{model.__name__}.{key}"
        for model in models(CATALOG.load(kind, name).Config)
        for key, field in model.model_fields.items()
        if not (field.description or described(model).get(key))
    ]
    assert missing == []


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_the_example_loads(kind: str, name: str) -> None:
    make(kind, name)


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_unknown_settings_are_refused(kind: str, name: str) -> None:
    for model in models(CATALOG.load(kind, name).Config):
        assert model.model_config.get("extra") == "forbid", model


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_test_file_of_the_same_name_exists(kind: str, name: str) -> None:
    folder = ROOT / "tests" / kind
    assert (folder / f"test_{name}.py").exists() or list((folder / name).glob("test_*.py")), f"tests/{kind}/test_{name}.py"


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_loading_a_component_imports_no_client_library(kind: str, name: str) -> None:
    """Heavy libraries are for `start()` or the first use: `validate` must not pay for them."""
    import subprocess

    heavy = {"grpc", "aiohttp", "genai_prices", "hyperscan", "re2", "rich", "zstandard"}
    code = (
        f"import sys; from collector.catalog import Catalog; Catalog().load({kind!r}, {name!r});"
        f"print(*sorted(m for m in {heavy!r} if m in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert found == []


@pytest.mark.parametrize(("name", "signal"), [(n, s) for n in PROCESSORS for s in sorted(CATALOG.load("processors", n).signals)])
def test_a_processor_gives_the_same_for_the_same_input_and_time_and_accounts_for_every_item(name: str, signal: Signal) -> None:
    request = requests()[signal]
    seen = []
    for _ in range(2):
        processor: Processor = make("processors", name)
        given = batch(request, signal)
        count = given.count()
        out = processor.process(given, 1_790_000_001.0)
        passed = out.count() if out else 0
        drops = sum(processor.settings.drop.values())  # type: ignore[attr-defined]
        assert count == passed + drops + processor.held()
        rest = processor.drain()
        seen.append((out.encode() if out else b"", rest.encode() if rest else b""))
        assert processor.held() == 0
        assert count == passed + (rest.count() if rest else 0) + sum(processor.settings.drop.values())  # type: ignore[attr-defined]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_bears_an_empty_batch_and_a_tick_before_any_data(name: str) -> None:
    processor: Processor = make("processors", name)
    signal = next(iter(CATALOG.load("processors", name).signals))
    out = processor.process(Batch(signal, []), 0.0)
    assert out is None or out.count() == 0
    assert processor.tick(0.0) is None
    assert processor.drain() is None


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processor_uses_no_clock_socket_or_event_loop(name: str) -> None:
    module = Path(str(CATALOG.module("processors", name).__file__))
    files = module.parent.rglob("*.py") if module.name == "__init__.py" else [module]
    for path in files:
        imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
        assert not imported & {"asyncio", "socket", "time", "aiohttp", "grpc"}, path


@pytest.mark.parametrize("name", EXPORTERS)
async def test_an_exporter_leaves_the_payload_unchanged_and_can_be_stopped_twice(
    name: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    exporter: Exporter = make("exporters", name)
    await exporter.start()
    try:
        for signal in sorted(CATALOG.load("exporters", name).signals & ALL_SIGNALS):
            data = requests()[signal].SerializeToString()
            payload = Payload(signal, bytes(data), 1)
            with contextlib.suppress(SendError, TimeoutError):  # no backend listens here
                async with asyncio.timeout(2):
                    await exporter.send(payload)
            assert payload.data == data
    finally:
        await exporter.stop()
        await exporter.stop()


def test_a_component_is_found_by_its_file_name_and_old_spelling() -> None:
    assert CATALOG.resolve("exporters", "otlp") == CATALOG.resolve("exporters", "otlp_grpc") == "otlp_grpc"
    assert CATALOG.resolve("exporters", "otlphttp") == "otlp_http"
    assert CATALOG.resolve("exporters", "nothing") is None


def test_the_builders_of_these_requests_cover_all_signals() -> None:
    assert set(requests()) == set(Signal)
    assert attributes({"a": 1})[0].key == "a"
