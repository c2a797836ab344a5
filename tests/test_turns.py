"""turns: one slice in each round of the loop, the oldest request first."""

import asyncio
import itertools

from collector.turns import begin, turn
from tests.support import eventually


async def work(name: str, slices: int, log: list[str], *, request: bool = True) -> None:
    if request:
        begin()
    for _ in range(slices):
        await turn()
        log.append(name)


async def test_between_two_slices_of_all_requests_together_the_loop_goes_round():
    log: list[str] = []
    seen: list[int] = []
    done = asyncio.Event()

    async def watch():
        while not done.is_set():
            seen.append(len(log))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(work(str(number), 5, log) for number in range(20)))
    done.set()
    await watching
    assert len(log) == 100
    assert max(after - before for before, after in itertools.pairwise(seen)) == 1


async def test_the_request_that_began_first_is_done_first():
    log: list[str] = []
    await asyncio.gather(work("a", 4, log), work("b", 3, log), work("c", 2, log))
    assert "".join(log) == "aaaabbbcc"


async def test_who_never_began_has_the_place_of_each_turn():
    log: list[str] = []
    await asyncio.gather(work("a", 3, log, request=False), work("b", 3, log, request=False))
    assert "".join(log) == "ababab"


async def test_a_request_that_is_cancelled_holds_nobody_up():
    log: list[str] = []
    tasks = [asyncio.create_task(work(name, slices, log)) for name, slices in (("a", 10**9), ("b", 100))]
    await eventually(lambda: "a" in log)
    tasks[0].cancel()
    await tasks[1]
    assert log == ["a"] * log.count("a") + ["b"] * 100
    await asyncio.wait_for(turn(), 5)


def test_every_loop_has_a_queue_of_its_own():
    for _ in range(2):
        asyncio.run(turn())
