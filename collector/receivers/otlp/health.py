"""gRPC health v1 on the OTLP port: SERVING while the service runs, NOT_SERVING otherwise (R-1104)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from collector.component import Budget
from collector.errors import Malformed
from collector.otlp.answers import failure
from collector.receivers.otlp.face import Call, Handler, Reply, refusal

EVERY = 0.25
_SERVICE = "grpc.health.v1.Health"
_STATUS = health_pb2.HealthCheckResponse
_NOT_FOUND = 5


class Health:
    """Check and Watch, fed from the service's state."""

    def __init__(self, state: Callable[[], str], services: Iterable[str], budget: Budget) -> None:
        self._state, self._services, self._budget = state, frozenset(services), budget
        self._leaving = asyncio.Event()

    def handlers(self) -> dict[str, Handler]:
        """Method -> handler that answers once."""
        return {f"/{_SERVICE}/Check": _answering(self._check)}

    def streams(self) -> dict[str, Handler]:
        """Method -> handler that answers again and again."""
        return {f"/{_SERVICE}/Watch": _answering(self._watch)}

    def leave(self) -> None:
        """End all watches: they would keep the port open for as long as it may wait for calls."""
        self._leaving.set()

    def _status(self, service: str) -> int:
        if service not in self._services:
            return int(_STATUS.SERVICE_UNKNOWN)
        return int(_STATUS.SERVING if self._state() == "running" else _STATUS.NOT_SERVING)

    async def _service(self, call: Call) -> str:
        with self._budget.hold() as hold:
            body = await call.body(hold)
        try:
            return str(health_pb2.HealthCheckRequest.FromString(body).service)
        except DecodeError:
            raise Malformed("not a health check") from None

    async def _check(self, call: Call) -> Reply:
        status = self._status(await self._service(call))
        if status == _STATUS.SERVICE_UNKNOWN:
            return Reply(None, _NOT_FOUND)
        return Reply(_STATUS(status=status).SerializeToString())  # type: ignore[arg-type]

    async def _watch(self, call: Call) -> Reply:
        """An answer for every change, until the client leaves or the port closes."""
        service, last = await self._service(call), -1
        while not self._leaving.is_set():
            if (status := self._status(service)) != last:
                last = status
                await call.write(_STATUS(status=status).SerializeToString())  # type: ignore[arg-type]
            await _wait(self._leaving, EVERY)
        return Reply(None)


def _answering(handler: Callable[[Call], Awaitable[Reply]]) -> Handler:
    async def answer(call: Call) -> Reply:
        try:
            return await handler(call)
        except Exception as error:
            return refusal(failure(error))

    return answer


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
