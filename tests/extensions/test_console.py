"""extensions.console: the page, its JSON, and who may see them."""

import asyncio

import aiohttp
import pytest
from pydantic import ValidationError

from bench.ports import free_port
from collector.exporters.peek import Peek
from collector.extensions.console import Console, loopback
from collector.model import Payload, Signal
from tests.support import FakeHost, build, settings, span, traces


@pytest.fixture
async def page():
    """Yields (console, base URL); peek holds one trace."""
    host = FakeHost()
    host.exporters["peek"] = build(Peek, {"terminal": False})
    request = traces(span("POST /<script>alert(1)</script>", trace=b"t" * 16))
    await host.exporters["peek"].send(Payload(Signal.TRACES, request.SerializeToString(), 1))
    host.shown = {
        "state": "running",
        "last_reload_error": "config.yaml:1:1: no",
        "pipelines": {"traces": {}},
        "accounting": {"traces": {"peek": {"accepted": 1}}},
    }
    port = free_port()
    console = Console(Console.Config(endpoint=f"127.0.0.1:{port}"), settings(host=host))
    await console.start()
    yield console, f"http://127.0.0.1:{port}"
    await console.stop()
    await console.stop()


async def get(url, **options):
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False, **options) as answer:
        return answer.status, await answer.read(), answer.headers


async def test_the_page_and_its_parts_are_served_with_a_strict_policy(page):
    for path, kind in (("/", "text/html"), ("/console.js", "text/javascript"), ("/console.css", "text/css")):
        status, body, headers = await get(page[1] + path)
        assert (status, headers["Content-Type"].split(";")[0]) == (200, kind)
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert len(body) < 50_000


async def test_no_html_is_ever_made_from_telemetry(page):
    script = (await get(page[1] + "/console.js"))[1].decode()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script
    assert b"alert(1)" not in (await get(page[1] + "/"))[1]


async def test_what_the_page_shows_is_also_json(page):
    import orjson

    console, base = page
    peek = console.settings.host.exporters["peek"]
    meters = console.settings.meters
    meters.counter("llm_requests", "", ("model", "status"), derived=True).add(2, "gpt-4o", "success")
    meters.counter("llm_tokens", "", ("model", "type"), derived=True).add(1200, "gpt-4o", "prompt")
    meters.counter("llm_cost_usd", "", ("model",), derived=True).add(0.0045, "gpt-4o")
    meters.counter("llm_cost_unpriced", "", ("model", "reason"), derived=True).add(1, "unknown", "no_model")
    meters.counter("pii_detections", "", ("pii_type",), derived=True).add(3, "email")
    view = orjson.loads((await get(base + "/api/v1/overview"))[1])
    assert view["spend"]["models"] == [{"model": "gpt-4o", "calls": 2, "tokens": 1200, "cost_usd": 0.0045}]
    assert view["spend"]["unpriced"] == [{"model": "unknown", "reason": "no_model", "calls": 1}]
    assert view["masked"] == {"email": 3}
    assert view["keeps"] is True
    del console.settings.host.exporters["peek"]
    assert orjson.loads((await get(base + "/api/v1/overview"))[1])["keeps"] is False
    console.settings.host.exporters["peek"] = peek
    assert view["last_reload_error"] == "config.yaml:1:1: no"
    assert view["traces"][0]["name"].startswith("POST /")
    assert orjson.loads((await get(base + "/api/v1/traces"))[1])["traces"][0]["trace_id"] == "74" * 16
    assert orjson.loads((await get(base + "/api/v1/traces/" + "74" * 16))[1])["spans"]
    assert (await get(base + "/api/v1/traces/none"))[0] == 404
    assert orjson.loads((await get(base + "/api/v1/logs"))[1]) == {"logs": []}
    assert orjson.loads((await get(base + "/api/v1/status"))[1])["state"] == "running"
    assert orjson.loads((await get(base + "/api/v1/spend"))[1])["total_calls"] == 2


async def test_a_page_of_another_site_cannot_read_it(page):
    assert (await get(page[1] + "/api/v1/overview", headers={"Host": "evil.example"}))[0] == 403


async def test_reload_is_a_post_of_the_same_origin(page):
    console, base = page
    asked = []
    console.settings.host.reload = lambda: asked.append(1)
    async with aiohttp.ClientSession() as session:
        for origin, expected in (("http://evil.example", 403), (base, 202), (None, 202)):
            async with session.post(base + "/-/reload", headers={"Origin": origin} if origin else {}) as answer:
                assert answer.status == expected
    assert len(asked) == 2
    assert (await get(base + "/-/reload"))[0] == 405


async def test_a_service_that_cannot_reload_says_so(page):
    async with aiohttp.ClientSession() as session, session.post(page[1] + "/-/reload") as answer:
        assert answer.status == 501


async def test_with_a_token_nothing_is_shown_without_it():
    port = free_port()
    console = Console(Console.Config.model_validate({"endpoint": f"0.0.0.0:{port}", "token": "s3cret"}), settings())
    await console.start()
    base = f"http://127.0.0.1:{port}/api/v1/spend"
    try:
        assert (await get(base))[0] == 401
        assert (await get(base, headers={"Authorization": "Bearer wrong"}))[0] == 401
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/v1/spend HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 401")
        writer.close()
        assert (await get(base, headers={"Authorization": "Bearer s3cret"}))[0] == 200
        status, _, headers = await get(base + "?token=s3cret")
        assert status == 303
        assert "HttpOnly" in headers["Set-Cookie"]
        assert headers["Location"] == "/api/v1/spend"
        assert (await get(base, headers={"Cookie": headers["Set-Cookie"].split(";")[0]}))[0] == 200
    finally:
        await console.stop()


@pytest.mark.parametrize("endpoint", ["0.0.0.0:55679", ":55679", "10.0.0.1:55679", "console.example:1"])
def test_an_address_for_other_machines_needs_a_token(endpoint):
    with pytest.raises(ValidationError, match="needs a token"):
        Console.Config(endpoint=endpoint)


async def test_a_taken_address_is_an_error_that_leaves_nothing_and_starting_twice_is_harmless(page):
    console, base = page
    await console.start()
    other = Console(Console.Config(endpoint=base.removeprefix("http://")), settings())
    with pytest.raises(OSError, match="in use"):
        await other.start()
    assert other._runner is None
    assert (await get(base))[0] == 200


def test_an_endpoint_needs_a_port():
    with pytest.raises(ValidationError, match="needs a port"):
        Console.Config(endpoint="localhost")


def test_loopback_addresses_are_known():
    assert all(map(loopback, ("localhost", "127.0.0.1", "[::1]", "127.9.9.9")))
    assert not any(map(loopback, ("0.0.0.0", "example.com", "10.0.0.1", "")))


def test_allowed_hosts_are_a_list():
    assert Console.Config.model_validate({"allowed_hosts": ["console.example"]}).allowed_hosts == ["console.example"]
