"""The joining of batches under the address and undefined-behaviour sanitizers, fed with odd ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.otlp.test_plain_sanitized import break_source, counts, library, sanitized

pytestmark = pytest.mark.skipif(not library(), reason="no sanitizers, or nothing to compile with")
MUTATIONS = Path(__file__).parent / "model_mutations.py"


def test_thousands_of_odd_batches_and_memory_that_runs_out_do_no_harm(tmp_path: Path) -> None:
    assert min(counts(sanitized(tmp_path, "_model.abi3.so", MUTATIONS))) > 200, "all ways are taken"


@pytest.mark.parametrize("border", ["size <= (uint64_t)(end - at - 1)", "part->size += 1 + varint_size((uint64_t)size) + size;"])
def test_joining_that_goes_over_a_border_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, border: str) -> None:
    instead = "1" if border.startswith("size") else "part->size += size;"
    break_source(tmp_path, monkeypatch, "_model.c", border, instead)
    done = sanitized(tmp_path, "_model.abi3.so", MUTATIONS)
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
