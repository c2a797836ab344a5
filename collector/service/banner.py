"""What a person sees at the start: where the sidecar listens and what each pipeline does."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from collector import __version__
from collector.config.load import Resolved

_PAGES = {"health_check": "http://{}/", "console": "http://{}/", "prometheus": "http://{}/metrics"}


def banner(resolved: Resolved, *, dev: bool) -> str:
    """The lines, without colour; `dev` adds what that mode promises and what to try."""
    mode = "  dev mode: data stays in memory, nothing leaves this host" if dev else ""
    lines = [f"otel-sidecar {__version__}{mode}"]
    lines += [f"  {name:<14}{place}" for name, place in listeners(resolved)]
    for spec in resolved.pipelines.values():
        steps = [" + ".join(spec.receivers), *spec.processors, " + ".join(spec.exporters)]
        lines.append(f"  {spec.id:<14}{' > '.join(steps)}")
    if dev:
        http = otlp_http(resolved)
        at = f" --endpoint http://{http}" if http and not http.endswith(":4318") else ""
        lines.append(f"  waiting for data: run `{command()} send{at}` in another terminal, or start your application with")
        lines.append(f"    OTEL_EXPORTER_OTLP_ENDPOINT=http://{http or 'HOST:PORT'} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")
    return "\n".join(lines)


def command() -> str:
    """How this program can be called from a shell here: its name where that is on the PATH, else as it was called."""
    called = sys.argv[0]
    if Path(called).name == "otel-sidecar" and shutil.which("otel-sidecar") is None:
        return called
    return "otel-sidecar"


def otlp_http(resolved: Resolved) -> str:
    """`host:port` where OTLP over HTTP is received, empty for nowhere."""
    found = (
        place for name, place in listeners(resolved) if name.split("/")[0].split(" ")[0] == "otlp" and name.endswith(" http")
    )
    return next(found, "")


def listeners(resolved: Resolved) -> Iterator[tuple[str, str]]:
    """(what, address) of everything that listens."""
    for name, declared in resolved.receivers.items():
        for path, endpoint in endpoints(declared.config):
            yield " ".join((name, *(part for part in path if part != "protocols"))), endpoint
    pages = {name: resolved.extensions[name] for name in resolved.extensions_on}
    pages |= {name: declared for name, declared in resolved.exporters.items() if declared.type == "prometheus"}
    for name, declared in pages.items():
        for _, endpoint in endpoints(declared.config):
            yield name, _PAGES.get(declared.type, "{}").format(endpoint)
    own = resolved.telemetry.self_metrics()
    if own is not None:
        yield "own metrics", f"http://{own.host}:{own.port}/metrics"


def endpoints(config: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every `endpoint` in settings, with the way to it."""
    fields: Mapping[str, Any] = dict(config) if isinstance(config, BaseModel) else {}
    for name, value in fields.items():
        if name == "endpoint" and isinstance(value, str) and value:
            yield path, value
        elif isinstance(value, BaseModel):
            yield from endpoints(value, (*path, name))
