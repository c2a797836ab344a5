"""What the running service shows to its components: state, status, budget and metrics text."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from collector import __version__
from collector.component import Exporter
from collector.meters import Meters
from collector.model import Signal
from collector.pipeline.admission import ByteBudget, limits
from collector.pipeline.ledger import Ledger
from collector.service.stalls import Stalls

if TYPE_CHECKING:
    from collector.service.graph import Graph


class Clock:
    """Monotonic seconds, and wall time that never goes back."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    monotonic = staticmethod(time.monotonic)

    def wall(self) -> float:
        """Seconds since 1970, from the clock at start plus the time that has passed."""
        return self._offset + time.monotonic()


class ServiceHost:
    """The Host of all components; it outlives a reload, and so do the counters."""

    def __init__(self) -> None:
        self.meters = Meters()
        self.clock = Clock()
        self._budget = ByteBudget(*limits())
        self.ledger = Ledger(self.meters)
        self.stalls = Stalls(self.meters)
        self.log = logging.getLogger("collector.service")
        self.graph: Graph | None = None
        self.leaving: list[Graph] = []
        self.digest = ""
        self.reload_error = ""
        self.without_type_suffix = False
        self.reload: Callable[[], None] = lambda: None
        self._state = "starting"
        self._since = self.clock.wall()

    @property
    def budget(self) -> ByteBudget:
        """The process-wide byte budget."""
        return self._budget

    @property
    def exporters(self) -> dict[str, Exporter]:
        """All exporters by id."""
        return self.graph.exporters if self.graph else {}

    def state(self) -> str:
        """`starting`, `running`, `draining` or `failed`."""
        return self._state

    def enter(self, state: str) -> None:
        """Change the state."""
        self._state = state

    def status(self) -> dict[str, Any]:
        """Components, queues, accounting and configuration hash, ready for JSON."""
        graph = self.graph
        return {
            "state": self._state,
            "version": __version__,
            "uptime_seconds": round(self.clock.wall() - self._since, 3),
            "config_hash": self.digest,
            "last_reload_error": self.reload_error,
            "memory": {
                "resident_bytes": self.budget.resident,
                "limit_bytes": self.budget.limit,
                "requests_in_flight_bytes": self.budget.in_flight,
                "message_limit_bytes": self.budget.message_limit(),
            },
            "event_loop": {"longest_stall_seconds": round(self.stalls.longest, 4)},
            "pipelines": graph.describe() if graph else {},
            "exporters": {name: d.status() for name, d in graph.destinations.items()} if graph else {},
            "accounting": self.ledger.balance(self.queued()),
        }

    def queued(self) -> list[tuple[Signal, str, int]]:
        """(signal, exporter, items) inside queues and processors at this moment."""
        return [*self.graph.queued(), *self.graph.leftovers(reversed(self.leaving))] if self.graph else []

    def exposition(self, accept: str, *, own: bool) -> tuple[bytes, str]:
        """Metrics text and its content type: `own` = everything for port 8888, else the derived families only."""
        from collector.service.telemetry import exposition

        self.refresh()
        return exposition(self.meters, accept, own=own, without_type_suffix=self.without_type_suffix)

    def refresh(self) -> None:
        """Bring all gauges up to date before they are read."""
        if self.graph is not None:
            self.graph.refresh()
        self.meters.gauge("collector_memory_limit_bytes", "Memory limit of the process.").set(self.budget.limit)
