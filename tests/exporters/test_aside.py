"""exporters._aside: one thread for what Python computes too long for the event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from collector.exporters import _aside
from collector.exporters._aside import aside
from collector.exporters.loki import Loki
from collector.exporters.otlp_http import OtlpHttp
from tests.support import build, eventually


async def test_what_several_ask_for_is_computed_one_after_the_other_beside_the_loop() -> None:
    order: list[tuple[str, int]] = []
    first, go_on = threading.Event(), threading.Event()

    def compute(number: int, *, wait: bool = False) -> int:
        order.append(("begins", number))
        first.set()
        assert not wait or go_on.wait(10)
        order.append(("ends", number))
        return threading.get_ident()

    tasks = [asyncio.create_task(aside(compute, number, wait=not number)) for number in range(3)]
    await eventually(first.is_set)
    go_on.set()
    threads = set(await asyncio.gather(*tasks))
    assert order == [(step, number) for number in range(3) for step in ("begins", "ends")]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(("what", "options"), [(Loki, {}), (OtlpHttp, {"encoding": "json"})])
def test_the_thread_runs_before_there_is_work_for_it(what: Any, options: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as thread:
        monkeypatch.setattr(_aside, "_thread", thread)
        build(what, {"endpoint": "http://localhost:1", **options})
        assert len(thread._threads) == 1


async def test_an_error_reaches_who_asked_and_the_next_is_computed_all_the_same() -> None:
    with pytest.raises(ZeroDivisionError):
        await aside(divmod, 1, 0)
    assert await aside(divmod, 7, 2) == (3, 1)


async def test_the_loop_waits_less_for_the_interpreter_only_while_something_is_computed() -> None:
    before = sys.getswitchinterval()
    assert await aside(sys.getswitchinterval) <= 0.001
    with pytest.raises(ZeroDivisionError):
        await aside(divmod, 1, 0)
    assert sys.getswitchinterval() == before


async def test_what_was_cancelled_before_its_turn_is_not_computed() -> None:
    begun, go_on, calls = threading.Event(), threading.Event(), []

    def wait() -> None:
        begun.set()
        assert go_on.wait(10)

    running = asyncio.create_task(aside(wait))
    await eventually(begun.is_set)
    cancelled = asyncio.create_task(aside(calls.append, 1))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    go_on.set()
    await running
    await aside(calls.append, 2)
    assert calls == [2]
