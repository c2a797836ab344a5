"""What the debug exporter shows, how often, and where."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from collector.errors import ConfigError, Permanent
from collector.exporters.debug import Debug, Sampler
from collector.model import Payload, Signal
from tests.exporters.servers import payload
from tests.support import build


async def show(config: dict[str, Any], what: Payload, count: int = 1) -> None:
    """Start, send, stop."""
    exporter = build(Debug, config)
    await exporter.start()
    for _ in range(count):
        assert await exporter.send(what) == 0
    await exporter.stop()


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        (Signal.TRACES, {"resource_spans": 1, "spans": 2}),
        (Signal.METRICS, {"resource_metrics": 1, "data_points": 2}),
        (Signal.LOGS, {"resource_logs": 1, "log_records": 2}),
    ],
)
async def test_basic_logs_counts_and_no_content(
    caplog: pytest.LogCaptureFixture, signal: Signal, expected: dict[str, int]
) -> None:
    what = payload(signal, 2, text="secret-looking")
    before = bytes(what.data)
    with caplog.at_level(logging.INFO):
        await show({}, what)
    [record] = caplog.records
    assert record.getMessage() == signal.value.capitalize()
    assert expected.items() <= vars(record).items()
    assert "secret-looking" not in caplog.text
    assert what.data == before


@pytest.mark.parametrize("verbosity", ["normal", "detailed"])
@pytest.mark.parametrize("signal", list(Signal))
async def test_normal_and_detailed_show_the_items(caplog: pytest.LogCaptureFixture, verbosity: str, signal: Signal) -> None:
    with caplog.at_level(logging.INFO):
        await show({"verbosity": verbosity}, payload(signal, text="the-name"))
    assert len(caplog.records) == 2
    assert "the-name" in caplog.records[1].getMessage()


async def test_without_the_logger_text_goes_to_the_named_outputs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "out.txt"
    config = {"use_internal_logger": False, "output_paths": ["stdout", "stderr", str(file)], "verbosity": "normal"}
    await show(config, payload(text="the-name"), count=2)
    out, err = capsys.readouterr()
    assert out == err == file.read_text()
    assert out.count("Traces {resource spans: 1, spans: 1}\n") == 2
    assert out.count("the-name") == 2


async def test_basic_without_the_logger_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    await show({"use_internal_logger": False}, payload(Signal.LOGS, 3))
    assert capsys.readouterr().out == "Logs {resource logs: 1, log records: 3}\n"


async def test_an_output_that_cannot_be_written_fails_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exporters::test::output_paths: No such file"):
        await show({"use_internal_logger": False, "output_paths": [str(tmp_path / "no" / "file")]}, payload())


async def test_an_output_that_breaks_later_is_retryable(tmp_path: Path) -> None:
    from collector.errors import Retryable

    file = tmp_path / "out"
    exporter = build(Debug, {"use_internal_logger": False, "output_paths": [str(file)]})
    await exporter.start()
    file.unlink()
    file.mkdir()
    with pytest.raises(Retryable, match="Is a directory"):
        await exporter.send(payload())


async def test_a_request_that_cannot_be_decoded_is_permanent() -> None:
    with pytest.raises(Permanent, match="cannot be decoded"):
        await show({}, Payload(Signal.TRACES, b"\xff\xff", 1))


def test_sampling_shows_the_first_of_a_second_and_then_every_nth() -> None:
    sampler = Sampler(2, 3)
    assert [sampler.shows(5.1) for _ in range(9)] == [True, True, False, False, True, False, False, True, False]
    assert sampler.shows(6.0)
    none_after = Sampler(1, 0)
    assert [none_after.shows(5.0) for _ in range(4)] == [True, False, False, False]
    everything = Sampler(2, 1)
    assert all(everything.shows(5.0) for _ in range(20))


async def test_what_sampling_leaves_out_still_counts_as_sent(caplog: pytest.LogCaptureFixture) -> None:
    before = int(time.monotonic())
    with caplog.at_level(logging.INFO):
        await show({"sampling_initial": 1, "sampling_thereafter": 0}, payload(), count=10)
    assert 1 <= len(caplog.records) <= 1 + int(time.monotonic()) - before


@pytest.mark.parametrize(
    ("config", "reason"), [({"loglevel": "debug"}, "write verbosity: detailed"), ({"verbosity": "loud"}, "verbosity")]
)
def test_settings_that_cannot_work_are_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        build(Debug, config)
