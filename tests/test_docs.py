"""Documentation that can be executed or compared is; nothing else is trusted."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import collector
from collector.catalog import KINDS, Catalog
from collector.config.load import load
from collector.model import Signal
from tests.support import batch, settings, span, spans_of, traces

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for folder in (ROOT, ROOT / "docs", ROOT / "deploy", ROOT / "collector") for path in folder.rglob("*.md") if ".venv" not in path.parts and "node_modules" not in path.parts)  # fmt: skip
CONFIGS = [
    (page, block)
    for page in PAGES
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S)
    if re.search(r"^service:", block, re.M)
]


def own_component(folder: Path) -> Path:
    """The component of docs/own-component.md, saved where the page says."""
    (folder / "processors").mkdir(exist_ok=True)
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/own-component.md").read_text(), re.M | re.S)
    (folder / "processors" / "drop_health_checks.py").write_text(code)
    return folder


def test_generated_files_are_fresh():
    """Rooms picture, reference, schema, error codes, requirements."""
    done = subprocess.run([sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("page", "text"), CONFIGS, ids=[f"{p.relative_to(ROOT)}-{n}" for n, (p, _) in enumerate(CONFIGS)])
def test_every_configuration_in_the_documentation_loads(page, text, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    loaded = load([str(file)], catalog=Catalog([own_component(tmp_path)]), environ={}, relax_unset_env=True)
    assert loaded.resolved is not None, "\n".join(problem.render() for problem in loaded.errors)


def test_the_example_component_works_as_the_page_says(tmp_path):
    cls = Catalog([own_component(tmp_path)]).load("processors", "drop_health_checks")
    processor = cls(cls.Config(), settings())
    out = processor.process(batch(traces(span("GET /healthz"), span("GET /chat"))), 0.0)
    assert [s.name for s in spans_of(out)] == ["GET /chat"]
    assert processor.settings.drop == {(Signal.TRACES, "filtered"): 1}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_package_project_and_changelog_name_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None
    assert collector.__version__ == project["version"] == newest[1]


def test_every_room_says_what_lives_there_in_at_most_six_lines():
    for init in (ROOT / "collector").glob("*/__init__.py"):
        if init.parent.name in ("processors", "receivers", "exporters", "extensions", "otlp", "pipeline", "config", "service"):
            assert init.read_text().count("\n") <= 6, init


def test_every_example_of_the_reference_is_a_component_that_loads():
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "config/REFERENCE.md").read_text(), re.M | re.S)
    catalog = Catalog()
    assert len(blocks) == sum(len(list(catalog.types(kind))) for kind in KINDS)
    for block in blocks:
        ((kind, found),) = yaml.safe_load(block).items()
        ((name, body),) = found.items()
        catalog.load(kind, name).Config.model_validate(body or {})


def test_the_page_on_sampling_says_what_is_held_and_what_the_sdk_must_not_do():
    """R-210 (partly)."""
    page = (ROOT / "docs/sampling.md").read_text()
    (body,) = (
        yaml.safe_load(block)["processors"]["tail_sampling"] for block in re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    )
    config = Catalog().load("processors", "tail_sampling").Config.model_validate(body)
    assert f"`decision_wait` ({config.decision_wait:g} s)" in page
    assert f"`max_bytes` ({config.max_bytes >> 20} MiB)" in page
    assert "export OTEL_TRACES_SAMPLER=parentbased_always_on" in page


def test_work_in_progress_is_not_made_up_and_the_page_says_so():
    """R-512."""
    cls = Catalog().load("processors", "llm_cost")
    made = settings()
    cls(cls.Config(compat=["arc", "octollm"]), made)
    families = {metric.name for metric in made.meters.derived.collect()}
    assert "llm_requests" in families
    assert not [name for name in families if "active" in name]
    assert "`llm_active_requests`: spans are seen only when they have ended." in (ROOT / "docs/llm-cost.md").read_text()


def test_the_map_fits_on_few_screens():
    assert (ROOT / "collector/README.md").read_text().count("\n") <= 150


def test_the_floors_of_dependencies_are_those_of_the_security_table():
    """Versions below these have known holes (docs of reliability, floor table)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = {re.split(r"[><=;\[ ]", d)[0]: re.search(r">=([0-9.]+)", d)[1] for d in project["dependencies"]}
    wanted = {"aiohttp": "3.14.1", "protobuf": "6.33.5", "grpcio": "1.66", "orjson": "3.11.6", "pyyaml": "6"}
    for name, floor in wanted.items():
        assert tuple(map(int, floors[name].split("."))) >= tuple(map(int, floor.split("."))), name
