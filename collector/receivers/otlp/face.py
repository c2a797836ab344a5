"""What both ways of serving gRPC show to the handlers: one call in, one reply out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from collector.component import Hold
from collector.otlp.answers import CODES, Failure

Metadatum = tuple[str, str | bytes]


class Call(Protocol):
    """One call of a client."""

    @property
    def metadata(self) -> Sequence[Metadatum]:
        """What the client sent before the message."""

    def here(self) -> bytes | None:
        """The one message when it has arrived and nothing is wrong with the call; it still counts against the limits."""

    async def body(self, hold: Hold) -> bytes:
        """The one message, reserved in `hold`. Raises Refused or Malformed."""

    async def write(self, message: bytes) -> None:
        """Send one message of a stream of answers."""


class Reply(NamedTuple):
    """How a call ends: the last message, if any, and the gRPC status by its number."""

    message: bytes | None
    code: int = 0
    text: str = ""
    trailing: tuple[Metadatum, ...] = ()


Handler = Callable[[Call], Reply | Awaitable[Reply]]
"""Ends one call, at once or later; raises only CancelledError, when the client has left."""


def refusal(answer: Failure) -> Reply:
    """The reply that tells a failure."""
    return Reply(None, CODES.index(answer.code), answer.message[:1024], (("grpc-status-details-bin", answer.body()),))
