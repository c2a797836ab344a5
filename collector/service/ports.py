"""What a person needs to know when a port is taken: which one, by whom, and the setting that moves it."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from collector.config.load import Resolved
from collector.service.banner import endpoints

_ASYNCIO = re.compile(r"\('([^']*)', ([0-9]+)")
_GRPC = re.compile(r"Failed to bind to address \[?([^\s;]*?)\]?:([0-9]+);")


def in_use(error: BaseException, resolved: Resolved) -> dict[str, str]:
    """Fields `error` and `hint` for the log when `error` came from a port in use, else nothing."""
    found = _place(error)
    if found is None:
        return {}
    host, port = found
    step = str(error).partition(": ")[0]
    keys = " or ".join(f"--set={key}=HOST:PORT" for key in settings_at(port, resolved))
    hint = f"stop the other process{f', or choose another port with {keys}' if keys else ' or choose another port'}"
    return {"error": f"{step}: {f'[{host}]' if ':' in host else host}:{port} is already in use{_by(port)}", "hint": hint}


def _place(error: BaseException) -> tuple[str, int] | None:
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError):
            match = _ASYNCIO.search(str(at)) if at.errno == errno.EADDRINUSE else _GRPC.search(str(at))
            if match and (at.errno == errno.EADDRINUSE or _taken(match[1], int(match[2]))):
                return match[1], int(match[2])
        at = at.__cause__
    return None


def _taken(host: str, port: int) -> bool:
    # grpc does not say why it could not bind.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def settings_at(port: int, resolved: Resolved) -> Iterator[str]:
    """Dotted names of the settings that make something listen on `port`."""
    for kind in ("receivers", "exporters", "extensions"):
        for name, declared in resolved.of(kind).items():
            if kind == "exporters" and declared.type != "prometheus":
                continue
            for path, text in endpoints(declared.config):
                if text.rpartition(":")[2] == str(port):
                    yield ".".join((kind, name, *path, "endpoint"))
    own = resolved.telemetry.self_metrics()
    if own is not None and own.port == port:
        yield "service.telemetry.metrics.address"


def _by(port: int) -> str:
    """` by NAME (pid N)` as far as /proc shows it to this user."""
    try:
        return next((f" by {name} (pid {pid})" for pid, name in listeners(port)), "")
    except OSError:
        return ""


def listeners(port: int, proc: Path = Path("/proc")) -> Iterator[tuple[int, str]]:
    """(pid, name) of processes that listen on a TCP port. Raises OSError where /proc cannot be read."""
    sockets = set()
    for table in ("net/tcp", "net/tcp6"):
        if (proc / table).exists():
            rows = [line.split() for line in (proc / table).read_text().splitlines()[1:]]
            sockets |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
    for process in proc.glob("[0-9]*") if sockets else ():
        try:
            if any(os.readlink(handle) in sockets for handle in (process / "fd").iterdir()):
                yield int(process.name), (process / "comm").read_text().strip()
        except OSError:
            continue  # of another user, or gone meanwhile
