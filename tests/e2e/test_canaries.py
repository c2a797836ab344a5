"""A canary in every place that can hold text must not be found in any backend, file, log or debug output."""

from __future__ import annotations

import base64
import json
import random
import re
import string
from pathlib import Path
from typing import NamedTuple

import pytest

from collector.model import Signal
from tests.e2e.conftest import Start
from tests.e2e.leaves import IDS, SERVICE, leaves, planted
from tests.e2e.load import send
from tests.e2e.pipelines import standard
from tests.e2e.stack import Jaeger, Loki, Prometheus, Sidecar, get_json, wait_for
from tests.support import REQUEST

GROUPS = {Signal.TRACES: "resource_spans", Signal.METRICS: "resource_metrics", Signal.LOGS: "resource_logs"}


class Flock:
    """Hands out canaries and knows where each one was put."""

    def __init__(self) -> None:
        self.places: dict[str, str] = {}
        self._rnd = random.Random(9)

    def email(self, path: str) -> str:
        """An invented person's address."""
        word = "".join(self._rnd.choices(string.ascii_lowercase, k=14))
        self.places[word] = f"{path} (email)"
        return f"{word}@mail.example.org"

    def secret(self, path: str) -> str:
        """A key in the format of a cloud provider's."""
        word = "".join(self._rnd.choices(string.ascii_uppercase, k=16))
        self.places[word] = f"{path} (secret)"
        return f"AKIA{word}"

    def found(self, text: str) -> dict[str, str]:
        """Canaries in a text, in any case and inside base64 (as JSON shows bytes), with the place they were put."""
        low = "\n".join([text, *map(plain, re.findall(r"[A-Za-z0-9+/]{20,}={0,2}", text))]).lower()
        return {word: place for word, place in self.places.items() if word.lower() in low}


def plain(encoded: str) -> str:
    """What a base64 text holds; empty when it is none."""
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode(errors="replace")
    except ValueError:
        return ""


class Planted(NamedTuple):
    """The sidecar that saw the canaries, the file it wrote, and the canaries."""

    sidecar: Sidecar
    file: Path
    flock: Flock


@pytest.fixture(scope="module")
def planting(
    start_sidecar: Start, jaeger: Jaeger, loki: Loki, prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory
) -> Planted:
    file, flock = tmp_path_factory.mktemp("out") / "out.jsonl", Flock()
    more = {"debug": {"verbosity": "detailed"}, "file": {"path": str(file)}}
    config = standard(jaeger, loki, **more)
    config["service"]["telemetry"] = {"logs": {"level": "debug"}}
    sidecar = start_sidecar(config)
    prometheus.scrape(sidecar.metrics)
    for signal in Signal:
        send(sidecar.grpc, [planted(signal, flock.email, 1), planted(signal, flock.secret, 2)], signal.value)
    wait_for(lambda: len(jaeger.spans(SERVICE)) == 2, 30, "two spans in Jaeger")
    wait_for(lambda: len(loki.lines(f'{{service="{SERVICE}"}}')) == 2, 30, "two lines in Loki")
    wait_for(lambda: len(prometheus.query(f'{{job="{SERVICE}",__name__!~"llm_.*|pii_.*"}}')) >= 10, 30, "series in Prometheus")
    wait_for(lambda: file.exists() and file.read_text().count("\n") >= 3, 20, "all signals in the file")
    return Planted(sidecar, file, flock)


def test_every_leaf_of_every_signal_has_its_canary() -> None:
    """R-302 (partly): the requests that the other tests send really cover every place."""
    for signal in Signal:
        flock = Flock()
        request = planted(signal, flock.email)
        wanted = set(leaves(REQUEST[signal].DESCRIPTOR))
        assert {place.split()[0] for place in flock.places.values()} == wanted
        assert len(flock.found(str(request))) == len(flock.places) > 2 * len(wanted) > 20
        assert not {path.rpartition(".")[2] for path in wanted} & IDS.keys()


def test_the_search_finds_canaries_that_went_past_the_sidecar(jaeger: Jaeger) -> None:
    flock = Flock()
    request = planted(Signal.TRACES, flock.email, 3)
    for attribute in request.resource_spans[0].resource.attributes:
        if attribute.key == "service.name":
            attribute.value.string_value = "past-the-sidecar"
    send(jaeger.grpc, [request])
    wait_for(lambda: jaeger.spans("past-the-sidecar"), 10, "the span")
    found = flock.found(json.dumps(jaeger.traces("past-the-sidecar")))
    shapes = {place.split()[1] for place in found.values() if place.startswith("resource_spans.scope_spans.spans.attributes ")}
    assert len(found) >= 30, "Jaeger itself does not show scopes' and links' attributes"
    assert shapes == {"text", "list", "map", "bytes", "JSON", "key"}


def test_no_canary_is_in_jaeger(planting: Planted, jaeger: Jaeger) -> None:
    """R-301, R-302, R-303 (partly), R-304 (partly)."""
    text = json.dumps([jaeger.services(), jaeger.traces(SERVICE)])
    assert planting.flock.found(text) == {}
    assert text.count("seen ") >= 8, "what surrounds a finding is still there"


def test_no_canary_is_in_loki(planting: Planted, loki: Loki) -> None:
    """R-301, R-302."""
    url = f"http://127.0.0.1:{loki.http}/loki/api/v1"
    values = [get_json(f"{url}/label/{label}/values") for label in loki.labels()]
    text = json.dumps([values, loki.streams('{service=~".+"}')])
    assert planting.flock.found(text) == {}
    assert "seen " in text


def test_no_canary_is_in_prometheus_or_on_the_metrics_endpoints(planting: Planted, prometheus: Prometheus) -> None:
    """R-301, R-302."""
    assert planting.flock.found(prometheus.everything()) == {}
    for own in (True, False):
        for accept in ("", "application/openmetrics-text;version=1.0.0"):
            assert planting.flock.found(planting.sidecar.exposition(own=own, accept=accept)) == {}


def test_no_canary_is_in_the_debug_output_or_the_own_log(planting: Planted) -> None:
    """R-301, R-306, R-610 (partly)."""
    text = planting.sidecar.log.read_text()
    assert planting.flock.found(text) == {}
    assert SERVICE in text, "the debug exporter did write"


def test_no_canary_is_in_the_file(planting: Planted) -> None:
    """R-301."""
    text = planting.file.read_text()
    assert planting.flock.found(text) == {}
    for signal in GROUPS.values():
        assert re.sub(r"_(\w)", lambda match: match[1].upper(), signal) in text


def test_every_canary_was_counted(planting: Planted) -> None:
    """R-309."""
    print(f"{len(planting.flock.places)} canaries planted")
    emails = [place for place in planting.flock.places.values() if place.endswith("(email)")]
    assert planting.sidecar.total("pii_detections_total", pii_type="email", detector="sidecar") == len(emails) > 300
    assert planting.sidecar.total("pii_detections_total") == len(planting.flock.places)
