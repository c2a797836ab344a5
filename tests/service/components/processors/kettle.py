"""Tells when it was warmed; a broken one fails.

Example:
    {}
"""

from collector import fields
from collector.component import Processor


class Kettle(Processor):
    class Config(fields.Config):
        broken: bool = False
        """Fail."""

    hot = False

    def warm(self):
        self.hot = True
        if self.config.broken:
            raise ValueError

    def process(self, batch, now):
        return batch
