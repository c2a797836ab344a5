"""The compiled walker under the address and undefined-behaviour sanitizers, fed with damaged requests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hatch_build
from hatch_build import FOLDER, compile_module, compiler, lacking
from tests.support import REQUEST, Signal

SANITIZE = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
MUTATIONS = Path(__file__).parent / "mutations.py"
BORDER = "if (size > (uint64_t)(in->end - in->at)) return 0;"


def library() -> str:
    """The address sanitizer's library, that must be loaded before all others; empty when there is none."""
    if lacking():
        return ""
    done = subprocess.run([*compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True)
    found = Path(done.stdout.strip())
    return str(found) if found.is_absolute() and found.is_file() else ""


pytestmark = pytest.mark.skipif(not library(), reason=f"no sanitizers: {lacking() or 'the compiler has no libasan'}")


def body(signal: Signal) -> bytes:
    """A plain request with every field and every kind of value."""
    request = REQUEST[signal]()
    if signal is Signal.METRICS:
        return metrics(request)
    for _ in range(2):
        traces = signal is Signal.TRACES
        group = (request.resource_spans if traces else request.resource_logs).add(schema_url="https://schema/1")
        group.resource.attributes.add(key="service.name").value.string_value = "shop"
        scope = (group.scope_spans if traces else group.scope_logs).add(schema_url="https://schema/2")
        scope.scope.name, scope.scope.version = "library", "1"
        for number in range(3):
            item = (scope.spans if traces else scope.log_records).add(trace_id=b"t" * 16, span_id=b"s" * 8)
            attributes(item.attributes, number)
            if traces:
                fill_span(item)
            else:
                item.body.string_value, item.severity_text, item.severity_number = "gekauft: Brötchen 🥖", "INFO", 9
                item.time_unix_nano = item.observed_time_unix_nano = 1 << 60
                item.event_name, item.flags, item.dropped_attributes_count = "bought", 1, 300
    return request.SerializeToString()


def metrics(request: Any) -> bytes:
    """Every kind of metric with all its fields."""
    for _ in range(2):
        group = request.resource_metrics.add(schema_url="https://schema/1")
        scope = group.scope_metrics.add(schema_url="https://schema/2")
        scope.scope.name = "library"
        for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary"):
            metric = scope.metrics.add(name="duration", description="wie lange's dauert: größer", unit="ms")
            metric.metadata.add(key="level").value.string_value = "error"
            fill_points(getattr(metric, kind))
    return bytes(request.SerializeToString())


def fill_points(data: Any) -> None:
    for name, value in (("aggregation_temporality", 2), ("is_monotonic", True)):
        if name in data.DESCRIPTOR.fields_by_name:
            setattr(data, name, value)
    for number in range(2):
        point = data.data_points.add()
        for field in point.DESCRIPTOR.fields:
            if field.name in ("attributes", "exemplars"):
                continue
            if field.name == "quantile_values":
                point.quantile_values.add(quantile=0.5, value=7)
            elif field.message_type:
                getattr(point, field.name).MergeFrom(field.message_type._concrete_class(offset=-3, bucket_counts=[0, 1, 300]))
            elif field.is_repeated:
                getattr(point, field.name).extend([1, 2, 3])
            elif field.name != "as_int" or number:
                setattr(point, field.name, 1 << 5)
        attributes(point.attributes, number)
        if "exemplars" in point.DESCRIPTOR.fields_by_name:
            exemplar = point.exemplars.add(trace_id=b"t" * 16, span_id=b"s" * 8, time_unix_nano=5, as_double=0.5)
            attributes(exemplar.filtered_attributes, 2)


def attributes(target: object, number: int) -> None:
    add = target.add  # type: ignore[attr-defined]
    add(key="gen_ai.request.model").value.string_value = "gpt-4o" * 30
    add(key="http.response.status_code").value.int_value = 500 + number
    add(key="level").value.string_value = "error"
    add(key="minus").value.int_value = -1
    add(key="share").value.double_value = 0.5
    add(key="on").value.bool_value = True
    add(key="raw").value.bytes_value = b"\xff\x00"
    add(key="none")
    values = add(key="list").value.array_value.values
    values.add().string_value = "a"
    values.add().kvlist_value.values.add(key="inner").value.array_value.values.add().int_value = 1


def fill_span(span: object) -> None:
    span.name, span.trace_state, span.parent_span_id, span.kind, span.flags = "POST /buy", "a=b", b"p" * 8, 2, 257  # type: ignore[attr-defined]
    span.start_time_unix_nano, span.end_time_unix_nano = 1 << 60, (1 << 60) + 5  # type: ignore[attr-defined]
    span.status.code, span.status.message = 2, "größer"  # type: ignore[attr-defined]
    attributes(span.events.add(name="event", time_unix_nano=5, dropped_attributes_count=1).attributes, 1)  # type: ignore[attr-defined]
    attributes(span.links.add(trace_id=b"t" * 16, span_id=b"s" * 8, trace_state="c=d", flags=1).attributes, 2)  # type: ignore[attr-defined]


def sanitized(folder: Path, module: str, script: Path) -> subprocess.CompletedProcess[str]:
    """A script with a sanitized module. Each bytes object has memory of its own, whose border the sanitizer watches."""
    assert compile_module(module, folder, *SANITIZE) == ""
    environment = {
        **os.environ,
        "LD_PRELOAD": library(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, str(script), str((folder / module).parent)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def written(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def fed(folder: Path) -> subprocess.CompletedProcess[str]:
    """mutations.py with a sanitized walker."""
    for number, signal in ((1, Signal.TRACES), (2, Signal.LOGS), (3, Signal.METRICS)):
        written(folder / "otlp" / str(number), body(signal))
    return sanitized(folder, "otlp/_plain.abi3.so", MUTATIONS)


def counts(done: subprocess.CompletedProcess[str]) -> tuple[int, ...]:
    """How many damaged requests were plain, how many not, and how many calls were read; nothing may be complained of."""
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    counted = re.fullmatch(r"(\d+) plain, (\d+) odd,(?: (\d+) read,)? \d+ without memory\n", done.stdout)
    assert counted is not None
    return tuple(int(group) for group in counted.groups() if group)


def break_source(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, border: str, instead: str) -> None:
    """Compile from a copy of the source without that check."""
    for path in FOLDER.rglob("*.[ch]"):
        written(folder / path.relative_to(FOLDER), path.read_bytes())
    source = folder / module
    text = source.read_text()
    assert text.count(border) == 1
    source.write_text(text.replace(border, instead))
    monkeypatch.setattr(hatch_build, "FOLDER", folder)


def test_thousands_of_damaged_requests_and_memory_that_runs_out_do_no_harm(tmp_path: Path) -> None:
    assert min(counts(fed(tmp_path))) > 1000, "all ways are taken"


def test_a_walker_that_reads_over_a_border_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_source(tmp_path, monkeypatch, "otlp/_plain.h", BORDER, "")
    done = fed(tmp_path)
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
