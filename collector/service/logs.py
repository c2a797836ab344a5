"""The sidecar's own log: one JSON object a line on standard output, text on a terminal; never payload.

Records go through a queue to one writing thread, so that logging never blocks the receive path (R-112). Repeats of one message
are limited, values are cut at 256 characters and pass the redactor when the configuration has one (R-306, R-610).
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any

from collector.config.telemetry import Logs

LONGEST_VALUE = 256
_PER_SECOND = 10
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "taskName", "asctime", "whole"}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31;1m", "DEBUG": "\x1b[2m"}


class Limiter(logging.Filter):
    """Lets at most 10 records a second pass for each logger and message; says how many it left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[tuple[str, str], list[float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a repeat too many."""
        if getattr(record, "whole", False):
            return True
        now, key = self._clock(), (record.name, str(record.msg))
        window = self._windows.setdefault(key, [now, 0.0, 0.0])
        if now - window[0] >= 1.0:
            if window[2]:
                record.suppressed = int(window[2])
            window[:] = [now, 0.0, 0.0]
        window[1] += 1
        if window[1] > _PER_SECOND:
            window[2] += 1
            return False
        if len(self._windows) > 1000:
            self._windows.clear()
        return True


def fields(record: logging.LogRecord, clean: Callable[[str], str]) -> dict[str, Any]:
    """What one log line says; strings cut and cleaned. With `extra={"whole": True}` (`debug`) nothing is cut."""
    out: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": record.name,
        "event": clean(record.getMessage())[: None if getattr(record, "whole", False) else LONGEST_VALUE * 4],
    }
    for key, value in vars(record).items():
        if key not in _STANDARD:
            out[key] = clean(value)[:LONGEST_VALUE] if isinstance(value, str) else value
    if record.exc_info and record.exc_info[1] is not None:
        out["error"] = type(record.exc_info[1]).__name__  # its text may quote data
    return out


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        super().__init__()
        self._clean = clean

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        import orjson

        return orjson.dumps(fields(record, self._clean), default=str).decode()


class TextFormatter(JsonFormatter):
    """For a terminal: time, level, event, fields."""

    def __init__(self, clean: Callable[[str], str], colour: bool) -> None:
        super().__init__(clean)
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        row = fields(record, self._clean)
        head = f"{row.pop('timestamp')[11:19]} {row.pop('level'):7}"
        if self._colour and record.levelname in _COLOURS:
            head = f"{_COLOURS[record.levelname]}{head}\x1b[0m"
        event, name = row.pop("event"), row.pop("logger").removeprefix("collector.")
        return f"{head} {event}" + "".join(f"  {key}={value}" for key, value in row.items()) + f"  ({name})"


class OwnLog:
    """Set up with `start`, ended with `stop`, which writes what still waits. `clean` may be changed while it runs."""

    def __init__(self, level: str = "INFO", style: str = "auto", stream: IO[str] | None = None) -> None:
        self.clean: Callable[[str], str] = str
        stream = stream or sys.stdout
        terminal = stream.isatty()
        text = style == "text" or (style == "auto" and terminal)
        clean = lambda value: self.clean(value)  # noqa: E731 - looked up at each call, so that a reload can change it
        handler = logging.StreamHandler(stream)
        handler.setFormatter(TextFormatter(clean, terminal) if text else JsonFormatter(clean))
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._listener = logging.handlers.QueueListener(self._queue, handler)
        self._handler = logging.handlers.QueueHandler(self._queue)
        self._handler.addFilter(Limiter())
        # QueueHandler.prepare would merge exc_info into the text; a record is used once, in this process.
        self._handler.prepare = lambda record: record  # type: ignore[method-assign]
        self._level = level

    def start(self) -> None:
        """Take over the root logger."""
        root = logging.getLogger()
        root.handlers[:] = [self._handler]
        root.setLevel(self._level)
        for noisy in ("aiohttp", "asyncio", "grpc"):
            logging.getLogger(noisy).setLevel("WARNING")
        self._listener.start()

    def stop(self) -> None:
        """Write what waits and let go of the root logger."""
        self._listener.stop()
        logging.getLogger().removeHandler(self._handler)


def own_log(settings: Logs, level: str | None = None, style: str | None = None) -> OwnLog:
    """The log that the configuration asks for; `level` and `style` (`json`, `text`) of the command line win."""
    level = (level or settings.level).upper()
    style = style or {"console": "text", "json": "json"}.get(settings.encoding, "auto")
    stream = sys.stderr if settings.output_paths[:1] == ["stderr"] else sys.stdout
    return OwnLog("WARNING" if level == "WARN" else level, style, stream)
