"""Holds everything until it is drained.

Example:
    {}
"""

from collector.component import Processor
from collector.model import Batch


class Holder(Processor):
    groups = ()

    def process(self, batch, now):
        self.groups = (*self.groups, *batch.groups)
        self.signal = batch.signal

    def drain(self):
        groups, self.groups = self.groups, ()
        return Batch(self.signal, list(groups)) if groups else None

    def held(self):
        return sum(len(scope.items) for group in self.groups for scope in group.scopes)
