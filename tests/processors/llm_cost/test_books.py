"""llm_cost.books: what was counted may wait, but never longer than until somebody looks."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from collector.component import Settings
from collector.exporters.prometheus import Prometheus
from collector.exporters.prometheus.exposition import TEXT, Format
from collector.model import Signal
from collector.pipeline.chain import Chain
from collector.processors.llm_cost import LlmCost, books
from collector.service.telemetry import exposition
from tests.processors.llm_cost.calls import NOW, call, made
from tests.support import Drops, FakeHost, batch, build, traces


def _take(processor: LlmCost, *spans: Any, at: float = NOW) -> None:
    processor.process(batch(traces(*spans)), at)


def _booked(processor: LlmCost) -> float:
    """What the counter holds, without asking for what waits."""
    children = processor._accounting.counters.requests._children
    return float(sum(child._value.get() for child in children.values()))


def _exporter(processor: LlmCost) -> Prometheus:
    config = Prometheus.Config.model_validate({"endpoint": "localhost:0"})
    meters = processor.settings.meters
    return Prometheus(config, Settings("prometheus", meters, logging.getLogger("collector.test"), FakeHost(), Drops()))


LOOKS = {
    "a counter": lambda processor: processor._accounting.counters.requests.value("api", "openai", "gpt-4o", "chat", "success"),
    "its series": lambda processor: sum(processor.settings.meters.find("llm_requests").series().values()),
    "the spend": lambda processor: processor.spend()["total_calls"],
    "the hours": lambda processor: sum(hour["total_tokens"] for hour in processor.usage_by_hour(NOW)) / 1200,
    "port 8888": lambda processor: _requests(exposition(processor.settings.meters, "", own=True)[0]),
    "the exporter": lambda processor: _requests(_exporter(processor).exposition(Format(TEXT))),
}  # fmt: skip


def _requests(page: bytes) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in page.decode().splitlines() if line.startswith("llm_requests_total{"))


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_calls_wait_until_somebody_looks_and_everybody_sees_all_of_them(look: Any) -> None:
    processor = made()
    for count in (1, 2, 3):
        _take(processor, call())
        assert _booked(processor) == count - 1
        assert look(processor) == count
        assert _booked(processor) == count


def test_the_history_has_every_call_at_once() -> None:
    processor = made()
    _take(processor, call(), call())
    assert (len(processor.history()), _booked(processor)) == (2, 0)


def test_calls_wait_a_second_at_most_with_ticks_or_with_the_next_call() -> None:
    processor = made()
    _take(processor, call())
    processor.tick(NOW + 0.9)
    assert _booked(processor) == 0
    processor.tick(NOW + 1)
    assert _booked(processor) == 1
    _take(processor, call(), at=NOW + 10)
    _take(processor, call(), at=NOW + 10.9)
    assert _booked(processor) == 1
    _take(processor, call(), at=NOW + 11)
    assert _booked(processor) == 3


def test_a_call_without_price_is_booked_by_the_next_tick_so_that_the_warning_comes_soon() -> None:
    processor = made()
    _take(processor, call("nobody-knows-this-one"))
    processor.tick(NOW)
    assert _booked(processor) == 1


@pytest.mark.parametrize(
    ("limit", "spans"), [("_CALLS", [call(), call(), call()]), ("_TALLIES", [call(name) for name in ("gpt-4o", "o1", "o3")])]
)
def test_no_more_than_so_many_calls_or_kinds_of_them_wait(limit: str, spans: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, limit, 3)
    processor = made()
    _take(processor, *spans[:2])
    assert _booked(processor) == 0
    _take(processor, spans[2])
    assert _booked(processor) == 3
    _take(processor, spans[0])
    assert _booked(processor) == 3


def test_calls_that_are_settled_in_c_or_together_count_for_the_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = made()
    for number in range(3):
        _take(processor, call(more={"gen_ai.response.id": f"chatcmpl-first-{number}"}))
    processor.spend()
    monkeypatch.setattr(books, "_CALLS", 3)
    spans = [call(more={"gen_ai.response.id": f"chatcmpl-{number}"}) for number in range(3)]
    _take(processor, *spans[:2])
    assert _booked(processor) == 3
    _take(processor, spans[2])
    assert _booked(processor) == 6


def test_what_waits_is_booked_when_the_processor_is_drained() -> None:
    processor = made()
    chain = Chain(Signal.TRACES, [processor], processor.settings.meters, logging.getLogger("collector.test"))
    _take(processor, call())
    assert list(chain.released(NOW, drain=True)) == []
    assert _booked(processor) == 1


def test_a_processor_that_was_replaced_still_books_what_it_counts_afterwards() -> None:
    old = made()
    new = LlmCost(old.config, old.settings)
    _take(old, call())
    old.drain()
    _take(new, call())
    _take(old, call())
    assert LOOKS["its series"](new) == 3


def test_prices_that_are_read_again_leave_what_waits_as_it_was(tmp_path: Any) -> None:
    prices = tmp_path / "prices.yaml"
    text = "prices: [{match: {model: gpt-4o}, input: %d, output: 0}]"
    prices.write_text(text % 1000)
    processor = made(prices_file=str(prices))
    spans = [call(more={"gen_ai.response.id": f"chatcmpl-{number}"}) for number in range(8)]
    _take(processor, *spans[:4])
    prices.write_text(text % 3000)
    assert processor.reload_prices()
    _take(processor, *spans[4:])
    assert _booked(processor) == 0
    assert processor.spend()["total_cost"] == pytest.approx(4 * 1 + 4 * 3)


async def test_a_large_page_that_is_written_on_a_thread_has_all_calls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import collector.exporters.prometheus as module

    threads = []
    to_thread = asyncio.to_thread

    async def watched(*work: Any) -> Any:
        threads.append(work)
        return await to_thread(*work)

    monkeypatch.setattr(module, "BIG", -1)
    monkeypatch.setattr(asyncio, "to_thread", watched)
    processor = made()
    _take(processor, call())
    exporter = _exporter(processor)
    request: Any = type("Request", (), {"path": exporter.config.path, "headers": {}})()
    response = await exporter._scrape(request)
    assert len(threads) == 1
    assert _requests(response.body) == 1  # type: ignore[arg-type]


def test_a_trace_that_left_before_its_call_was_booked_is_shown() -> None:
    """R-109 (partly)."""
    processor = made()
    chain = Chain(Signal.TRACES, [processor], processor.settings.meters, logging.getLogger("collector.test"))
    first, second = (bytes(15) + bytes([number]) for number in (1, 2))
    chain.run(batch(traces(call(trace=first, duration=0.3))), 1, NOW)
    processor.process(batch(traces(call(trace=second, duration=0.7))), NOW)
    assert _booked(processor) == 0
    families = processor.settings.meters.derived.collect()
    shown = [s.exemplar.labels["trace_id"] for f in families if f.name == "llm_latency_seconds" for s in f.samples if s.exemplar]
    assert shown == [first.hex()]
    exemplars = processor._accounting.counters.exemplars
    assert (exemplars.fresh, exemplars._left) == (set(), set())
    assert second in exemplars._waiting


@pytest.mark.parametrize("name", ["gen_ai.usage.cost", "gen_ai.response.time_to_first_chunk", "ai.response.msToFirstChunk"])
def test_absurd_amounts_and_times_are_none_and_keep_nobody_from_counting(name: str) -> None:
    """R-405 (partly)."""
    processor = made()
    for number in range(3):
        _take(processor, *[call(more={name: 1.7e308}) for _ in range(3)], at=NOW + number)
    assert (processor.spend()["total_calls"], processor._accounting.counters.errors.value()) == (9, 0)
    assert processor.spend()["total_cost"] == pytest.approx(9 * 0.0045)
    pages = exposition(processor.settings.meters, "", own=True)[0].decode()
    assert "llm_time_to_first_token_seconds_count{" not in pages


def test_calls_that_cannot_be_booked_cost_no_other_ones_and_no_later_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = made()
    count = processor._accounting.counters.count

    def picky(tally: Any, since: float, now: float) -> None:
        if tally.labels[2] == "o1":
            raise OverflowError
        count(tally, since, now)

    monkeypatch.setattr(processor._accounting.counters, "count", picky)
    _take(processor, call("o1"), call("o1"), call("gpt-4o"))
    _take(processor, call("o3"), at=NOW + 1)
    assert LOOKS["its series"](processor) == 2
    assert processor._accounting.counters.errors.value() == 2
    assert processor._accounting._books.complaints._defects == {"OverflowError": 1}
    _take(processor, call("o1"), call("gpt-4o"), at=NOW + 2)
    assert LOOKS["its series"](processor) == 3


def test_a_new_processor_owes_nothing() -> None:
    processor = build(LlmCost, {"preload": False})
    processor.drain()
    assert processor.spend()["total_calls"] == 0
