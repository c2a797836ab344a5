"""service.reload and service.swap: reloads while other things happen; the books are exact at every moment."""

import asyncio
import gc
import random
import weakref

import pytest

from bench.ports import free_port
from collector.errors import Refused
from collector.model import Signal
from tests.service.sidecar import BASE, TWO, books
from tests.support import batch, eventually, span, traces

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_reload_keeps_unchanged_components_their_counters_and_their_queues(sidecar):
    """R-103."""
    await sidecar.start()
    await sidecar.feed(2)
    sink, feeder = sidecar.graph.exporters["sink"], sidecar.graph.receivers["feeder"]
    await sidecar.reload(BASE.replace("processors: [batch]", "processors: []"))
    assert sidecar.graph.exporters["sink"] is sink
    assert sidecar.graph.receivers["feeder"] is feeder
    await sidecar.feed(3)
    await eventually(lambda: sink.items == 5)
    assert sidecar.terms()["accepted"] == 5
    assert sidecar.service.host.status()["pipelines"]["traces"]["processors"] == []


async def test_a_reload_replaces_what_changed_and_empties_the_old_queue(sidecar):
    await sidecar.start()
    old_sink, old_feeder = sidecar.graph.exporters["sink"], sidecar.graph.receivers["feeder"]
    await sidecar.feed(2)
    await sidecar.reload(BASE.replace("{sink: {", "{sink: {mark: 1, ").replace("feeder: {}", "feeder: {mark: 1}"))
    await eventually(lambda: old_sink.stopped)
    assert (old_sink.items, old_feeder.running) == (2, False)
    await sidecar.feed(1)
    await eventually(lambda: sidecar.graph.exporters["sink"].items == 1)
    assert sidecar.terms()["accepted"] == 3


async def test_what_was_replaced_is_gone_though_nobody_has_read_what_it_counted(sidecar):
    def gone() -> bool:
        gc.collect()
        return old() is None

    await sidecar.start()
    await sidecar.reload(BASE.replace("processors: [batch]", "processors: []"))  # what the start built stays for good
    await sidecar.reload(BASE)
    old = weakref.ref(sidecar.graph.pipelines["traces"].chain)
    await sidecar.feed(2)
    await sidecar.reload(BASE.replace("processors: [batch]", "processors: []"))
    await eventually(gone)


@pytest.mark.parametrize("broken", ["receivers: {feeder: {typo: 1}}", BASE.replace("feeder: {}", "feeder: {fail: true}")])
async def test_a_reload_that_fails_keeps_the_old_configuration_running(sidecar, broken, caplog):
    """R-103."""
    await sidecar.start()
    before = sidecar.service.host.digest
    await sidecar.reload(broken)
    host = sidecar.service.host
    assert host.digest == before
    assert host.status()["last_reload_error"]
    assert host.meters.gauge("config_last_reload_successful", "").value() == 0
    assert sidecar.graph.receivers["feeder"].running
    await sidecar.feed(1)
    await eventually(lambda: sidecar.graph.exporters["sink"].items == 1)
    await sidecar.reload(BASE.replace("1ms", "2ms"))
    assert host.meters.gauge("config_last_reload_successful", "").value() == 1
    assert host.status()["last_reload_error"] == ""


async def test_a_reload_reads_the_prices_of_a_kept_processor_again(sidecar, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("prices: [{match: {model: own}, input: 1, output: 1}]")
    await sidecar.start(
        BASE.replace("batch: {}}", f"llm_cost: {{prices_file: '{prices}', preload: false}}}}").replace("[batch]", "[llm_cost]")
    )
    (processor,) = sidecar.graph.processors.values()
    reloads = sidecar.service.host.meters.find("llm_price_reloads")
    prices.write_text("prices: [{match: {model: own}, input: 2, output: 2}]")
    await sidecar.reload(sidecar.file.read_text())
    assert list(sidecar.graph.processors.values()) == [processor]
    assert (reloads.value("success"), reloads.value("error")) == (1, 0)
    prices.write_text("prices: 7")
    await sidecar.reload(sidecar.file.read_text())
    assert (reloads.value("success"), reloads.value("error")) == (1, 1)
    assert sidecar.service.host.reload_error == ""


async def test_a_receiver_that_gets_another_signal_starts_again(sidecar):
    await sidecar.start()
    await sidecar.reload(BASE.replace("pipelines: {", "pipelines: {logs: {receivers: [feeder], exporters: [sink]}, "))
    assert set(sidecar.graph.receivers["feeder"].accept) == {Signal.TRACES, Signal.LOGS}
    await sidecar.feed(1)
    await eventually(lambda: sidecar.graph.exporters["sink"].items == 1)


async def test_requests_to_reload_that_come_meanwhile_merge_into_one_more(sidecar):
    await sidecar.start()
    sidecar.file.write_text(BASE.replace("1ms", "2ms"))
    for _ in range(5):
        sidecar.service.reloads.request()
    first = sidecar.service.reloads.task
    await first
    await eventually(lambda: sidecar.service.reloads.task is not first and sidecar.service.reloads.task.done())
    assert sidecar.service.host.reload_error == ""


async def test_a_receiver_that_was_started_again_follows_the_next_reload_too(sidecar):
    await sidecar.start()
    logs = "pipelines: {logs: {receivers: [feeder], exporters: [sink]}, "
    await sidecar.reload(BASE.replace("pipelines: {", logs))
    await sidecar.reload(BASE.replace("pipelines: {", logs).replace("processors: [batch]", "processors: []"))
    given = sidecar.graph.receivers["feeder"].accept[Signal.TRACES]
    assert given.pipelines == (sidecar.graph.pipelines["traces"],)
    assert sidecar.graph.intakes["feeder", Signal.TRACES] is given
    await sidecar.feed(2)
    await eventually(lambda: sidecar.terms().get("delivered") == 2)


async def test_an_exporter_that_fails_to_start_leaves_nothing_new_behind(sidecar, caplog):
    await sidecar.start()
    before, sinks = sidecar.graph, type(sidecar.graph.exporters["sink"]).made
    known = len(sinks)
    text = TWO.replace("sink/b: {", "sink/b: {fail: true, ").replace("sink: {", "sink: {mark: 5, ")
    await sidecar.reload(text)
    assert sidecar.graph is before
    assert [sink.stopped for sink in sinks[known:]] == [True, True]
    error = sidecar.service.host.reload_error
    assert 'failed to start "sink/b" exporter: RuntimeError at sink.py' in error
    assert "secret" not in error + caplog.text
    await sidecar.feed(1)
    await eventually(lambda: sidecar.terms().get("delivered") == 1)


async def test_a_metrics_address_that_is_taken_leaves_everything_as_it_was(sidecar):
    await sidecar.start()
    before, digest = sidecar.graph, sidecar.service.host.digest
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader = f"readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]"
    await sidecar.reload(BASE.replace("level: none", reader).replace("{sink: {", "{sink: {mark: 1, "))
    assert (sidecar.graph, sidecar.service.host.digest) == (before, digest)
    assert "own metrics" in sidecar.service.host.reload_error
    assert not before.exporters["sink"].stopped
    server.close()
    await server.wait_closed()


async def test_the_metrics_address_moves_on_a_reload(sidecar):
    def text(port):
        return BASE.replace(
            "level: none", f"readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}]"
        )

    first, second = free_port(), free_port()
    await sidecar.start(text(first))
    await sidecar.reload(text(second))
    _, writer = await asyncio.open_connection("127.0.0.1", second)
    writer.close()
    await writer.wait_closed()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", first)
    await sidecar.reload(BASE)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", second)


async def test_the_queue_of_a_changed_exporter_is_handed_over(sidecar):
    """R-113."""
    await sidecar.start(BASE.replace("{sink: {", "{sink: {down: true, "))
    await sidecar.feed(7)
    await eventually(lambda: sidecar.graph.destinations["sink"].last_error)
    await sidecar.reload(BASE.replace("{sink: {", "{sink: {mark: 1, retry_on_failure: {initial_interval: 1ms}, "))
    books(sidecar)
    await eventually(lambda: books(sidecar)["sink"].get("delivered") == 7)
    assert sidecar.graph.exporters["sink"].items == 7
    await eventually(lambda: not sidecar.service.host.leaving)


async def test_the_queue_of_a_removed_exporter_stays_in_the_books_until_it_is_dropped(sidecar):
    await sidecar.start(TWO.replace("sink/b: {", "sink/b: {down: true, "), drain=0.3)
    await sidecar.feed(5)
    await sidecar.reload(TWO.replace("[sink, sink/b]", "[sink]"))
    assert books(sidecar)["sink/b"]["queued"] == 5
    await eventually(lambda: not sidecar.service.host.leaving)
    row = books(sidecar)["sink/b"]
    assert (row["queued"], row["dropped_shutdown"]) == (0, 5)


async def test_a_request_that_waits_for_room_ends_on_the_configuration_it_began_on(sidecar):
    queue = "sending_queue: {queue_size: 1, num_consumers: 1, block_on_overflow: true, batch: {flush_timeout: 1ms}}"
    old = BASE.replace("sending_queue: {batch: {flush_timeout: 1ms}}", f"down: true, {queue}")
    await sidecar.start(old, drain=0.3)
    await sidecar.feed(1)
    waiting = asyncio.create_task(sidecar.feed(2))
    await asyncio.sleep(0)
    await sidecar.reload(BASE.replace("{sink: {", "{sink: {mark: 1, retry_on_failure: {initial_interval: 1ms}, "))
    books(sidecar)
    await asyncio.gather(waiting, return_exceptions=True)
    await eventually(lambda: not sidecar.service.host.leaving)
    await eventually(lambda: books(sidecar)["sink"]["queued"] == 0)
    row = books(sidecar)["sink"]
    assert row["delivered"] == row["accepted"] >= 1


async def test_what_a_kept_processor_holds_goes_where_it_was_accepted_for(sidecar):
    text = TWO.replace("processors: []", "processors: [holder]")
    await sidecar.start(text)
    await sidecar.feed(4)
    await sidecar.reload(text.replace("[sink, sink/b]", "[sink, sink/c]"))
    await sidecar.feed(2)
    assert books(sidecar)["sink/c"]["queued"] == 2
    await sidecar.stop()
    shown = books(sidecar)
    assert {name: row["delivered"] for name, row in shown.items()} == {"sink": 6, "sink/b": 4, "sink/c": 2}


async def test_what_is_held_stays_held_where_nothing_behind_it_changes(sidecar):
    text = TWO.replace("processors: []", "processors: [holder]")
    await sidecar.start(text)
    await sidecar.feed(4)
    await sidecar.reload(text.replace("sink/b: {", "sink/b: {mark: 1, "))
    assert books(sidecar)["sink"]["queued"] == 4
    assert sidecar.graph.pipelines["traces"].chain.held() == 4


async def test_a_signal_to_reload_that_comes_during_the_start_waits_for_its_end(sidecar):
    sidecar.file.write_text(BASE)
    await sidecar.start(BASE)
    host = sidecar.service.host
    host.enter("starting")
    sidecar.file.write_text(BASE.replace("1ms", "2ms"))
    sidecar.service.reloads.request()
    assert sidecar.service.reloads.task is None
    sidecar.service._ready(sidecar.graph.resolved)
    await sidecar.service.reloads.task
    assert sidecar.graph.exporters["sink"].config.sending_queue.batch.flush_timeout == 0.002


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_over_many_reloads_under_load(sidecar, seed):
    """R-103."""
    chance, sent = random.Random(seed), 0
    await sidecar.start(TWO, drain=2)

    async def load():
        nonlocal sent
        while True:
            count = chance.randint(1, 4)
            try:
                await sidecar.graph.receivers["feeder"].accept[Signal.TRACES](batch(traces(*(span() for _ in range(count)))))
                sent += count
            except Refused:
                pass
            await asyncio.sleep(0)

    task = asyncio.create_task(load())
    for number in range(12):
        text = TWO.replace("sink/b: {", f"sink/b: {{mark: {chance.randint(0, 1)}, ")
        text = text.replace("feeder: {}", f"feeder: {{mark: {chance.randint(0, 1)}}}")
        text = text.replace("[sink, sink/b]", chance.choice(["[sink, sink/b]", "[sink/b, sink/c, sink]", "[sink]"]))
        text = text.replace("processors: []", chance.choice(["processors: []", "processors: [holder]"]))
        await sidecar.reload("broken" if number % 4 == 3 else text)
        books(sidecar)
        for _ in range(20):
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert sent > 50
    await sidecar.stop()
    shown = books(sidecar)
    assert shown["sink"]["delivered"] == shown["sink"]["accepted"] == sent
    assert all(row["queued"] == 0 and row["delivered"] == row["accepted"] for row in shown.values())
