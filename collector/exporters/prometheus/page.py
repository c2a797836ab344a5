"""The listening side: one page per address, handed over without a gap when a reload changes the component behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from collector.fields import ServerTLS, listen_address
from collector.meters import Meters

if TYPE_CHECKING:
    from aiohttp import web

Answer = Callable[[Any], Awaitable["web.Response"]]


class Page:
    """A listener; the newest of its answerers speaks, and when the last one leaves, the port closes."""

    def __init__(self, tls: ServerTLS | None) -> None:
        self.tls = tls
        self.answers: list[Answer] = []
        self._runner: web.AppRunner | None = None

    async def listen(self, endpoint: str) -> None:
        """Open the port. Raises OSError when the address is taken or a certificate cannot be read."""
        from aiohttp import web

        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            context = self.tls.context() if self.tls else None
            await web.TCPSite(runner, *listen_address(endpoint), ssl_context=context).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def _answer(self, request: web.Request) -> web.Response:
        return await self.answers[-1](request)

    async def close(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()


_pages: WeakKeyDictionary[Meters, dict[str, Page]] = WeakKeyDictionary()


async def join(meters: Meters, endpoint: str, tls: ServerTLS | None, answer: Answer) -> None:
    """Answer on `endpoint` from now on. A page that the same service has open there is taken over. Raises OSError."""
    pages = _pages.setdefault(meters, {})
    page = pages.get(endpoint)
    if page is None or page.tls != tls:
        page = Page(tls)
        await page.listen(endpoint)
        pages[endpoint] = page
    page.answers.append(answer)


async def leave(meters: Meters, endpoint: str, answer: Answer) -> None:
    """Answer no longer; the one before speaks again, or the port closes."""
    pages = _pages.get(meters, {})
    page = pages.get(endpoint)
    if page is None or answer not in page.answers:
        return
    page.answers.remove(answer)
    if not page.answers:
        del pages[endpoint]
        await page.close()
