"""The orderly end: take the application's last flush, decide what is held, send what waits, within one deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from collector.pipeline.graph import Intake
from collector.service.host import ServiceHost
from collector.service.swap import release, stop_each

QUIET = 2.0  # an application's last flush often comes after our SIGTERM: keep accepting until that long nothing came


async def drain(host: ServiceHost, patience: float, settle: Callable[[float], Awaitable[None]]) -> None:
    """Empty the running graph within `patience` seconds; `settle(seconds)` first ends a reload that has begun."""
    now = time.monotonic
    host.enter("draining")
    started = now()
    deadline = started + patience
    host.log.info("draining", extra={"queued": _queued(host), "hint": "a second signal ends it at once"})
    await settle(patience / 4)
    graph = host.graph
    assert graph is not None
    destinations = {d: None for g in (*host.leaving, graph) for d in g.destinations.values()}
    for destination in destinations:
        destination.flush()
    await quiet(graph.intakes.values(), started, started + patience / 2)
    closing = asyncio.create_task(stop_each(graph.receivers.values()))
    await asyncio.wait({closing}, timeout=max(deadline - now(), 0) / 2)  # a slow client must not take all of the time
    for leaving in host.leaving:
        release(leaving, graph)
    for pipeline in graph.pipelines.values():
        pipeline.drain()
    draining = asyncio.gather(*(d.drain(deadline - now()) for d in destinations))
    while not draining.done():
        done, _ = await asyncio.wait([draining], timeout=1.0)
        if not done:
            left = f"{deadline - now():.0f} s of {patience:g} left"
            host.log.info("draining", extra={"queued": _queued(host), "time": left})
    await asyncio.gather(*(destination.stop() for destination in destinations))
    host.log.info("drained", extra={"seconds": round(now() - started, 1)})


async def quiet(intakes: Iterable[Intake], since: float, until: float) -> None:
    """Return when 2 s have passed since the last data (and since `since`), at the latest at `until`; monotonic seconds."""
    now = time.monotonic
    watched = list(intakes)
    while True:
        left = min(max([since, *(intake.last for intake in watched)]) + QUIET, until) - now()
        if left <= 0:
            return
        await asyncio.sleep(left)


def _queued(host: ServiceHost) -> int:
    return sum(count for _, _, count in host.queued())
