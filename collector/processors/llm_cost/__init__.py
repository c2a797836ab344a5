"""Prices every LLM call from its tokens, counts it once, and writes the cost onto its span.

Example:
    {}
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from collector.component import Processor, Settings
from collector.model import Batch, Group, Scope, Signal
from collector.otlp.find import Finder
from collector.processors.llm_cost.accounting import Accounting
from collector.processors.llm_cost.call import Origin, origin_of
from collector.processors.llm_cost.options import Options
from collector.processors.llm_cost.together import Found

_NOBODY = Origin()


class LlmCost(Processor):
    """Normal spans pass as bytes; one scan of the batch finds the spans that tell of LLM calls, and only those are decoded."""

    Config = Options
    signals = frozenset({Signal.TRACES})
    shared = True
    counts = True

    def __init__(self, config: Options, settings: Settings) -> None:
        """Raises ConfigError when prices_file cannot be used."""
        super().__init__(config, settings)
        self._accounting = Accounting(config, settings)
        dialects = self._accounting.dialects
        self._finder = Finder(dialects.conditions(), dialects.patterns())

    def process(self, batch: Batch, now: float) -> Batch:
        """The same batch; spans that were priced carry their cost."""
        if batch.signal is not Signal.TRACES:
            return batch
        positions = sorted(self._finder.find(batch.items()))
        if not positions:
            return batch
        self._accounting.begin(now)
        calls = sorted(self._read(batch, positions))
        one = partial(self._one, now)
        changed = self._accounting.settle_each(calls, one, now)
        if changed is None:
            changed = self._settle_all(calls, now) or sum([one(call) for call in calls]) > 0
        self._accounting.end()
        return Batch(batch.signal, batch.groups, None, batch.metadata) if changed else batch

    def _settle_all(self, calls: list[Found], now: float) -> bool:
        """Whether all calls were settled, together."""
        quick = [call for _, _, _, call, _, _ in calls if isinstance(call, tuple)]
        if len(quick) < len(calls) or not quick:
            return False
        try:
            stamped = self._accounting.settle_all(quick, now)
        except Exception:  # one by one they tell which of them is to blame
            return False
        if stamped is None:
            return False
        for (_, _, _, _, items, index), item in zip(calls, stamped, strict=True):
            items[index] = item
        return True

    def _one(self, now: float, found: Found) -> bool:
        """Settle one call; whether its span was changed."""
        _, _, _, call, items, index = found
        try:
            accounting = self._accounting
            stamped = accounting.settle_quick(call, now) if isinstance(call, tuple) else accounting.settle(call, now)
        except Exception as error:
            self._spare(error)
            return False
        if stamped is None:
            return False
        items[index] = stamped
        return True

    def kept(self, batch: Batch) -> None:
        """Show exemplars of traces that were kept (R-109)."""
        self._accounting.counters.exemplars.kept(batch)

    def tick(self, now: float) -> None:
        """Book and log what waits, age the gauges."""
        self._accounting.tick(now)

    def drain(self) -> None:
        """Book what waits: nobody may come to ask."""
        self.settings.meters.settle()

    def warm(self) -> None:
        """Compile the patterns and, unless `preload` is off, load the price catalogue."""
        self._finder.warm()
        if self.config.preload:
            self.preload()

    def preload(self) -> None:
        """Load the price catalogue now (0.2 s); otherwise the first LLM span does."""
        self._accounting.catalogue.load()

    def reload_prices(self) -> bool:
        """Read prices_file again; a bad file keeps the old prices, is logged and counted. True when the new ones are in use."""
        return self._accounting.reload_prices()

    def spend(self) -> dict[str, Any]:
        """Calls, failures, cost and tokens so far, in all and by model (R-415)."""
        self.settings.meters.settle()
        return self._accounting.spend.summary()

    def history(self) -> list[dict[str, Any]]:
        """The last thousand calls, oldest first (R-417)."""
        return self._accounting.spend.history()

    def usage_by_hour(self, now: float, hours: int = 24) -> list[dict[str, Any]]:
        """Tokens of each of the last hours, UTC (R-418)."""
        self.settings.meters.settle()
        return self._accounting.spend.hours(now, hours)

    def _read(self, batch: Batch, positions: list[int]) -> Iterator[Found]:
        offset, first, look, rows = 0, 0, self._accounting.look, self._accounting.rows
        for group in batch.groups:
            for scope in group.scopes:
                end = offset + len(scope.items)
                beyond = bisect_left(positions, end, first)
                origin = self._origin(group, scope) if beyond > first else _NOBODY
                indexes = [position - offset for position in positions[first:beyond]]
                for index, row in zip(indexes, rows(scope.items, indexes, origin), strict=True):
                    try:
                        call = look(scope.items[index], origin, row)
                    except Exception as error:
                        self._spare(error)
                        continue
                    if isinstance(call, tuple):
                        yield call[0], -call[1], offset + index, call, scope.items, index
                    elif call is not None:
                        yield call.end, -call.start, offset + index, call, scope.items, index
                first, offset = beyond, end

    def _origin(self, group: Group, scope: Scope) -> Origin:
        try:
            return origin_of(group.header, scope.header)
        except Exception as error:
            self._spare(error)
            return _NOBODY

    def _spare(self, error: Exception) -> None:
        """One span's defect must not cost the batch: it leaves as it came, counted."""
        self._accounting.counters.errors.add(1)
        if not isinstance(error, DecodeError):
            self._accounting.complaints.defect(type(error).__name__)
