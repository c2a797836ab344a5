"""Files that save a start some work: in the user's own cache folder, believed only when nothing about them is off.

A compiled pattern database is code of its engine: whoever can write one could do anything to the process. So a file counts only
if it belongs to this user, nobody else may write to it or its folder, it is no link, and its digest over name, key and content
is right. In every other case there is no file: the work is done again. A read-only or missing home costs that work, no error.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_DIGEST = 32
_LARGEST = 64 << 20
_FILES = 8
"""Files of one kind that stay: a configuration that changes often must not fill the disk."""


def folder() -> Path | None:
    """The cache folder of this program, not necessarily there; None when the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "otel-sidecar"
    except RuntimeError:
        return None


def read(kind: str, key: bytes) -> bytes | None:
    """What was kept under this key; None when there is nothing that can be trusted."""
    path = _path(kind, key)
    if path is None:
        return None
    try:
        if not _ours(os.lstat(path.parent), stat.S_ISDIR):
            return None
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(file, "rb") as opened:
        info = os.fstat(file)
        if not _ours(info, stat.S_ISREG) or not _DIGEST < info.st_size <= _LARGEST:
            return None
        digest, data = opened.read(_DIGEST), opened.read(_LARGEST)
    return data if digest == _digest(kind, key, data) else None


def write(kind: str, key: bytes, data: bytes) -> None:
    """Keep `data` under this key where that is possible: whole or not at all."""
    path = _path(kind, key)
    if path is None:
        return
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _ours(os.lstat(path.parent), stat.S_ISDIR):
            return
        file, name = tempfile.mkstemp(dir=path.parent, prefix=f".{kind}-")
        try:
            with open(file, "wb") as opened:
                opened.write(_digest(kind, key, data) + data)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
        _tidy(path.parent, kind)


def _path(kind: str, key: bytes) -> Path | None:
    where = folder()
    return where and where / f"{kind}-{hashlib.blake2b(key, digest_size=12).hexdigest()}"


def _digest(kind: str, key: bytes, data: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for part in (kind.encode(), key):
        digest.update(len(part).to_bytes(8, "little") + part)
    digest.update(data)
    return digest.digest()


def _ours(info: os.stat_result, kind: Callable[[int], bool]) -> bool:
    return kind(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _tidy(where: Path, kind: str) -> None:
    files = sorted(where.glob(f"{kind}-*"), key=lambda path: path.lstat().st_mtime, reverse=True)
    for path in files[_FILES:]:
        path.unlink()
