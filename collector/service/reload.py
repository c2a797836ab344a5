"""Loads the configuration again when somebody asks: one at a time, the old one stays in force until the new one works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from collector.config.load import Loaded, Resolved
from collector.errors import SidecarError
from collector.service.host import ServiceHost
from collector.service.swap import LAST_MOMENT

MOST_TOLD = 10  # problems of one reload in the log; /status has all


class Reloads:
    """`load` checks the configuration in a thread, `swap` puts it in force; either may raise. None begins after `stopping`."""

    def __init__(
        self,
        host: ServiceHost,
        load: Callable[[], Loaded],
        swap: Callable[[Resolved], Awaitable[None]],
        stopping: asyncio.Event,
    ) -> None:
        self._host, self._load, self._swap, self._stopping = host, load, swap, stopping
        self.task: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._again = False
        self._ok = host.meters.gauge("config_last_reload_successful", "1 when the last load worked, else 0.")

    def request(self) -> None:
        """Load the configuration again; requests that come meanwhile, or during the start, merge into one more."""
        if self._host.state() == "starting" or (self.task is not None and not self.task.done()):
            self._again = True
        elif not self._stopping.is_set():
            self.task = asyncio.get_running_loop().create_task(self._reload())

    def catch_up(self) -> None:
        """After the start: do what was asked for meanwhile."""
        if self._again:
            self._again = False
            self.request()

    def worked(self) -> None:
        """Say that the last load is in force."""
        self._ok.set(1)
        self._host.reload_error = ""

    def retire(self, leaving: Coroutine[None, None, None]) -> None:
        """Let an old graph empty itself beside the new one."""
        task = asyncio.create_task(leaving)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def settle(self, patience: float) -> None:
        """Let a reload that has begun come to its end, so that there is one graph to drain; `patience` in seconds."""
        if self.task is not None and not self.task.done():
            await asyncio.wait({self.task}, timeout=patience)
        for task in self._retiring:
            task.cancel()
        if self._retiring:
            await asyncio.wait(self._retiring, timeout=LAST_MOMENT)

    async def _reload(self) -> None:
        try:
            loaded = await asyncio.to_thread(self._load)
            assert loaded.resolved is not None
            if self._stopping.is_set():
                return
            await self._swap(loaded.resolved)
        except Exception as error:
            self._failed(error)
        else:
            self._host.log.info("reloaded", extra={"config_hash": self._host.digest})
        if self._again and not self._stopping.is_set():
            self._again = False
            self.task = asyncio.get_running_loop().create_task(self._reload())

    def _failed(self, error: Exception) -> None:
        problems = _problems(error)
        self._host.reload_error = "\n".join(problems)
        self._ok.set(0)
        self._host.log.error("reload failed: the old configuration stays", extra={"error": problems[-1]})
        for problem in problems[:-1][:MOST_TOLD]:
            self._host.log.error("reload: %s", problem)


def said(error: BaseException) -> str:
    """What may be told of an error: its text where we wrote it, else its kind."""
    return str(error) if isinstance(error, SidecarError | OSError) else type(error).__name__


def _problems(error: Exception) -> list[str]:
    """Line by line, without the excerpts of the file: pages and logs must not show what is written there (a key, perhaps)."""
    return [line for line in said(error).splitlines() if line[:1].strip()] or [type(error).__name__]
