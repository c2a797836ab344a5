"""Handing a listener over."""

from __future__ import annotations

from typing import Any

from bench.ports import free_port
from collector.exporters.prometheus.page import Page, join, leave
from collector.meters import Meters


async def silent(request: Any) -> Any:
    raise AssertionError("nobody asks")


async def test_leaving_a_page_that_was_never_joined_does_nothing() -> None:
    meters, endpoint = Meters(), f"localhost:{free_port()}"
    await leave(meters, endpoint, silent)
    await join(meters, endpoint, None, silent)

    async def other(request: Any) -> Any:
        raise AssertionError("nobody asks")

    await leave(meters, endpoint, other)
    await leave(meters, endpoint, silent)
    await leave(meters, endpoint, silent)
    await Page(None).close()
