"""Replaces a running graph by another one: everything new is started first, and on any failure the old one goes on.

What the old graph still holds is given to its successors or sent by itself, and stays in the books until then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from collector.component import Extension, Receiver
from collector.pipeline.destination import Destination
from collector.pipeline.graph import LONGEST_WAIT
from collector.service.graph import Graph, adopt, naming
from collector.service.host import ServiceHost

_KINDS = ("exporters", "extensions", "receivers")
LAST_MOMENT = 2.0  # seconds that components get to close when everything else is over
_LOOK = 0.02


class Swap:
    """From `old` to `new`; `patience`: seconds that queues without a successor get to be sent."""

    def __init__(self, host: ServiceHost, old: Graph, new: Graph, patience: float) -> None:
        self._host, self.old, self.new, self._patience = host, old, new, patience
        self._fresh = {kind: _missing(getattr(new, kind), getattr(old, kind)) for kind in _KINDS}
        self._gone = {kind: _missing(getattr(old, kind), getattr(new, kind)) for kind in _KINDS}

    async def start(self) -> None:
        """Start what is new. Raises SidecarError; then the old graph works as before and nothing new is left."""
        try:
            await start_each(self._fresh["exporters"].items(), "exporter", lambda e: e.start())
            await self._move_listeners()
        except BaseException:
            await self._undo()
            raise

    def commit(self) -> None:
        """Let the new graph take over, in one step."""
        for name in self._fresh["exporters"]:
            self.new.destinations[name].start()
        adopt(self.new, self.old)
        release(self.old, self.new)
        self._host.graph = self.new
        self._host.leaving.append(self.old)

    async def retire(self) -> None:
        """Empty what is no longer used: processors into the old chain, queues into their successors or backends."""
        successors = [name for name in self._gone["exporters"] if name in self.new.destinations]
        await asyncio.gather(
            *(self.old.destinations[name].hand_over(self.new.destinations[name], self._patience) for name in successors)
        )
        deadline = asyncio.get_running_loop().time() + LONGEST_WAIT + self._patience
        while any(p.busy for p in self.old.pipelines.values()) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - rare
            await asyncio.sleep(_LOOK)  # a request that began on the old graph ends on it
        release(self.old, self.new)
        await asyncio.gather(*(self._empty(self.old.destinations[n]) for n in self._gone["exporters"] if n not in successors))
        await stop_each(self._gone["exporters"].values())
        if self.old in self._host.leaving:
            self._host.leaving.remove(self.old)
        self._host.meters.settle()  # what is owed keeps the old graph alive, and nobody may come to ask

    async def _empty(self, destination: Destination) -> None:
        await destination.drain(self._patience)
        await destination.stop()

    async def _undo(self) -> None:
        """Give what the new graph took in the meantime to the old one, and stop it."""
        release(self.new, self.old)
        for name in self._fresh["exporters"]:
            destination, successor = self.new.destinations[name], self.old.destinations.get(name)
            if successor is not None:
                await destination.hand_over(successor, 0.0)
            await destination.stop()
        await stop_each(self._fresh["exporters"].values())
        self._host.meters.settle()

    async def _move_listeners(self) -> None:
        """Stop listeners that change and start their successors; on failure the old ones listen again."""
        new, old = self.new, self.old
        kept = [name for name, r in new.receivers.items() if old.receivers.get(name) is r]
        moved = {name: new.receivers[name] for name in kept if set(new.accepts(name)) != set(old.accepts(name))}
        leaving: dict[str, Receiver | Extension] = {**self._gone["receivers"], **self._gone["extensions"], **moved}
        await stop_each(leaving.values())
        try:
            await start_each(self._fresh["extensions"].items(), "extension", lambda e: e.start())
            for receivers in (self._fresh["receivers"], moved):
                await start_each(receivers.items(), "receiver", lambda r: r.start(new.accepts(r.settings.id)))
        except BaseException:
            await stop_each([*self._fresh["receivers"].values(), *moved.values(), *self._fresh["extensions"].values()])
            await self._listen_again(moved)
            raise

    async def _listen_again(self, moved: dict[str, Receiver]) -> None:
        """Each on its own: one address that is lost must not cost the others."""
        back: list[tuple[str, Any, Callable[[Any], Awaitable[None]]]] = [
            *(("extension", one, lambda e: e.start()) for one in self._gone["extensions"].items()),
            *(("receiver", one, lambda r: r.start(self.old.accepts(r.settings.id)))
              for one in (self._gone["receivers"] | moved).items()),
        ]  # fmt: skip
        for kind, one, start in back:
            try:
                await start_each([one], kind, start)
            except Exception as error:
                logging.getLogger("collector.service").critical("does not listen any more", extra={"error": str(error)})


def release(leaving: Graph, staying: Graph) -> None:
    """Let go what is held by processors that only `leaving` has."""
    for pipeline in leaving.pipelines.values():
        pipeline.drain(keep=tuple(staying.processors.values()))


def _missing(some: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    return {name: component for name, component in some.items() if others.get(name) is not component}


async def start_each(components: Iterable[tuple[str, Any]], kind: str, start: Callable[[Any], Awaitable[None]]) -> None:
    """Start components in order. Raises SidecarError with the component's name."""
    for name, component in components:
        with naming(name, kind, "start"):
            await start(component)


async def stop_each(components: Iterable[Any], timeout: float | None = None) -> None:
    """Stop components at the same time; a failure of one, or one that hangs, does not keep the others."""
    tasks = [asyncio.ensure_future(component.stop()) for component in components]
    if not tasks:
        return
    _, hanging = await asyncio.wait(tasks, timeout=timeout)
    for task in hanging:
        task.cancel()
    for task in tasks:
        if task in hanging or (not task.cancelled() and task.exception() is not None):
            error = "it hangs" if task in hanging else type(task.exception()).__name__
            logging.getLogger("collector.service").error("stop failed", extra={"error": error})
