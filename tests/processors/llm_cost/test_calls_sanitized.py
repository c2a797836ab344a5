"""The compiled way to settle calls under the address and undefined-behaviour sanitizers, fed with damaged calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.otlp.test_plain_sanitized import break_source, counts, library, sanitized

pytestmark = pytest.mark.skipif(not library(), reason="no sanitizers, or nothing to compile with")
MUTATIONS = Path(__file__).parent / "calls_mutations.py"
ROOM = "+ 8 * (parts ? parts - 1 : 0);"


def test_thousands_of_damaged_calls_and_memory_that_runs_out_do_no_harm(tmp_path: Path) -> None:
    assert min(counts(sanitized(tmp_path, "processors/llm_cost/_calls.abi3.so", MUTATIONS))) > 1000, "both ways are taken"


def test_a_module_that_goes_over_a_border_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_source(tmp_path, monkeypatch, "processors/llm_cost/_calls.c", ROOM, ";")
    done = sanitized(tmp_path, "processors/llm_cost/_calls.abi3.so", MUTATIONS)
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
