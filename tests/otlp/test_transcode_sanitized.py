"""The compiled reader of JSON under the address and undefined-behaviour sanitizers, fed with damaged texts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import orjson
import pytest

from collector.model import Signal
from collector.otlp.mapping import to_json
from tests.otlp.test_plain_sanitized import body, break_source, counts, library, sanitized, written

pytestmark = pytest.mark.skipif(not library(), reason="no sanitizers, or nothing to compile with")
MUTATIONS = Path(__file__).parent / "json_mutations.py"
BORDER = "if (left <= field->size || "
ROOM = "if (grow(self, LONGEST_TAG + LONGEST_VARINT + size) == FAILED) return FAILED;"


def fed(folder: Path) -> subprocess.CompletedProcess[str]:
    """json_mutations.py with a sanitized module, texts with and without white space and escapes."""
    for number, signal in ((1, Signal.TRACES), (2, Signal.LOGS)):
        value = orjson.loads(to_json(signal, body(signal)).replace(b'"bytesValue":"/wA="', b'"stringValue":"\\ud83d\\ude00\\n"'))
        written(folder / "otlp" / str(number), orjson.dumps(value))
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
        written(folder / "otlp" / f"{number}.escaped", text.encode("ascii", "namereplace").replace(b"\\N{", b"\\u00fc{"))
    return sanitized(folder, "otlp/_json.abi3.so", MUTATIONS)


def test_thousands_of_damaged_texts_and_memory_that_runs_out_do_no_harm(tmp_path: Path) -> None:
    assert min(counts(fed(tmp_path))) > 1000, "both ways are taken"


@pytest.mark.parametrize(("line", "instead"), [(BORDER, "if ("), (ROOM, "")], ids=["reading", "writing"])
def test_a_module_that_goes_over_a_border_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, instead: str
) -> None:
    break_source(tmp_path, monkeypatch, "otlp/_json.c", line, instead)
    done = fed(tmp_path)
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
