"""Refuses new data while memory is short, so that the sidecar is never killed for what an application sends.

Its numbers set the process-wide byte budget: bytes are reserved before they are read, and refused with a retry hint when there is
no room (reliability: admission). Put it first in every pipeline.

Example:
    check_interval: 1s
    limit_mib: 400
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from collector.component import Processor, Settings
from collector.errors import Refused
from collector.fields import Config, Duration
from collector.model import Batch, Signal


class MemoryLimiterConfig(Config):
    """otelcol's options; limits are measured on the resident size and the container's limit."""

    check_interval: Duration = 0.1
    """How often memory is measured (otelcol: required; ours is never slower than 1s)."""
    limit_mib: int = Field(0, ge=0)
    """Hard limit of the process in MiB; 0 = limit_percentage, else 75 % of the container's limit, else 768."""
    limit_percentage: int = Field(0, ge=0, le=100)
    """Hard limit in percent of the container's limit; limit_mib wins."""
    spike_limit_mib: int = Field(0, ge=0)
    """Room kept free below the hard limit: above limit - spike new data is refused; 0 = 20 % of the limit."""
    spike_limit_percentage: int = Field(0, ge=0, le=100)
    """The same in percent of the container's limit."""
    min_gc_interval_when_soft_limited: Duration = 10.0
    """Accepted without effect."""
    min_gc_interval_when_hard_limited: Duration = 0.0
    """Accepted without effect."""
    max_gc_interval_when_soft_limited: Duration = 30.0
    """Accepted without effect."""
    max_gc_interval_when_hard_limited: Duration = 30.0
    """Accepted without effect."""

    @model_validator(mode="after")
    def _spike_below_limit(self) -> MemoryLimiterConfig:
        if self.limit_mib and self.spike_limit_mib >= self.limit_mib:
            raise ValueError("spike_limit_mib must be smaller than limit_mib")
        if self.limit_percentage and self.spike_limit_percentage >= self.limit_percentage:
            raise ValueError("spike_limit_percentage must be smaller than limit_percentage")
        return self


class MemoryLimiter(Processor):
    """Lets a batch pass, or raises Refused while the process is above its soft limit."""

    Config = MemoryLimiterConfig

    def __init__(self, config: Any, settings: Settings) -> None:
        super().__init__(config, settings)
        self._counters: dict[tuple[str, Signal], Any] = {}

    def process(self, batch: Batch, now: float) -> Batch | None:
        """The same batch. Raises errors.Refused."""
        try:
            self.settings.host.budget.check()
        except Refused:
            self._count("refused", batch)
            raise
        self._count("accepted", batch)
        return batch

    def _count(self, what: str, batch: Batch) -> None:
        counter = self._counters.get((what, batch.signal))
        if counter is None:
            name = f"otelcol_processor_memory_limiter_{what}_{batch.signal.noun}"
            counter = self._counters[what, batch.signal] = self.settings.meters.counter(
                name, f"Items {what} by the memory limiter.", ("processor",), cap=0
            )
        counter.add(batch.count(), self.settings.id)
