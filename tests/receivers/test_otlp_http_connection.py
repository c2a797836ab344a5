"""The short way of HTTP: what is plain and needs no waiting is answered where its bytes come in, all else as before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from collector.errors import Refused
from collector.model import Batch, Signal, open_envelope
from collector.otlp.mapping import from_json, to_json
from collector.receivers.otlp import http_connection
from collector.receivers.otlp.http_server import HttpServer
from tests.receivers.otlp_clients import TYPES, Quick, Running, running
from tests.receivers.test_otlp import sample, span, traces
from tests.support import eventually

KINDS = pytest.mark.parametrize("kind", list(TYPES))
DATA = sample(Signal.TRACES)


@pytest.fixture(autouse=True)
def _plain_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the compiled modules the same requests are plain; no body is late unless a test says so."""
    monkeypatch.setattr(http_connection, "SOON", 60.0)
    monkeypatch.setattr("collector.receivers.otlp.intake.open_plain", opened)
    monkeypatch.setattr("collector.receivers.otlp.intake.transcode_small", transcoded)


def opened(signal: Signal, body: bytes) -> Batch | None:
    return None if body.startswith(b"\xff") else open_envelope(signal, body)


def transcoded(signal: Signal, text: bytes, limits: object, reserve: Any) -> bytes | None:
    reserve(2 * len(text))
    return None if text.startswith(b" ") else from_json(signal, text)


class Talk:
    """One connection, spoken to in pieces."""

    def __init__(self, here: Running, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server: HttpServer = here.receiver._servers[1]
        self._reader, self.writer = reader, writer

    @property
    def connection(self) -> Any:
        (connection,) = self._server._web.connections
        return connection

    async def say(self, text: bytes) -> None:
        """Returns when the server has read it."""
        seen: list[bytes] = []
        connection, feed = self.connection, self.connection._parser.feed_data

        class Heard:
            def __getattr__(self, name: str) -> Any:
                return getattr(parser, name)

            def feed_data(self, data: bytes) -> Any:
                seen.append(data)
                return feed(data)

        parser, connection._parser = connection._parser, Heard()
        self.writer.write(text)
        await eventually(lambda: sum(map(len, seen)) == len(text))
        connection._parser = parser

    async def told(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 20)
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await self._reader.readexactly(size)

    @property
    def loop_woken(self) -> bool:
        """Whether the request loop was told of a request."""
        return self.connection._waiter is None or self.connection._waiter.done()


@asynccontextmanager
async def talking(monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[tuple[Running, Quick, Talk]]:
    async with running(None, options) as here:
        sink = quick(here, monkeypatch)
        reader, writer = await asyncio.open_connection("127.0.0.1", here.receiver.ports["http"])
        talk = Talk(here, reader, writer)
        await eventually(lambda: bool(talk._server._web.connections) and talk.connection._waiter is not None)
        yield here, sink, talk
        writer.close()


def quick(here: Running, monkeypatch: pytest.MonkeyPatch) -> Quick:
    sink = Quick()
    monkeypatch.setattr(here.receiver._servers[1]._intake, "_accept", dict.fromkeys(Signal, sink))
    return sink


def posted(body: bytes = DATA, kind: str = "protobuf", more: str = "") -> tuple[bytes, bytes]:
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPES[kind]}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode(), body


@KINDS
async def test_what_the_pipelines_take_at_once_is_counted_and_refused_like_everything_else(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async with running(None, {"include_metadata": True}) as here:
        sink = quick(here, monkeypatch)
        assert (await here.send(kind, Signal.TRACES, DATA)).ok
        assert [batch.encode() for batch in sink.quick] == [DATA]
        assert (sink.quick[0].metadata or {})["content-type"] == (TYPES[kind],)
        assert here.counted("otelcol_receiver_accepted_spans") == here.counted("collector_receiver_requests") == 1
        sink.error = Refused("busy", after=3, reason="queue_full")
        answer = await here.send(kind, Signal.TRACES, DATA)
        assert (answer.code, answer.message, answer.headers["Retry-After"]) == (503, "busy", "3")
        assert here.counted("otelcol_receiver_refused_spans") == 1
        sink.error = ZeroDivisionError()
        assert (await here.send(kind, Signal.TRACES, DATA)).code == 500
        assert here.counted("otelcol_receiver_failed_spans") == 1
        sink.error, sink.willing = None, False
        assert (await here.send(kind, Signal.TRACES, DATA)).ok
        assert (len(sink.quick), len(sink.batches)) == (1, 1)
        sink.willing, many = True, traces(*(span() for _ in range(100))).SerializeToString()
        assert (await here.send(kind, Signal.TRACES, many)).ok
        assert (len(sink.quick), len(sink.batches)) == (1, 2)
        assert here.counted("otelcol_receiver_accepted_spans") == 102
        assert here.counted("collector_receiver_requests") == 5


@KINDS
async def test_what_is_not_plain_is_read_the_general_way(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    async with talking(monkeypatch) as (_, sink, talk):
        body = b" " + to_json(Signal.TRACES, DATA) if kind == "json" else b"\xff"
        await talk.say(b"".join(posted(body, kind)))
        assert (await talk.told())[0] == (200 if kind == "json" else 400)
        assert (len(sink.quick), len(sink.batches)) == (0, int(kind == "json"))
        await eventually(lambda: not talk.loop_woken)
        await talk.say(b"".join(posted()))
        assert (await talk.told(), len(sink.quick)) == ((200, b""), 1)


@KINDS
async def test_a_request_wakes_nobody_when_it_is_whole_or_its_body_follows(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    async with talking(monkeypatch) as (here, sink, talk):
        head, body = posted(to_json(Signal.TRACES, DATA) if kind == "json" else DATA, kind)
        for pieces in ([head + body], [head, body], [head[:9], head[9:] + body[:5], body[5:]]):
            for piece in pieces:
                await talk.say(piece)
                assert not talk.loop_woken
            assert await talk.told() == (200, b"{}" if kind == "json" else b"")
        assert [batch.encode() for batch in sink.quick] == [DATA] * 3
        assert (talk.connection._manager.expected, here.host.budget.used) == (0, 0)


@pytest.mark.parametrize(
    "more",
    [
        "Connection: close\r\n",
        "Content-Encoding: identity\r\n",
        "Origin: http://x\r\n",
        "Upgrade: h2c\r\nConnection: upgrade\r\n",
    ],
)
async def test_an_unusual_head_goes_the_long_way(monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    async with talking(monkeypatch) as (_, sink, talk):
        await talk.say(b"".join(posted(more=more)))
        assert await talk.told() == (200, b"")
        assert (len(sink.quick), len(sink.batches)) == (0, 1)


@pytest.mark.parametrize(
    "options", [{"keep_alives_enabled": False}, {"response_headers": {"X-A": "b"}}, {"compression_algorithms": ["gzip"]}]
)
async def test_an_unusual_server_answers_the_long_way(monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    async with talking(monkeypatch, **options) as (_, sink, talk):
        await talk.say(b"".join(posted()))
        assert (await talk.told())[0] == (400 if "compression_algorithms" in options else 200)
        assert not sink.quick


async def test_a_library_without_what_is_needed_answers_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert http_connection.USABLE, "the installed one has it"
    monkeypatch.setattr(http_connection, "USABLE", False)
    async with talking(monkeypatch) as (_, sink, talk):
        await talk.say(b"".join(posted()))
        assert await talk.told() == (200, b"")
        assert (len(sink.quick), len(sink.batches)) == (0, 1)


async def test_requests_that_come_together_are_answered_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(monkeypatch) as (_, _sink, talk):
        good, bad = b"".join(posted()), b"".join(posted(b"\xff"))
        await talk.say(good + bad + good)
        assert [(await talk.told())[0] for _ in range(3)] == [200, 400, 200]
        await eventually(lambda: not talk.loop_woken)
        head, body = posted()
        await talk.say(head)
        await talk.say(body + bad + good)
        assert [(await talk.told())[0] for _ in range(3)] == [200, 400, 200]


async def test_a_late_body_is_waited_for_by_the_request_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "SOON", 0.2)
    async with talking(monkeypatch) as (_, sink, talk):
        head, body = posted()
        for piece in (head, body, head):  # the clock of the second request begins anew
            await talk.say(piece)
        assert (await talk.told())[0] == 200
        await eventually(lambda: talk.loop_woken)
        assert talk.connection._manager.expected == 0
        await talk.say(body)
        assert (await talk.told())[0] == 200
        assert len(sink.batches) >= 1
        assert len(sink.quick) + len(sink.batches) == 2


@pytest.mark.parametrize("cap", ["EXPECTED", "LARGEST"])
async def test_bodies_beyond_the_cap_are_waited_for_by_the_request_loop(monkeypatch: pytest.MonkeyPatch, cap: str) -> None:
    monkeypatch.setattr(http_connection, cap, len(DATA) - 1)
    async with talking(monkeypatch) as (_, sink, talk):
        head, body = posted()
        await talk.say(head)
        assert talk.loop_woken
        await talk.say(body)
        assert (await talk.told())[0] == 200
        assert len(sink.batches) == 1


async def test_a_body_over_the_limit_is_refused_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(monkeypatch, max_request_body_size=len(DATA) - 1) as (_, sink, talk):
        await talk.say(b"".join(posted()))
        assert (await talk.told())[0] == 413
        assert not sink.quick


async def test_a_client_that_leaves_before_its_body_is_counted_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(monkeypatch) as (here, _, talk):
        await talk.say(posted()[0])
        web = talk._server._web
        assert web.expected == len(DATA)
        talk.writer.transport.abort()
        await eventually(lambda: here.counted("collector_receiver_requests") == 1)
        assert web.expected == 0


async def test_a_connection_that_is_used_the_short_way_is_closed_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking(monkeypatch, idle_timeout="200ms", read_header_timeout="0s") as (_, sink, talk):
        await talk.say(b"".join(posted()))
        assert (await talk.told())[0] == 200
        assert await asyncio.wait_for(talk._reader.read(), 20) == b""
        assert len(sink.quick) == 1
