"""The compiled search for numbers under the address and undefined-behaviour sanitizers, at every border of its data."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.otlp.test_plain_sanitized import break_source, counts, library, sanitized

pytestmark = pytest.mark.skipif(not library(), reason="no sanitizers, or nothing to compile with")
MUTATIONS = Path(__file__).parent / "number_mutations.py"


def fed(folder: Path) -> subprocess.CompletedProcess[str]:
    return sanitized(folder, "otlp/_numbers.abi3.so", MUTATIONS)


def test_numbers_at_every_border_and_memory_that_runs_out_do_no_harm(tmp_path: Path) -> None:
    assert min(counts(fed(tmp_path))) > 1000, "both kinds of text are searched"


@pytest.mark.parametrize("border", [" && at < search->end", "start >= 0 && "], ids=["end", "begin"])
def test_a_search_that_goes_over_a_border_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, border: str) -> None:
    break_source(tmp_path, monkeypatch, "otlp/_numbers.c", border, "")
    done = fed(tmp_path)
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
