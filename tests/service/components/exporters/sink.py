"""Keeps what it is sent.

Example:
    {}
"""

import asyncio

from collector.component import Exporter
from collector.errors import Retryable
from collector.fields import Push


class SinkConfig(Push):
    """How it answers."""

    down: bool = False
    """Answer every send with a retryable error."""
    mark: int = 0
    """Any number."""
    fail: bool = False
    """Fail to start with an error nobody foresaw."""
    hang: str = ""
    """What never ends: `start` or `stop`."""


class Sink(Exporter):
    Config = SinkConfig
    items = 0
    stopped = False

    made = []

    async def start(self):
        self.stopped = False
        self.made.append(self)
        if self.config.hang == "start":
            await asyncio.Event().wait()
        if self.config.fail:
            raise RuntimeError("secret")

    async def send(self, payload):
        if self.config.down:
            raise Retryable("down")
        self.items += payload.items
        return 0

    async def stop(self):
        self.stopped = True
        if self.config.hang == "stop":
            await asyncio.Event().wait()
