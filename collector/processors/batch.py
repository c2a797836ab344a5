"""Accepted for otelcol configurations; requests are joined in the queue of each exporter, not here.

Holding data here would answer clients before their data is in a queue. The exporter's queue joins requests by
`sending_queue.batch`, with the same defaults (8192 items, 200 ms).

Example:
    timeout: 200ms
    send_batch_size: 8192
"""

from __future__ import annotations

from pydantic import Field, model_validator

from collector.component import Processor
from collector.fields import Config, Duration
from collector.model import Batch


class BatchConfig(Config):
    """otelcol's options."""

    timeout: Duration = 0.2
    """Accepted without effect: see `sending_queue.batch.flush_timeout` of the exporter."""
    send_batch_size: int = Field(8192, ge=0)
    """Accepted without effect: see `sending_queue.batch.min_size` of the exporter."""
    send_batch_max_size: int = Field(0, ge=0)
    """Accepted without effect: see `sending_queue.batch.max_size` of the exporter."""
    metadata_keys: list[str] = Field(default_factory=list)
    """Accepted without effect: requests with different metadata are never joined."""
    metadata_cardinality_limit: int = Field(1000, ge=0)
    """Accepted without effect."""

    @model_validator(mode="after")
    def _sizes(self) -> BatchConfig:
        if self.send_batch_max_size and self.send_batch_max_size < self.send_batch_size:
            raise ValueError("send_batch_max_size must be greater or equal to send_batch_size")
        return self


class JoinLater(Processor):
    """Passes every batch on at once."""

    Config = BatchConfig

    def process(self, batch: Batch, now: float) -> Batch | None:
        """The same batch."""
        return batch
