"""Shows what arrives on the console or in the log, as far as the pipeline let it through: redacted, sampled, priced.

Example:
    verbosity: detailed
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, Literal

from google.protobuf.message import DecodeError
from pydantic import Field, model_validator

from collector.component import Exporter, Settings
from collector.errors import ConfigError, Permanent, Retryable
from collector.fields import Push, without_type
from collector.model import Envelope, Payload, Signal

_GROUPS = {Signal.TRACES: "resource spans", Signal.METRICS: "resource metrics", Signal.LOGS: "resource logs"}
_ITEMS = {Signal.TRACES: "spans", Signal.METRICS: "data points", Signal.LOGS: "log records"}


class DebugConfig(Push):
    """Settings of `debug` (otelcol: debugexporter)."""

    verbosity: Literal["basic", "normal", "detailed"] = "basic"
    """basic: counts for each request; normal: one line for each item; detailed: everything."""
    sampling_initial: int = Field(2, ge=0)
    """Requests of a signal shown in each second before sampling begins."""
    sampling_thereafter: int = Field(1, ge=0)
    """Then every so manieth request of that second is shown; 1 all, 0 none."""
    use_internal_logger: bool = True
    """Write through the sidecar's own log; false: to output_paths."""
    output_paths: list[str] = Field(["stdout"], min_length=1)
    """`stdout`, `stderr` or files, for `use_internal_logger: false`."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        return without_type(value, "loglevel", "write verbosity: detailed instead")


class Sampler:
    """Lets the first `initial` of a second through, then every `thereafter`-th (otelcol: zap's sampling core)."""

    def __init__(self, initial: int, thereafter: int) -> None:
        self._initial, self._thereafter = initial, thereafter
        self._second = -1
        self._count = 0

    def shows(self, now: float) -> bool:
        """Whether one more request at `now` (seconds) is shown."""
        if int(now) != self._second:
            self._second, self._count = int(now), 0
        self._count += 1
        beyond = self._count - self._initial
        return beyond <= 0 or (self._thereafter > 0 and beyond % self._thereafter == 0)


class Debug(Exporter):
    """Never fails for what it shows; text of telemetry is escaped, so that it cannot steer a terminal."""

    Config = DebugConfig
    config: DebugConfig

    def __init__(self, config: DebugConfig, settings: Settings) -> None:
        super().__init__(config, settings)
        self._samplers = {signal: Sampler(config.sampling_initial, config.sampling_thereafter) for signal in Signal}
        self._lock = threading.Lock()

    async def start(self) -> None:
        for path in () if self.config.use_internal_logger else self.config.output_paths:
            try:
                self._print(path, "")
            except OSError as error:
                raise ConfigError(f"exporters::{self.settings.id}::output_paths: {error.strerror}: {path}") from error

    async def send(self, payload: Payload) -> int:
        if self._samplers[payload.signal].shows(time.monotonic()):
            try:
                await asyncio.to_thread(self._show, payload)
            except DecodeError:
                raise Permanent("the request cannot be decoded") from None
            except OSError as error:
                raise Retryable(f"cannot write: {error.strerror}") from None
        return 0

    def _show(self, payload: Payload) -> None:
        from collector.exporters.debug.text import detailed, normal

        signal = payload.signal
        groups = len(Envelope.FromString(payload.data).groups)
        counts = {_GROUPS[signal]: groups, _ITEMS[signal]: payload.items}
        title = signal.value.capitalize()
        text = ""
        if self.config.verbosity != "basic":
            text = (normal if self.config.verbosity == "normal" else detailed)(signal, payload.data)
        if self.config.use_internal_logger:
            fields = {name.replace(" ", "_"): count for name, count in counts.items()}
            self.settings.log.info(title, extra={"exporter": self.settings.id, "whole": True, **fields})
            if text:
                self.settings.log.info("%s", text, extra={"whole": True})
            return
        head = f"{title} {{{', '.join(f'{name}: {count}' for name, count in counts.items())}}}\n"
        with self._lock:
            for path in self.config.output_paths:
                self._print(path, head + text + ("\n" if text else ""))

    def _print(self, path: str, text: str) -> None:
        stream: IO[str] | None = {"stdout": sys.stdout, "stderr": sys.stderr}.get(path)
        if stream is not None:
            stream.write(text)
            stream.flush()
            return
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
