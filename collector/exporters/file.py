"""Writes what arrives to a file: one OTLP JSON object a line, or length-prefixed protobuf, with rotation by size and age.

Data is in the operating system's hands when a send ends, so it survives a crash of the sidecar. It is forced to the disk (fsync)
at every rotation and at the end, and after every send where `fsync: true`.

Example:
    path: /tmp/otel-sidecar.jsonl
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field, field_validator, model_validator

from collector.component import Exporter, Settings
from collector.errors import ConfigError, Malformed, Permanent, Retryable
from collector.fields import Config, Duration, Push, without_type
from collector.model import Payload
from collector.otlp.compression import compress
from collector.otlp.mapping import to_json


class Rotation(Config):
    """otelcol: fileexporter `rotation`."""

    max_megabytes: int = Field(100, ge=1)
    """Begin a new file before this one grows beyond that many MiB."""
    max_days: int = Field(0, ge=0)
    """Remove rotated files older than that; 0 never."""
    max_backups: int = Field(100, ge=0)
    """Keep at most that many rotated files; 0 all."""
    localtime: bool = False
    """Local time instead of UTC in the names of rotated files."""


class FileConfig(Push):
    """Settings of `file` (otelcol: fileexporter)."""

    path: str = Field(min_length=1)
    """The file; its folder must exist."""
    format: Literal["json", "proto"] = "json"
    """json: one object a line; proto: messages, each after its length (4 bytes, big endian)."""
    compression: Literal["", "none", "zstd"] = ""
    """zstd: every message is packed by itself, after its length (4 bytes, big endian), in both formats."""
    rotation: Rotation | None = None
    """Rotate; without this block the file grows for ever."""
    append: bool = True
    """False: empty the file at start (otelcol's default)."""
    create_directory: bool = False
    """Make the folder where it is missing."""
    fsync: bool = False
    """Force every send to the disk before it counts as delivered."""
    flush_interval: Duration = 1.0
    """Accepted without effect: every send is written at once."""

    @model_validator(mode="before")
    @classmethod
    def _refused(cls, value: Any) -> Any:
        without_type(value, "group_by", "use one exporter for each file")
        return without_type(value, "encoding", "encoding extensions do not exist here; use format")

    @field_validator("path")
    @classmethod
    def _file(cls, value: str) -> str:
        if value.endswith("/") or Path(value).is_dir():
            raise ValueError(f"{value} is a directory: write the name of a file in it")
        return value


class File(Exporter):
    """All file work happens in one thread of its own, so that messages never interleave and the loop never waits."""

    Config = FileConfig
    config: FileConfig

    def __init__(self, config: FileConfig, settings: Settings) -> None:
        super().__init__(config, settings)
        self._path = Path(config.path)
        self._file: IO[bytes] | None = None
        self._regular = True  # a pipe or device can be neither cut nor forced to a disk
        self._thread: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        if self._thread is not None:
            return
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"exporter {self.settings.id}")
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._begin)
        except OSError as error:
            thread.shutdown()
            hint = "; set create_directory: true or make it first" if not self._path.parent.exists() else ""
            raise ConfigError(f"exporters::{self.settings.id}::path: {error.strerror}: {error.filename}{hint}") from error
        self._thread = thread

    def _begin(self) -> None:
        if self.config.create_directory:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open()
        if not self.config.append and self._file is not None and self._regular:
            self._file.truncate(0)

    def _open(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)

    async def send(self, payload: Payload) -> int:
        if self._thread is None:
            raise Retryable("the exporter is not started")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, payload)
        except OSError as error:  # a full disk may have room again
            raise Retryable(f"cannot write: {error.strerror or type(error).__name__}") from None
        except Malformed as error:
            raise Permanent(str(error)) from None
        return 0

    def _message(self, payload: Payload) -> bytes:
        data = payload.data if self.config.format == "proto" else to_json(payload.signal, payload.data)
        packed = self.config.compression == "zstd"
        if packed:
            data = compress(data, "zstd")
        return len(data).to_bytes(4, "big") + data if packed or self.config.format == "proto" else data + b"\n"

    def _write(self, payload: Payload) -> None:
        message = self._message(payload)
        if self._file is None:
            self._open()
        assert self._file is not None
        size = os.fstat(self._file.fileno()).st_size
        if self.config.rotation is not None and size and size + len(message) > self.config.rotation.max_megabytes << 20:
            self._rotate(self.config.rotation)
            size = 0
        try:
            view = memoryview(message)
            while view:
                view = view[self._file.write(view) :]
            if self.config.fsync and self._regular:
                os.fsync(self._file.fileno())
        except OSError:
            if self._regular:
                os.ftruncate(self._file.fileno(), size)  # no half message: it is sent again as a whole
            raise

    def _rotate(self, rotation: Rotation) -> None:
        self._finish()
        now = datetime.now() if rotation.localtime else datetime.now(UTC)
        while (target := self._backup(now)).exists():
            now += timedelta(milliseconds=1)
        self._path.rename(target)
        self._open()
        backups = sorted(self._backups(), reverse=True)
        kept = backups[: rotation.max_backups or None]
        if rotation.max_days:
            oldest = time.time() - rotation.max_days * 86400
            kept = [backup for backup in kept if backup.stat().st_mtime >= oldest]
        for backup in set(backups).difference(kept):
            backup.unlink(missing_ok=True)

    def _backup(self, now: datetime) -> Path:
        stamp = now.strftime("%Y-%m-%dT%H-%M-%S.") + f"{now.microsecond // 1000:03d}"
        return self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")

    def _backups(self) -> list[Path]:
        stamp = "-[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]-[0-9][0-9]-[0-9][0-9].[0-9][0-9][0-9]"
        names = self._path.parent.iterdir()
        size = len(self._path.stem) + len("-2026-01-01T00-00-00.000") + len(self._path.suffix)
        return [
            name
            for name in names
            if len(name.name) == size and name.name.startswith(self._path.stem) and name.match(f"*{stamp}{self._path.suffix}")
        ]

    def _finish(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with file:
                if self._regular:
                    os.fsync(file.fileno())

    async def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._finish)
            thread.shutdown(wait=False)
