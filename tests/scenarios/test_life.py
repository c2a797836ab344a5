"""The whole program: start, probes, reload under load, two destinations, signals, limits and addresses."""

import asyncio
import itertools
import signal
import stat

import aiohttp

from tests.scenarios.program import PROTOBUF, backend, delivered, program
from tests.support import span, traces

QUICK = {"sending_queue": {"batch": {"flush_timeout": "5ms"}}}


def exact(shown, signal_name="traces"):
    rows = shown["accounting"].get(signal_name, {})
    assert all(row["balance"] == 0 for row in rows.values()), rows
    return rows


async def test_reloads_under_load_lose_nothing_and_leave_no_descriptor_open(tmp_path):
    """R-103, R-113."""
    async with backend() as one, backend() as two, program(tmp_path) as sidecar:
        await sidecar.start(sidecar.configuration(one, two, b0=QUICK, b1=QUICK))
        await sidecar.send()
        going = True

        async def load():
            while going:
                await sidecar.send()

        tasks = [asyncio.create_task(load()) for _ in range(3)]
        counts = []
        for number in range(24):
            pause = {"sending_queue": {"batch": {"flush_timeout": f"{5 + number}ms"}}}
            protocols = {"http": {"endpoint": f"127.0.0.1:{sidecar.http}", "include_metadata": number % 4 == 0}}
            before = (await sidecar.until(lambda _: True))["config_hash"]
            sidecar.write(sidecar.configuration(one, two, b0=pause, b1=QUICK, protocols=protocols))
            sidecar.signal(signal.SIGHUP)
            await sidecar.until(lambda shown, before=before: shown["config_hash"] != before)
            exact(await sidecar.until(lambda _: True))
            counts.append(sidecar.descriptors())
        going = False
        await asyncio.gather(*tasks)
        assert len(sidecar.accepted) > 100
        await delivered(one, sidecar.accepted)
        await delivered(two, sidecar.accepted)
        shown = await sidecar.until(lambda shown: all(not row["queued"] for row in exact(shown).values()))
        assert {row["accepted"] for row in exact(shown).values()} == {len(sidecar.accepted)}
        assert max(counts[-6:]) <= max(counts[:6]) + 12, counts
        assert await sidecar.end() == 0


async def test_a_destination_that_takes_30_seconds_does_not_slow_the_other_one(tmp_path):
    """R-104."""
    async with backend() as well, backend() as ill, program(tmp_path) as sidecar:
        ill.delay = 30
        await sidecar.start(sidecar.configuration(well, ill, b0=QUICK, b1={**QUICK, "timeout": "60s"}), "--drain-timeout", "1s")
        for _ in range(100):
            assert await sidecar.send() == 200
        await delivered(well, sidecar.accepted, 3)
        rows = exact(await sidecar.until(lambda _: True))
        assert rows["otlp_http/b1"]["queued"] == 500
        assert await sidecar.end() == 0


async def test_probes_tell_the_drain_and_the_last_flush_is_taken(tmp_path):
    """R-1104."""
    async with backend() as one, program(tmp_path) as sidecar:
        await sidecar.start(sidecar.configuration(one))
        assert [await sidecar.probe(path) for path in ("/", "/livez", "/startupz", "/readyz")] == [200] * 4
        sidecar.signal(signal.SIGTERM)
        await sidecar.until(lambda shown: shown["state"] == "draining")
        assert [await sidecar.probe(path) for path in ("/", "/livez", "/startupz", "/readyz")] == [200, 200, 200, 503]
        assert await sidecar.send() == 200
        assert await asyncio.wait_for(sidecar.process.wait(), 20) == 0
        assert sidecar.accepted <= one.spans.keys()


async def test_a_second_signal_ends_it_at_once(tmp_path):
    async with backend() as one, program(tmp_path) as sidecar:
        one.status = 503
        await sidecar.start(sidecar.configuration(one))
        await sidecar.send()
        sidecar.signal(signal.SIGTERM)
        await sidecar.until(lambda shown: shown["state"] == "draining")
        sidecar.signal(signal.SIGTERM)
        assert await sidecar.end(2) == 1


async def test_a_dead_backend_does_not_keep_it_longer_than_asked(tmp_path):
    async with backend() as one, program(tmp_path) as sidecar:
        one.status = 503
        await sidecar.start(sidecar.configuration(one), "--drain-timeout", "2s")
        await sidecar.send()
        assert await sidecar.end(6) == 0
        assert '"dropped_items":5' in sidecar.log.read_text()


async def test_small_requests_are_taken_where_memory_is_scarce(tmp_path):
    """R-111."""
    async with backend() as one, program(tmp_path) as sidecar:
        limiter = {"memory_limiter": {"check_interval": "1s", "limit_mib": 40}}
        await sidecar.start(sidecar.configuration(one, b0=QUICK, processors=limiter))
        for _ in range(30):
            assert await sidecar.send(50) == 200
        await delivered(one, sidecar.accepted)
        assert "the memory limit is below" in sidecar.log.read_text()


async def test_two_on_one_host_do_not_disturb_each_other_and_a_taken_port_is_named(tmp_path):
    async with (
        backend() as one,
        program(tmp_path / "a") as first,
        program(tmp_path / "b") as second,
        program(tmp_path / "c") as third,
    ):
        await first.start(first.configuration(one, b0=QUICK))
        await second.start(second.configuration(one, b0=QUICK))
        third.http = first.http
        await third.start(third.configuration(one))
        assert await third.end() == 1
        assert 'failed to start \\"otlp\\" receiver' in third.log.read_text()
        for each in (first, second):
            assert await each.send() == 200
            await delivered(one, each.accepted)


async def test_ipv6_and_unix_addresses_work_and_leave_nothing(tmp_path):
    async with backend() as one, program(tmp_path) as sidecar:
        path = tmp_path / "otlp.sock"
        for address, url, connector in (
            (f"unix:{path}", "http://x/v1/traces", aiohttp.UnixConnector(str(path))),
            (f"[::1]:{sidecar.http}", f"http://[::1]:{sidecar.http}/v1/traces", aiohttp.TCPConnector()),
        ):
            await sidecar.start(sidecar.configuration(one, protocols={"http": {"endpoint": address}}))
            assert address[0] == "[" or stat.S_ISSOCK(path.stat().st_mode)
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.post(url, data=traces(span()).SerializeToString(), headers=PROTOBUF) as answer,
            ):
                assert answer.status == 200
            assert await sidecar.end() == 0
        assert not path.exists()
        assert sum(one.spans.values()) == 2


async def test_a_signal_at_any_moment_of_the_start_ends_it_cleanly(tmp_path):
    async with backend() as one, program(tmp_path) as sidecar:
        for wait in itertools.islice(itertools.count(0.1, 0.15), 5):
            start = asyncio.create_task(sidecar.start(sidecar.configuration(one)))
            await asyncio.sleep(wait)
            assert await sidecar.end() in (0, -signal.SIGTERM)
            await asyncio.wait([start])
        assert "Traceback" not in sidecar.log.read_text()
