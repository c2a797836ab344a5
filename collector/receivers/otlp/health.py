"""gRPC health v1 on the OTLP port: SERVING while the service runs, NOT_SERVING otherwise (R-1104)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

EVERY = 0.25
_Standard: Any = vars(health)["aio"].HealthServicer
_STATUS = health_pb2.HealthCheckResponse


class Health(_Standard):  # type: ignore[misc]
    """The library's servicer, fed from the service's state."""

    def __init__(self, state: Callable[[], str], services: Iterable[str]) -> None:
        super().__init__()
        self._state, self._services = state, tuple(services)
        self._watches: set[asyncio.Task[None]] = set()

    def add_to(self, server: Any) -> None:
        """Serve on `server`."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    async def refresh(self) -> None:
        """Take over what the service says."""
        status = _STATUS.SERVING if self._state() == "running" else _STATUS.NOT_SERVING
        for service in self._services:
            await self.set(service, status)

    async def Check(self, request: Any, context: Any) -> Any:
        """One answer."""
        await self.refresh()
        return await super().Check(request, context)

    async def Watch(self, request: Any, context: Any) -> None:
        """An answer for every change, until the client leaves or the port closes."""
        await self.refresh()
        follow, watch = asyncio.create_task(self._follow()), asyncio.create_task(super().Watch(request, context))
        self._watches.add(watch)
        try:
            await asyncio.wait({watch})
        finally:
            self._watches.discard(watch)
            watch.cancel()
            follow.cancel()

    def leave(self) -> None:
        """End all watches: they would keep the port open for as long as it may wait for calls."""
        for watch in self._watches:
            watch.cancel()

    async def _follow(self) -> None:
        last = self._state()
        while True:
            await asyncio.sleep(EVERY)
            if self._state() != last:
                last = self._state()
                await self.refresh()
