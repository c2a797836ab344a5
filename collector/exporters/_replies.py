"""What a backend says is untrusted text: cut, made printable, without our own secrets, and logged at a bounded rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from collector.component import Settings
from collector.errors import Malformed
from collector.model import Signal
from collector.otlp.answers import read_success

LONGEST_TEXT = 1024
_CREDENTIALS = "check the credentials of this exporter: token, user or tenant in headers, client certificate in tls"
_ADDRESS = "check the endpoint of this exporter: host, port, path and protocol"
_FIXES: dict[str | int, str] = {
    "UNAUTHENTICATED": _CREDENTIALS,
    "PERMISSION_DENIED": _CREDENTIALS,
    "UNIMPLEMENTED": _ADDRESS,
    401: _CREDENTIALS,
    403: _CREDENTIALS,
    404: _ADDRESS,
    **dict.fromkeys(range(300, 400), "write the final URL as endpoint of this exporter: redirects are not followed"),
}
_PAUSE = 10.0  # seconds between two log lines of one exporter


def excerpt(text: str | bytes, secrets: Iterable[str] = ()) -> str:
    """At most 1 KiB of what a backend said, in one printable line; `secrets` (header values it may echo) become `****`."""
    if isinstance(text, bytes):
        text = text[: 4 * LONGEST_TEXT].decode("utf-8", "replace")
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "****")
    cut = text[: LONGEST_TEXT + 1].encode()[:LONGEST_TEXT].decode("utf-8", "ignore")
    return "".join(char if char.isprintable() else " " for char in cut).strip()


def fix(code: str | int) -> str:
    """What the user must change after that gRPC code or HTTP status; empty when the settings are not to blame."""
    return _FIXES.get(code, "")


class Notices:
    """Logs partial successes and warnings of a backend, one line in 10 s with the sums since the last one."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._last = float("-inf")
        self._answers = self._rejected = 0

    def rejected(self, signal: Signal, body: bytes, *, json: bool = False, secrets: Iterable[str] = ()) -> int:
        """Items that an OTLP success answer says were rejected. An answer that cannot be read is a full success."""
        try:
            rejected, text = read_success(signal, body, json=json)
        except Malformed:
            return 0
        if rejected or text:
            self.partial_success(rejected, excerpt(text, secrets))
        return rejected

    def partial_success(self, rejected: int, text: str) -> None:
        """Note that a backend accepted a request but rejected items, or (`rejected` 0) only had something to say."""
        self._answers += 1
        self._rejected += rejected
        now = self._clock()
        if now - self._last < _PAUSE:
            return
        self._last = now
        self._settings.log.warning(
            "partial success",
            extra={"exporter": self._settings.id, "rejected": self._rejected, "answers": self._answers, "said": text},
        )
        self._answers = self._rejected = 0
