"""The file exporter writes whole messages, rotates, and says at start what is wrong."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from pydantic import ValidationError

from collector.errors import ConfigError, Permanent, Retryable
from collector.exporters.file import File
from collector.model import Payload, Signal
from collector.otlp.mapping import from_json
from tests.exporters.servers import payload
from tests.support import build, eventually


async def write(path: Path, *payloads: Payload, **config: Any) -> None:
    """Start, send everything, stop."""
    exporter = build(File, {"path": str(path), **config})
    await exporter.start()
    try:
        for each in payloads:
            assert await exporter.send(each) == 0
    finally:
        await exporter.stop()


def names(folder: Path, pattern: str = "*") -> list[Path]:
    """Files in a folder, sorted."""
    return sorted(folder.glob(pattern))


class Standing(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime(2026, 1, 2, 3, 4, 5, tzinfo=tz)


def frames(data: bytes) -> list[bytes]:
    """Messages of a length-prefixed file."""
    out = []
    while data:
        size = int.from_bytes(data[:4], "big")
        out.append(data[4 : 4 + size])
        assert len(out[-1]) == size
        data = data[4 + size :]
    return out


@pytest.mark.parametrize("signal", list(Signal))
async def test_json_is_one_otlp_object_a_line(tmp_path: Path, signal: Signal) -> None:
    what = payload(signal, 3, text="line\nbreak")
    before = bytes(what.data)
    await write(tmp_path / "out.jsonl", what, what)
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert [from_json(signal, line) for line in lines] == [before, before]
    assert what.data == before


async def test_proto_messages_follow_their_length(tmp_path: Path) -> None:
    one, other = payload(), payload(Signal.TRACES, 5)
    await write(tmp_path / "out.bin", one, other, format="proto")
    assert frames((tmp_path / "out.bin").read_bytes()) == [one.data, other.data]


@pytest.mark.parametrize("form", ["json", "proto"])
async def test_packed_messages_follow_their_length(tmp_path: Path, form: str) -> None:
    what = payload(items=100)
    await write(tmp_path / "out", what, format=form, compression="zstd")
    [frame] = frames((tmp_path / "out").read_bytes())
    data = zstandard.ZstdDecompressor().decompressobj().decompress(frame)
    assert (data if form == "proto" else from_json(Signal.TRACES, data)) == what.data


async def test_a_restart_appends_unless_told_to_begin_anew(tmp_path: Path) -> None:
    path = tmp_path / "out"
    await write(path, payload())
    await write(path, payload())
    assert len(path.read_bytes().splitlines()) == 2
    await write(path, payload(), append=False)
    assert len(path.read_bytes().splitlines()) == 1


async def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    await write(tmp_path / "out", payload())
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


async def test_rotation_starts_a_new_file_before_the_limit_and_keeps_the_newest_backups(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    (tmp_path / "out-notes.jsonl").write_text("not ours")
    what = payload(text="x" * 700_000)
    await write(path, *[what] * 6, rotation={"max_megabytes": 1, "max_backups": 3})
    backups = names(tmp_path, "out-2*.jsonl")
    assert len(backups) == 3
    assert all(700_000 < file.stat().st_size <= 1 << 20 for file in (path, *backups))
    assert (tmp_path / "out-notes.jsonl").exists()


async def test_no_message_is_lost_or_cut_by_rotation(tmp_path: Path) -> None:
    sent = [payload(text=f"{number:03d}" + "y" * 300_000) for number in range(10)]
    await write(tmp_path / "out", *sent, rotation={"max_megabytes": 1, "localtime": True}, fsync=True)
    lines = [line for file in names(tmp_path) for line in file.read_bytes().splitlines()]
    assert len(names(tmp_path)) == 4
    assert sorted(orjson.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"][:3] for line in lines) == [
        f"{number:03d}" for number in range(10)
    ]


async def test_a_message_larger_than_the_limit_still_is_written_whole(tmp_path: Path) -> None:
    what = payload(text="x" * 3_000_000)
    await write(tmp_path / "out", what, what, rotation={"max_megabytes": 1})
    assert [len(file.read_bytes().splitlines()) for file in names(tmp_path)] == [1, 1]


async def test_old_backups_leave_by_age(tmp_path: Path) -> None:
    path = tmp_path / "out"
    old = tmp_path / "out-2020-01-01T00-00-00.000"
    old.write_text("old")
    os.utime(old, (0, 0))
    what = payload(text="x" * 700_000)
    await write(path, what, what, rotation={"max_megabytes": 1, "max_days": 7})
    assert not old.exists()
    assert len(names(tmp_path)) == 2


async def test_rotations_in_one_millisecond_keep_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.exporters.file.datetime", Standing)
    what = payload(text="x" * 1_100_000)
    await write(tmp_path / "out", *[what] * 4, rotation={"max_megabytes": 1, "max_backups": 0}, format="proto")
    assert [file.name for file in names(tmp_path)] == [
        "out",
        "out-2026-01-02T03-04-05.000",
        "out-2026-01-02T03-04-05.001",
        "out-2026-01-02T03-04-05.002",
    ]


async def test_sends_at_once_never_interleave(tmp_path: Path) -> None:
    exporter = build(File, {"path": str(tmp_path / "out")})
    await exporter.start()
    await asyncio.gather(*[exporter.send(payload(items=50)) for _ in range(20)])
    await exporter.stop()
    assert all(orjson.loads(line) for line in (tmp_path / "out").read_bytes().splitlines())


async def test_a_cancelled_send_leaves_whole_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = build(File, {"path": str(tmp_path / "out")})
    await exporter.start()
    entered, gate = threading.Event(), threading.Event()
    real = exporter._message
    monkeypatch.setattr(exporter, "_message", lambda what: entered.set() or (gate.wait(10) and real(what)))
    sending = asyncio.ensure_future(exporter.send(payload()))
    await eventually(lambda: entered.is_set())
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    gate.set()
    await exporter.send(payload())
    await exporter.stop()
    assert all(orjson.loads(line) for line in (tmp_path / "out").read_bytes().splitlines())


async def test_a_full_disk_is_retryable_and_leaves_no_half_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    exporter = build(File, {"path": str(path), "fsync": True})
    await exporter.start()
    await exporter.send(payload())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Retryable, match="cannot write: No space left"):
            await exporter.send(payload())
    assert path.read_bytes() == before
    await exporter.send(payload())
    await exporter.stop()
    assert len(path.read_bytes().splitlines()) == 2


async def test_a_real_full_device_is_retryable() -> None:
    exporter = build(File, {"path": "/dev/full", "append": False})
    await exporter.start()
    with pytest.raises(Retryable, match="No space left"):
        await exporter.send(payload())
    await exporter.stop()


async def test_a_failed_rotation_is_retryable_and_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = build(File, {"path": str(tmp_path / "out"), "rotation": {"max_megabytes": 1}})
    await exporter.start()
    what = payload(text="x" * 700_000)
    await exporter.send(what)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(Retryable, match="Permission denied"):
            await exporter.send(what)
    await exporter.send(what)
    await exporter.stop()
    assert len(names(tmp_path)) == 2


async def test_a_missing_folder_is_a_clear_error_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"exporters::test::path: No such file or directory: .*no/out; set create_directory"):
        await write(tmp_path / "no" / "out")
    await write(tmp_path / "no" / "out", payload(), create_directory=True)
    assert (tmp_path / "no" / "out").exists()


async def test_a_request_that_cannot_be_decoded_is_permanent(tmp_path: Path) -> None:
    with pytest.raises(Permanent):
        await write(tmp_path / "out", Payload(Signal.TRACES, b"\xff\xff", 1))


async def test_it_can_be_started_and_stopped_twice(tmp_path: Path) -> None:
    exporter = build(File, {"path": str(tmp_path / "out")})
    await exporter.start()
    await exporter.start()
    await exporter.stop()
    await exporter.stop()
    with pytest.raises(Retryable, match="not started"):
        await exporter.send(payload())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "path"),
        ({"path": ""}, "path"),
        ({"path": "/tmp/"}, "is a directory"),
        ({"path": "/tmp"}, "is a directory"),
        ({"path": "/tmp/x", "group_by": {}}, "group_by is not supported"),
        ({"path": "/tmp/x", "encoding": "x"}, "encoding is not supported"),
        ({"path": "/tmp/x", "compression": "gzip"}, "compression"),
    ],
)
def test_settings_that_cannot_work_are_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        build(File, config)
