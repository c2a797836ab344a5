"""The real programs of an end-to-end test: Jaeger, Loki, Prometheus and the sidecar, each a process on free ports.

Nothing here knows how the sidecar works: it is started by its command line and asked over the network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from bench.ports import free_port

BACKENDS = Path(
    os.environ.get("OTEL_SIDECAR_BACKENDS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "otel-sidecar", "backends")
)
LOOPBACK = "127.0.0.1"


def get(url: str, headers: Mapping[str, str] | None = None, timeout: float = 30) -> bytes:
    """Body of a GET. Raises urllib.error.URLError (an OSError) when there is no 2xx answer."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=timeout) as reply:
        return bytes(reply.read())


def get_json(url: str, query: Mapping[str, object] | None = None, timeout: float = 60) -> Any:
    """Decoded JSON of a GET."""
    return json.loads(get(f"{url}?{urllib.parse.urlencode(query)}" if query else url, timeout=timeout))


def wait_for(condition: Callable[[], Any], timeout: float, what: str) -> Any:
    """Ask until `condition()` is true and return it; OSErrors (nobody listens yet, 503) count as not yet."""
    deadline, last = time.monotonic() + timeout, ""
    while True:
        try:
            if result := condition():
                return result
        except OSError as error:
            last = f" ({error})"
            if isinstance(error, urllib.error.HTTPError):
                error.close()
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}{last}")
        time.sleep(0.05)


class Program:
    """One process whose output goes to a file; ended by its own process id, never by name."""

    name = "program"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        """Start it, appending to the log file."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def ready(self) -> Any:
        """True once it serves; may raise OSError before."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start without waiting."""
        raise NotImplementedError

    def await_ready(self, timeout: float = 90) -> Self:
        """Wait until it serves; an early exit is reported with the end of its log."""

        def alive_and_ready() -> Any:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
            return self.ready()

        wait_for(alive_and_ready, timeout, f"{self.name} ready, log:\n{self.tail()}")
        return self

    def tail(self, size: int = 4000) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout: float = 20) -> int | None:
        """SIGTERM, then SIGKILL; returns the exit code. Stopping twice is harmless."""
        self.terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = 20) -> int | None:
        """Exit code of a program that was told to end; killed after `timeout` seconds."""
        process, self.process = self.process, None
        if process is None:
            return None
        if process.poll() is None:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    def __enter__(self) -> Self:
        return self.start().await_ready()

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Jaeger(Program):
    """Jaeger 2 with storage in memory, large enough that a test never loses a trace."""

    name = "jaeger"

    def __init__(self, folder: Path, max_traces: int = 200_000) -> None:
        super().__init__(folder)
        self.grpc, self.http, self.ui, self.health = (free_port() for _ in range(4))
        self.config = folder / "jaeger.yaml"
        self.config.write_text(yaml.safe_dump(self._settings(max_traces)))

    def _settings(self, max_traces: int) -> dict[str, Any]:
        def at(port: int) -> dict[str, str]:
            return {"endpoint": f"{LOOPBACK}:{port}"}

        query = {"storage": {"traces": "mem"}, "http": at(self.ui), "grpc": at(free_port())}
        return {
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            },
            "extensions": {
                "healthcheckv2": {"use_v2": True, "http": at(self.health)},
                "jaeger_storage": {"backends": {"mem": {"memory": {"max_traces": max_traces}}}},
                "jaeger_query": query,
            },
            "receivers": {"otlp": {"protocols": {"grpc": at(self.grpc), "http": at(self.http)}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "mem"}},
        }

    def start(self) -> Self:
        # Jaeger traces its own queries and would send them to localhost:4317.
        self.launch([BACKENDS / "jaeger", "--config", self.config], {"OTEL_TRACES_SAMPLER": "always_off"})
        return self

    def ready(self) -> Any:
        return get(f"http://{LOOPBACK}:{self.health}/status") and get(f"http://{LOOPBACK}:{self.ui}/api/services")

    def services(self) -> list[str]:
        """Names of all services that sent spans."""
        return get_json(f"http://{LOOPBACK}:{self.ui}/api/services")["data"] or []

    def traces(self, service: str, limit: int = 20_000) -> list[dict[str, Any]]:
        """All traces of a service in the last hour as Jaeger's API gives them (spans with their processes)."""
        query = {"service": service, "limit": limit, "lookback": "1h"}
        return get_json(f"http://{LOOPBACK}:{self.ui}/api/traces", query)["data"] or []

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """One trace by id, None when Jaeger does not know it."""
        try:
            found = get_json(f"http://{LOOPBACK}:{self.ui}/api/traces/{trace_id}")["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise
        return found[0] if found else None

    def spans(self, service: str) -> list[dict[str, Any]]:
        """All spans of a service, each with `tags` as a plain dictionary and `process` tags beside them."""
        return [flat_span(trace, span) for trace in self.traces(service) for span in trace["spans"]]


def flat_span(trace: Mapping[str, Any], span: Mapping[str, Any]) -> dict[str, Any]:
    """A span of Jaeger's JSON with its tags, and those of its process, as dictionaries."""
    process = trace["processes"][span["processID"]]
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    attributes = {tag["key"]: tag["value"] for tag in process.get("tags", [])}
    return {**span, "tags": tags, "service": process["serviceName"], "process": attributes}


class Loki(Program):
    """Loki as one process on local files."""

    name = "loki"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.http, self.config = free_port(), folder / "loki.yaml"
        data = folder / "data"
        settings = {
            "auth_enabled": False,
            "server": {
                "http_listen_address": LOOPBACK,
                "http_listen_port": self.http,
                "grpc_listen_address": LOOPBACK,
                "grpc_listen_port": free_port(),
                "log_level": "warn",
            },
            "common": {
                "path_prefix": str(data),
                "replication_factor": 1,
                "instance_addr": LOOPBACK,
                "ring": {"kvstore": {"store": "inmemory"}},
                "storage": {"filesystem": {"chunks_directory": f"{data}/chunks", "rules_directory": f"{data}/rules"}},
            },
            "schema_config": {
                "configs": [
                    {
                        "from": "2024-01-01",
                        "store": "tsdb",
                        "object_store": "filesystem",
                        "schema": "v13",
                        "index": {"prefix": "index_", "period": "24h"},
                    }
                ]
            },
            "limits_config": {"allow_structured_metadata": True, "volume_enabled": False, "max_entries_limit_per_query": 100_000},
            "analytics": {"reporting_enabled": False},
            "ingester": {"lifecycler": {"final_sleep": "0s", "min_ready_duration": "0s"}},
        }
        self.config.write_text(yaml.safe_dump(settings))

    def start(self) -> Self:
        self.launch([BACKENDS / "loki", f"-config.file={self.config}"])
        return self

    def ready(self) -> Any:
        return get(f"http://{LOOPBACK}:{self.http}/ready")

    def labels(self) -> list[str]:
        """Names of all stream labels."""
        return get_json(f"http://{LOOPBACK}:{self.http}/loki/api/v1/labels").get("data") or []

    def streams(self, query: str, limit: int = 100_000) -> list[dict[str, Any]]:
        """Result of a LogQL log query over the last hour and the next minute, structured metadata apart from labels."""
        now = time.time_ns()
        asked = {"query": query, "limit": limit, "start": now - 3_600 * 10**9, "end": now + 60 * 10**9}
        url = f"http://{LOOPBACK}:{self.http}/loki/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        reply = json.loads(get(url, {"X-Loki-Response-Encoding-Flags": "categorize-labels"}))
        return reply["data"]["result"]

    def lines(self, query: str) -> list[dict[str, Any]]:
        """Every line of the result: `labels`, `line`, `metadata` (structured metadata), `time` in nanoseconds."""
        return [
            {
                "labels": stream["stream"],
                "time": int(entry[0]),
                "line": entry[1],
                "metadata": (entry[2] if len(entry) > 2 else {}).get("structuredMetadata", {}),
            }
            for stream in self.streams(query)
            for entry in stream["values"]
        ]


class Prometheus(Program):
    """Prometheus that scrapes the sidecars it was told, every second, native histograms included."""

    name = "prometheus"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self.config, self.targets = free_port(), folder / "prometheus.yml", folder / "targets.json"
        self.targets.write_text("[]")
        scrape = {
            "job_name": "sidecar",
            "honor_labels": True,
            "file_sd_configs": [{"files": [str(self.targets)], "refresh_interval": "1s"}],
        }
        settings = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scrape]}
        self.config.write_text(yaml.safe_dump(settings))

    def start(self) -> Self:
        self.launch(
            [
                "prometheus",
                f"--config.file={self.config}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address={LOOPBACK}:{self.port}",
                "--enable-feature=native-histograms,exemplar-storage",
                "--log.level=warn",
            ]
        )
        return self

    def ready(self) -> Any:
        return get(f"http://{LOOPBACK}:{self.port}/-/ready")

    def scrape(self, *ports: int) -> None:
        """Scrape these exposition endpoints from now on, in place of the earlier ones."""
        part = self.targets.with_suffix(".part")
        part.write_text(json.dumps([{"targets": [f"{LOOPBACK}:{port}" for port in ports]}]))
        part.replace(self.targets)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Result vector of an instant query: `metric`, `value` or `histogram`."""
        return get_json(f"http://{LOOPBACK}:{self.port}/api/v1/query", {"query": expression})["data"]["result"]

    def value(self, expression: str) -> float:
        """The one number an expression gives. Raises AssertionError when it is not exactly one."""
        result = self.query(expression)
        assert len(result) == 1, f"{expression}: {result}"
        return float(result[0]["value"][1])

    def everything(self) -> str:
        """All series names, label values and help texts it holds, as text to search in."""
        url = f"http://{LOOPBACK}:{self.port}/api/v1"
        return "\n".join(
            json.dumps(part)
            for part in (
                get_json(f"{url}/series", {"match[]": '{__name__=~".+"}'}),
                get_json(f"{url}/metadata"),
                get_json(
                    f"{url}/query_exemplars", {"query": '{__name__=~".+"}', "start": time.time() - 3600, "end": time.time()}
                ),
            )
        )


class Sidecar(Program):
    """The program under test, run from its command line with one config file."""

    name = "sidecar"

    def __init__(self, folder: Path, config: Mapping[str, Any], ports: Mapping[str, int] | None = None) -> None:
        super().__init__(folder)
        self.ports = dict(ports or {})
        self.grpc, self.http, self.own, self.metrics, self.health = (
            self.ports.setdefault(name, free_port()) for name in ("grpc", "http", "own", "metrics", "health")
        )
        self.file = folder / "collector.yaml"
        self.file.write_text(yaml.safe_dump(self._complete(config), sort_keys=False))

    def _complete(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The given config with receiver, health check and own metrics on this sidecar's ports."""

        def at(port: int) -> dict[str, str]:
            return {"endpoint": f"{LOOPBACK}:{port}"}

        out = {key: dict(value) for key, value in config.items()}
        out.setdefault("receivers", {"otlp": {"protocols": {"grpc": at(self.grpc), "http": at(self.http)}}})
        out["extensions"] = {"health_check": at(self.health), **out.get("extensions", {})}
        for key in out.get("exporters", {}):
            if key.partition("/")[0] == "prometheus":
                out["exporters"][key] = {**at(self.metrics), **(out["exporters"][key] or {})}
        reader = {"pull": {"exporter": {"prometheus": {"host": LOOPBACK, "port": self.own}}}}
        out["service"].setdefault("extensions", ["health_check"])
        out["service"]["telemetry"] = {"metrics": {"readers": [reader]}, **out["service"].get("telemetry", {})}
        return out

    def start(self) -> Self:
        self.launch([sys.executable, "-m", "collector", "run", "--config", self.file])
        return self

    def ready(self) -> Any:
        return get(f"http://{LOOPBACK}:{self.health}/readyz")

    def exposition(self, *, own: bool = False, accept: str = "") -> str:
        """Text of the metrics endpoint: the exporter's, or the sidecar's own."""
        port = self.own if own else self.metrics
        return get(f"http://{LOOPBACK}:{port}/metrics", {"Accept": accept} if accept else {}).decode()

    def samples(self, *, own: bool = False) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of an endpoint by name and labels."""
        from prometheus_client.parser import text_string_to_metric_families

        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.exposition(own=own))
            for sample in family.samples
        }

    def total(self, name: str, *, own: bool = False, **labels: str) -> float:
        """Sum of all samples of a name that carry these labels; 0 when there is none."""
        return sum(
            value for (found, has), value in self.samples(own=own).items() if found == name and set(labels.items()) <= set(has)
        )

    def balance(self, signal: str, exporter: str) -> dict[str, float]:
        """The books of one destination: accepted, delivered, dropped, recovered and queued items."""
        states = {
            state: self.total("collector_items_total", own=True, signal=signal, exporter=exporter, state=state)
            for state in ("accepted", "delivered", "dropped", "recovered")
        }
        return {**states, "queued": self.total("collector_queued_items", own=True, signal=signal, exporter=exporter)}
