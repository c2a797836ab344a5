"""Keeps what it is sent.

Example:
    {}
"""

from collector.component import Exporter
from collector.errors import Retryable
from collector.fields import Push


class SinkConfig(Push):
    """How it answers."""

    down: bool = False
    """Answer every send with a retryable error."""
    mark: int = 0
    """Any number."""


class Sink(Exporter):
    Config = SinkConfig
    items = 0
    stopped = False

    async def start(self):
        self.stopped = False

    async def send(self, payload):
        if self.config.down:
            raise Retryable("down")
        self.items += payload.items
        return 0

    async def stop(self):
        self.stopped = True
