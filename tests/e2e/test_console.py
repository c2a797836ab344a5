"""The first minute: `run --dev` without any backend, one sample conversation, the page in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.ports import free_port
from tests.e2e.stack import Program, get, get_json, wait_for

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs/console.png"
SIDECAR = [sys.executable, "-m", "collector"]


class Dev(Program):
    """The embedded configuration on free ports."""

    name = "dev"

    def start(self) -> Dev:
        self.ports = {name: free_port() for name in ("grpc", "http", "console", "metrics", "health", "own")}
        at = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        sets = {
            "receivers.otlp.protocols.grpc.endpoint": at["grpc"],
            "receivers.otlp.protocols.http.endpoint": at["http"],
            "extensions.console.endpoint": at["console"],
            "extensions.health_check.endpoint": at["health"],
            "exporters.prometheus.endpoint": at["metrics"],
            "service.telemetry.metrics.address": at["own"],
        }
        self.launched = time.monotonic()
        self.launch([*SIDECAR, "run", "--dev", *(f"--set={path}={value}" for path, value in sets.items())])
        return self

    def ready(self) -> bool:
        return get(f"http://127.0.0.1:{self.ports['health']}/readyz") is not None


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with Dev(tmp_path_factory.mktemp("dev")) as program:
        program.await_ready()
        yield program


def send(dev: Dev, *options: str) -> None:
    endpoint = f"http://127.0.0.1:{dev.ports['http']}"
    subprocess.run([*SIDECAR, "send", "--endpoint", endpoint, *options], check=True, capture_output=True, cwd=ROOT)


def test_a_newcomer_sees_a_priced_redacted_trace_on_the_page_and_in_the_terminal(dev: Dev, tmp_path: Path) -> None:
    """R-102 (partly), R-409 (partly)."""
    from playwright.sync_api import sync_playwright

    send(dev)
    send(dev, "--error")
    base = f"http://127.0.0.1:{dev.ports['console']}"
    wait_for(lambda: len(get_json(base + "/api/v1/overview")["traces"]) == 2, 20, "both traces on the page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900}, device_scale_factor=1)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(base + "/")
        page.wait_for_selector("#traces tbody tr")
        page.locator("#traces tbody tr").last.click()
        page.wait_for_selector("#detail .span[open] table")
        text = page.inner_text("body")
        hidden = page.locator("#detail mark").all_inner_texts()
        picture = PICTURE if os.environ.get("UPDATE_PICTURES") or not PICTURE.exists() else tmp_path / "console.png"
        page.screenshot(path=str(picture))
        page.locator("#traces tbody tr").last.focus()
        page.wait_for_timeout(1500)
        focused = page.evaluate("document.activeElement.dataset.trace")
        page.get_by_role("button", name="close").click()
        shown = page.locator("#detail").is_visible()
        browser.close()
    assert problems == []
    assert {"[EMAIL]", "**** **** **** 1111"} <= set(hidden)
    assert focused, "a refresh took the focus from the list"
    assert not shown
    assert "gpt-4o" in text
    assert "$0.0045" in text
    assert "[EMAIL]" in text
    for secret in ("jane.doe@example.com", "4111 1111 1111 1111"):
        assert secret not in text
        assert secret not in dev.tail(1_000_000)
    assert picture.stat().st_size > 20_000
    assert "gpt-4o" in dev.tail(1_000_000)


def test_it_is_ready_soon_and_small(dev: Dev) -> None:
    """Ready within 1.5 s of its start; resident size within 90 MiB (figures on the machine at hand are printed)."""
    seconds = []
    for _ in range(3):
        with Dev(dev.folder.parent / f"again{time.monotonic_ns()}") as again:
            seconds.append(time.monotonic() - again.launched)
            page = f"http://127.0.0.1:{again.ports['console']}/api/v1/status"
            wait_for(lambda page=page: get_json(page)["uptime_seconds"] >= 3, 10, "the end of the warm-up")
            resident = get_json(page)["memory"]["resident_bytes"] / (1 << 20)
            pages = int(Path(f"/proc/{again.process.pid}/statm").read_text().split()[1])  # type: ignore[union-attr]
            assert pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20) == pytest.approx(resident, rel=0.05)
    print(f"ready after {min(seconds):.2f} s, resident {resident:.1f} MiB")
    assert min(seconds) <= 1.5
    assert 20 < resident <= 90
