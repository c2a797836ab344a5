"""Hands in what a test gives it.

Example:
    {}
"""

from collector.component import Receiver
from collector.fields import Config


class FeederConfig(Config):
    """What distinguishes two of them."""

    fail: bool = False
    """Fail to start."""
    mark: int = 0
    """Any number."""


class Feeder(Receiver):
    Config = FeederConfig

    async def start(self, accept):
        if self.config.fail:
            raise OSError(98, "address in use")
        self.accept = accept
        self.running = True

    async def stop(self):
        self.running = False
