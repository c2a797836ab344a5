"""The OTLP receiver under hostile clients: bombs, slow clients, floods of connections. Nothing crashes, nothing grows."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest

from collector.model import Signal
from collector.otlp.compression import CODECS, compress
from collector.receivers.otlp import http_connection
from tests.receivers.otlp_clients import SERVICES, Running, running
from tests.receivers.test_otlp import sample
from tests.support import eventually, span, traces

EXPORT = f"/{SERVICES[Signal.TRACES]}/Export"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
TRANSPORTS = pytest.mark.parametrize("transport", ["grpc", "protobuf", "json"])

PROBE = """
import asyncio, json, resource, sys, zlib
from tests.receivers.otlp_clients import running
from collector.model import Signal

def number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])

def packed(pieces):  # made piece by piece, so that making it does not hide what reading it takes
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(piece) for piece in pieces] + [packer.flush()])

def zeros():  # 1 GiB, about 1 MiB on the wire
    return packed(bytes(1 << 20) for _ in range(1024))

def spans():  # 60 MiB of empty spans
    size = 60 << 20
    scope = b"\\x12" + number(size)
    return packed([b"\\x0a" + number(len(scope) + size) + scope] + [b"\\x12\\x00" * (1 << 19)] * 60)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

async def main():
    kind = sys.argv[1]
    bomb = zeros() if kind == "gzip" else spans()
    async with running() as here:
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
        await here.send("protobuf", Signal.TRACES, b"")
        before = peak()
        import io
        answer = await here.post(io.BytesIO(bomb), headers, Signal.TRACES, json=False)
        print(json.dumps({"code": answer.code, "grown": peak() - before, "wire": len(bomb)}))
asyncio.run(main())
"""


@pytest.mark.parametrize(("kind", "most"), [("gzip", 160), ("objects", 200)])
def test_bombs_are_refused_within_bounded_memory(kind: str, most: int) -> None:
    """Rule 2: 1 GiB of zeros, and 60 MiB of empty spans, at a 64 MiB limit."""
    done = subprocess.run([sys.executable, "-c", PROBE, kind], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["code"] == 413
    assert result["wire"] < 2 << 20
    assert result["grown"] < most, "MiB"


@pytest.mark.parametrize("codec", CODECS)
async def test_every_codec_has_the_same_cap(codec: str) -> None:
    """Rule 2."""
    async with running(None, {"max_request_body_size": 1 << 20}) as here:
        headers = {**PROTOBUF, "Content-Encoding": codec}
        answer = await here.post(compress(bytes(20 << 20), codec), headers, Signal.TRACES, json=False)
        assert answer.code == 413


async def test_a_grpc_bomb_is_refused_for_good() -> None:
    """Rule 3."""
    async with running({"max_recv_msg_size_mib": 1}) as here:
        answer = await here.send("grpc", Signal.TRACES, bytes(30 << 20), codec="gzip")
        assert (answer.code, answer.after) == ("RESOURCE_EXHAUSTED", None)
        assert (await here.send("grpc", Signal.TRACES, sample(Signal.TRACES))).ok


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("damage", ["cut", "members", "garbage", "empty"])
async def test_damaged_bodies_are_bad_requests(codec: str, damage: str) -> None:
    """Rule 16."""
    packed = compress(sample(Signal.TRACES) * 20, codec)
    body = {"cut": packed[:-3], "members": packed * 17, "garbage": b"\0" + packed, "empty": b""}[damage]
    async with running() as here:
        answer = await here.post(body, {**PROTOBUF, "Content-Encoding": codec}, Signal.TRACES, json=False)
        assert answer.code == 400
        assert answer.message


async def test_a_flood_of_tiny_gzip_members_is_refused_at_once() -> None:
    async with running() as here:
        body = gzip.compress(b"") * 30_000
        answer = await here.post(body, {**PROTOBUF, "Content-Encoding": "gzip"}, Signal.TRACES, json=False)
        assert (answer.code, answer.message) == (400, "gzip: too many members")


@TRANSPORTS
async def test_object_bombs_are_too_large(transport: str) -> None:
    """Rule 2."""
    async with running() as here:
        if transport == "json":
            body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b",".join([b"{}"] * 250_000) + b"]}]}]}"
        else:
            spans = b"\x12\x00" * 150_000
            scope = b"\x12" + b"\xe0\xa7\x12" + spans
            body = b"\x0a" + bytes([len(scope) & 127 | 128, len(scope) >> 7 & 127 | 128, len(scope) >> 14]) + scope
        answer = await here.send(transport, Signal.TRACES, body, raw=True)
        assert answer.code in ("RESOURCE_EXHAUSTED", 413)
        assert answer.after is None


@TRANSPORTS
async def test_depth_bombs_are_bad_requests(transport: str) -> None:
    """Rule 16."""
    inner = b""
    for _ in range(150):
        inner = b"\x2a" + _size(b"\x0a" + _size(inner))
    attribute = b"\x4a" + _size(b"\x12" + _size(inner))
    body = b"\x0a" + _size(b"\x12" + _size(b"\x12" + _size(attribute)))
    async with running() as here:
        for depth in (900, 100_000):
            text = b'{"resourceSpans":' + b"[" * depth + b"]" * depth + b"}"
            answer = await here.send(transport, Signal.TRACES, text if transport == "json" else body, raw=True)
            assert answer.code in ("INVALID_ARGUMENT", 400)


def _size(content: bytes) -> bytes:
    return bytes([len(content) & 127 | 128, len(content) >> 7]) + content


@TRANSPORTS
async def test_damage_never_ends_in_an_internal_error(transport: str) -> None:
    """Rule 16: 400 seeded mutations of a good request."""
    generator = random.Random(4317)
    good = sample(Signal.TRACES)
    if transport == "json":
        from collector.otlp.mapping import to_json

        good = to_json(Signal.TRACES, good)
    async with running() as here:
        for _ in range(400):
            body = bytearray(good)
            for _ in range(generator.randint(1, 4)):
                at = generator.randrange(len(body))
                body[at : at + generator.randint(0, 3)] = generator.randbytes(generator.randint(0, 3))
            answer = await here.send(transport, Signal.TRACES, bytes(body), raw=True)
            assert answer.code in ("OK", 200, "INVALID_ARGUMENT", 400), bytes(body)


async def raw(here: Running, text: bytes, *, until: bytes = b"") -> bytes:
    """What the HTTP port says to raw bytes until it closes, or until a text came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.receiver.ports["http"])
    writer.write(text)
    told = b""
    try:
        while piece := await asyncio.wait_for(reader.read(65536), 20):
            told += piece
            if until and until in told:
                break
    except ConnectionError:
        pass
    finally:
        writer.close()
    return told


@pytest.mark.parametrize(
    "text",
    [b"nonsense\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
     b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX: SECRET\x00\r\n\r\n",
     b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nZZ\r\n",
     b"POST /v1/traces HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 200 + b"\r\n",
     b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX-A: " + b"b" * 20_000 + b"\r\n\r\n"],
)  # fmt: skip
async def test_what_is_not_http_is_answered_400_with_a_status(text: bytes, capsys: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Rule 18."""
    async with running(None, {"read_header_timeout": "500ms"}) as here:
        told = await raw(here, text)
        assert told == b"" or b" 400 " in told.partition(b"\r\n")[0]
        if told:
            assert orjson.loads(told.partition(b"\r\n\r\n")[2])["code"] == 3
        assert (await here.send("json", Signal.TRACES, sample(Signal.TRACES))).ok
    assert "SECRET" not in caplog.text + "".join(capsys.readouterr())


async def test_headers_together_are_limited() -> None:
    async with running() as here:
        headers = {f"X-{i}": "v" * 4000 for i in range(5)}
        answer = await here.post(b"{}", {"Content-Type": "application/json", **headers}, Signal.TRACES, json=True)
        assert (answer.code, "headers" in answer.message) == (400, True)


@pytest.mark.parametrize("text", [b"", b"POST /v1/traces HTTP/1.1\r\nHost:"])
async def test_half_headers_are_closed_after_the_deadline(text: bytes) -> None:
    async with running(None, {"read_header_timeout": "50ms"}) as here:
        assert await raw(here, text) == b""


def posted(body: bytes, kind: str = "application/json", version: str = "1.1", more: str = "") -> bytes:
    """A whole request, as clients with one buffer write it."""
    head = f"POST /v1/traces HTTP/{version}\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


async def test_half_headers_of_a_later_request_are_closed_after_the_deadline_too() -> None:
    async with running(None, {"read_header_timeout": "50ms"}) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.receiver.ports["http"])
        writer.write(posted(b"{}"))
        assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200 OK")
        writer.write(b"POST /v1/traces HTTP/1.1\r\nHost:")
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


@pytest.mark.parametrize(("kind", "body", "answer"), [("application/json", b"{}", b"{}"), ("application/x-protobuf", b"", b"")])
async def test_the_usual_answer_says_what_http_wants_and_keeps_the_connection(kind: str, body: bytes, answer: bytes) -> None:
    """RFC 9110 sections 6.6.1, 8.3 and 8.6."""
    before = time.time()
    async with running(None, {"idle_timeout": "50ms"}) as here:
        told = await raw(here, posted(body, kind) * 2)
    first, _, second = told.partition(b"\r\n\r\n" + answer + b"HTTP/1.1 ")
    assert second.startswith(b"200 OK\r\n")
    status, *lines = first.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    date = parsedate_to_datetime(headers.pop("Date")).timestamp()
    assert int(before) <= date <= time.time()
    assert (status, headers) == (
        "HTTP/1.1 200 OK",
        {"Server": "otel-sidecar", "Content-Type": kind, "Content-Length": str(len(answer))},
    )


@pytest.mark.parametrize(
    ("version", "more", "stays"),
    [("1.0", "", False), ("1.1", "Connection: close\r\n", False), ("1.0", "Connection: keep-alive\r\n", True)],
)
async def test_who_wants_the_connection_closed_or_kept_is_told_so(version: str, more: str, stays: bool) -> None:
    async with running(None, {"idle_timeout": "50ms"}) as here:
        told = (await raw(here, posted(b"{}", version=version, more=more))).lower()
        assert told.startswith(f"http/{version} 200".encode())
        assert (b"connection: close" in told) is (not stays and version == "1.1")
        assert (b"connection: keep-alive" in told) is stays


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_whole_body_that_comes_with_its_head_is_limited_and_accounted_for(chunked: bool) -> None:
    body = b" " * 3000 + b"{}"
    text = posted(body)
    if chunked:
        head = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        text = head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    for limit, status in ((3001, b"413"), (3002, b"200")):
        async with running(None, {"max_request_body_size": limit}) as here:
            told = await raw(here, text, until=b"}")
            assert told.startswith(b"HTTP/1.1 " + status), told
            await eventually(lambda: here.host.budget.used == 0)


async def test_a_large_body_is_put_together_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, beside, sizes = asyncio.to_thread, [], (600 << 10, 3 << 20)

    async def to_thread(step: Any, *arguments: Any) -> Any:
        beside.append(result := await plain(step, *arguments))
        return result

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    async with running() as here:
        for size in sizes:
            request = traces(*(span("x" * 1000) for _ in range(size // 1000))).SerializeToString()
            assert (await here.send("protobuf", Signal.TRACES, request)).ok
            assert here.sink.batches[-1].raw == request
    assert list(map(len, beside)) == [len(request)]


async def test_an_idle_connection_is_closed() -> None:
    async with running(None, {"idle_timeout": "50ms", "read_header_timeout": "0s"}) as here:
        told = await raw(here, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 404")


async def test_a_slow_body_is_given_up_and_told_to_retry() -> None:
    """Rule 17."""
    async with running(None, {"read_timeout": "50ms"}) as here:
        head = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        told = await raw(here, head, until=b"time")
        assert told.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 1" in told


async def test_a_client_that_leaves_early_harms_nobody() -> None:
    async with running() as here:
        _, writer = await asyncio.open_connection("127.0.0.1", here.receiver.ports["http"])
        writer.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.transport.abort()
        assert (await here.send("json", Signal.TRACES, sample(Signal.TRACES))).ok
        await eventually(lambda: here.counted("collector_receiver_requests") == 2)


async def test_at_the_cap_the_longest_idle_connection_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAX_CONNECTIONS", 3)
    async with running() as here:
        port = here.receiver.ports["http"]
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert (await here.send("json", Signal.TRACES, sample(Signal.TRACES))).ok
        assert await asyncio.wait_for(idle[0][0].read(), 10) == b"", "the oldest was closed"
        for _, writer in idle:
            writer.close()


async def test_at_the_cap_of_busy_connections_new_ones_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "MAX_CONNECTIONS", 1)
    async with running() as here:
        _, busy = await asyncio.open_connection("127.0.0.1", here.receiver.ports["http"])
        busy.write(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        server = here.receiver._servers[1]
        await eventually(lambda: any(c.idle_since is None for c in server._web.connections))
        assert await raw(here, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        busy.close()


async def test_a_stalled_grpc_reader_gives_way_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 13: the slow call is told to retry, the others go on."""
    from collector.receivers.otlp import reads

    monkeypatch.setattr(reads, "CONTENDED", 0.05)
    async with running({"max_recv_msg_size_mib": 64}) as here:
        stalled = [here.channel.stream_unary(EXPORT)() for _ in range(2)]
        server = here.receiver._servers[0]
        await eventually(lambda: server._server.reads.running == 2)
        assert (await here.send("grpc", Signal.TRACES, sample(Signal.TRACES))).ok
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stalled[0]
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        stalled[1].cancel()


async def test_a_cancelled_grpc_call_gives_its_reservation_back() -> None:
    async with running() as here:
        call = here.channel.stream_unary(EXPORT)()
        server = here.receiver._servers[0]
        await eventually(lambda: server._server.reads.running)
        call.cancel()
        await eventually(lambda: not server._server.reads.running)
        assert (await here.send("grpc", Signal.TRACES, sample(Signal.TRACES))).ok


async def test_a_grpc_client_at_the_http_port_is_told_about_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as here:
        for _ in range(2):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{here.receiver.ports['http']}") as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary(EXPORT)(b"", timeout=2)
        await eventually(lambda: any("gRPC client came to the HTTP port" in r.message for r in caplog.records))
    assert sum("gRPC client came to the HTTP port" in record.message for record in caplog.records) == 1
