"""The list of requirements is generated from what tests claim, and is fresh."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
DATA = [
    {"title": "First", "now": [101, 102], "items": {"R-101": "One.", "R-102": "Two.", "R-103": "Three."}},
]


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("requirements_page", ROOT / "docs" / "requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder: Path, docstring: str) -> Path:
    (folder / "tests").mkdir()
    (folder / "tests" / "test_a.py").write_text(f'def test_it() -> None:\n    """{docstring}"""\n')
    return folder / "tests"


def test_the_list_is_fresh(page: ModuleType) -> None:
    assert page.PAGE.read_text() == page.current(), "run make docs"


def test_a_named_id_is_done(page: ModuleType, tmp_path: Path) -> None:
    text = page.render(DATA, list(page.proofs(write(tmp_path, "R-101, R-103."))))
    assert "| **R-101** | done | One. | `tests/test_a.py::test_it` |" in text
    assert "| R-103 | done | Three. | `tests/test_a.py::test_it` |" in text
    assert "| **R-102** | later | Two. |  |" in text
    assert "| this release | 1 | 0 | 1 |" in text
    assert "| all | 2 | 0 | 1 |" in text


def test_an_id_named_in_part_is_partly(page: ModuleType, tmp_path: Path) -> None:
    text = page.render(DATA, list(page.proofs(write(tmp_path, "Some of it. R-101 (partly), R-102."))))
    assert "| **R-101** | partly |" in text
    assert "| **R-102** | done |" in text


def test_one_whole_proof_outweighs_partial_ones(page: ModuleType) -> None:
    found = [page.Proof("R-101", "a", True), page.Proof("R-101", "b", False)]
    assert page.state(found) == "done"
    assert "| `b`<br>`a` |" in page.render(DATA, found)


def test_many_proofs_are_counted_rather_than_listed(page: ModuleType) -> None:
    text = page.render(DATA, [page.Proof("R-101", str(number), False) for number in range(6)])
    assert "`3`<br>and 2 more |" in text


def test_an_id_that_does_not_exist_is_refused_with_the_test_that_names_it(page: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"R-999 in tests/test_a\.py::test_it"):
        page.render(DATA, list(page.proofs(write(tmp_path, "R-999."))))


def test_ids_outside_docstrings_of_tests_prove_nothing(page: ModuleType, tmp_path: Path) -> None:
    folder = write(tmp_path, "nothing")
    (folder / "test_b.py").write_text('"""R-101."""\n\ndef helper():\n    """R-102."""\n\ndef test_x():\n    # R-103\n    pass\n')
    assert list(page.proofs(folder)) == []


def test_ids_of_this_release_exist(page: ModuleType) -> None:
    import yaml

    for section in yaml.safe_load(page.DATA.read_text()):
        assert {f"R-{number}" for number in section["now"]} <= section["items"].keys(), section["title"]
