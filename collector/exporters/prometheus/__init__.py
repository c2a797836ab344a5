"""Shows received metrics, and those derived from telemetry, to a Prometheus server that scrapes them.

Example:
    endpoint: localhost:8889

OTLP sums, gauges, histograms, exponential histograms (as native histograms in the protobuf format) and summaries; delta becomes
cumulative. Names and labels follow otelcol's prometheus exporter; the full resource is part of a series' identity, and what
collides is joined or counted, never lost in silence.
A little longer than most files: the settings stand beside what they set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from google.protobuf.message import DecodeError
from prometheus_client import Metric
from prometheus_client.samples import Sample
from pydantic import Field, model_validator

from collector import fields
from collector.component import Exporter, Settings
from collector.errors import Permanent
from collector.exporters.prometheus.exposition import PROTOBUF, Format, negotiate, write
from collector.exporters.prometheus.families import families
from collector.exporters.prometheus.names import Namer
from collector.exporters.prometheus.page import join, leave
from collector.exporters.prometheus.series import Shaping
from collector.exporters.prometheus.store import Store
from collector.fields import Duration, Listen, ServerTLS, without_type
from collector.meters import OVERFLOW, Meters
from collector.model import Batch, Payload, Signal, open_envelope

if TYPE_CHECKING:
    from aiohttp import web

SLICE = 200
"""Data points, metrics, scopes and resources between two chances for other work on the loop."""
SWEEP = 30.0
"""Seconds between two sweeps when nobody scrapes."""
BIG = 500
"""Series from which a scrape is written in a thread, so that receivers do not wait for it."""


class ResourceLabels(fields.Config):
    """Which resource attributes become labels of every series; `*` and `?` are wildcards."""

    included: list[str] = Field(["*"])
    """Attributes to add."""
    excluded: list[str] = Field([])
    """Attributes to leave out again."""


class ResourceConversion(fields.Config):
    """otelcol's older way to turn all resource attributes into labels."""

    enabled: bool = False
    """Add every resource attribute to every series."""
    exclude_service_attributes: bool = False
    """Except service.name, service.namespace and service.instance.id, which job and instance hold already."""


class Prometheus(Exporter):
    """Merges requests into bounded state; a scrape reads it."""

    signals = frozenset({Signal.METRICS})

    class Config(fields.Config):
        """Options of otelcol's prometheus exporter, and ours: derived_metrics, max_label_values."""

        endpoint: Listen
        """Address to listen on, `host:port`; an empty host means all addresses."""
        path: str = Field("/metrics", pattern="^/")
        """Path of the metrics page."""
        namespace: str = ""
        """Put before every received metric's name."""
        const_labels: dict[str, str] = Field({})
        """Labels for every received series."""
        send_timestamps: bool = False
        """Show the sender's time with each sample."""
        metric_expiration: Duration = Field(300.0, gt=0)
        """Forget a series that was not updated for that long."""
        enable_open_metrics: bool = True
        """Write OpenMetrics, with exemplars, for scrapers that ask for it (otelcol: false)."""
        without_scope_info: bool = False
        """Leave out the otel_scope_ labels."""
        add_metric_suffixes: bool = True
        """Add unit and type suffixes; otelcol's older spelling of translation_strategy."""
        translation_strategy: Literal[
            "",
            "UnderscoreEscapingWithSuffixes",
            "UnderscoreEscapingWithoutSuffixes",
            "NoUTF8EscapingWithSuffixes",
            "NoTranslation",
        ] = ""
        """How names are made; empty: UnderscoreEscapingWithSuffixes, unless add_metric_suffixes is false."""
        resource_constant_labels: ResourceLabels | None = None
        """Resource attributes to add to every series."""
        resource_to_telemetry_conversion: ResourceConversion = ResourceConversion()
        """The older way to add all of them."""
        tls: ServerTLS | None = None
        """Serve HTTPS."""
        derived_metrics: bool = True
        """Show metrics counted from telemetry (llm_*, pii_*) on the same page; `job` is their service, without its namespace."""
        max_label_values: int = Field(99, ge=0)
        """Distinct values of one label in one metric, `__overflow__` included; 0 for no limit."""

        @model_validator(mode="before")
        @classmethod
        def _otelcol(cls, value: Any) -> Any:
            without_type(
                value, "auth cors response_headers include_metadata max_request_body_size", "a page for scrapers needs none"
            )
            return without_type(value, "sending_queue retry_on_failure", "a scrape pulls, nothing is sent")

        def shaping(self) -> Shaping:
            """How names and labels come out."""
            strategy = self.translation_strategy or (
                "UnderscoreEscapingWithSuffixes" if self.add_metric_suffixes else "UnderscoreEscapingWithoutSuffixes"
            )
            labels, conversion = self.resource_constant_labels, self.resource_to_telemetry_conversion
            namer = Namer(self.namespace, strategy.endswith("WithSuffixes"), strategy.startswith("Underscore"))
            return Shaping(
                namer=namer,
                scope_labels=not self.without_scope_info,
                constant=tuple(namer.labels(self.const_labels.items()).items()),
                resource_labels=conversion.enabled,
                keep_service=not conversion.exclude_service_attributes,
                included=tuple(labels.included) if labels else None,
                excluded=tuple(labels.excluded) if labels else (),
                label_limit=self.max_label_values,
            )

    def __init__(self, config: Any, settings: Settings) -> None:
        super().__init__(config, settings)
        meters = settings.meters
        self._rejected = meters.counter(
            "collector_prometheus_rejected_points", "Data points that could not be shown.", ("exporter", "reason"), cap=0
        )
        self._folded = meters.counter("label_overflow", "Label values beyond the cap of a family.", ("label",), cap=0)
        self._conflicts = meters.counter(
            "collector_prometheus_derived_conflicts", "Derived families hidden by a received one.", ("family",)
        )
        self._scraped = meters.gauge(
            "collector_prometheus_last_scrape_timestamp_seconds", "When the page was last read.", ("exporter",), cap=0
        )
        self._warned: set[tuple[str, str]] = set()
        self._hidden: set[str] = set()
        self._folded_labels: set[str] = set()
        self._turn = asyncio.Lock()
        self._open = False
        self.store = _kept(meters, settings.id, config.shaping())
        self.store.report(self._fold, self._reject)
        self.clock = time.monotonic
        self._swept = 0.0

    async def start(self) -> None:
        """Listen. Raises OSError when the address is taken."""
        if not self._open:
            await join(self.settings.meters, self.config.endpoint, self.config.tls, self._scrape)
            self._open = True

    async def stop(self) -> None:
        """Close the port; the series stay for the component that takes over after a reload."""
        if self._open:
            self._open = False
            await leave(self.settings.meters, self.config.endpoint, self._scrape)

    async def send(self, payload: Payload) -> int:
        """Merge one request; returns the data points that cannot be shown, each counted with its reason."""
        try:
            batch = open_envelope(Signal.METRICS, payload.data)
        except DecodeError as error:
            raise Permanent("metrics that cannot be decoded") from error
        now, rejected = self.clock(), 0
        if now - self._swept > SWEEP:
            self._swept = now
            self.store.expire(now - self.config.metric_expiration)
        async with self._turn:  # points of one series must be merged in the order they were sent
            for steps, taken in enumerate(self._merge(batch, now), 1):
                rejected += not taken
                if steps % SLICE == 0:
                    await asyncio.sleep(0)
        return rejected

    def _merge(self, batch: Batch, now: float) -> Iterator[bool]:
        """False for each point that cannot be shown, True for every other one and before each resource, scope and metric."""
        for group in batch.groups:
            yield True
            target = self.store.target(group.header, now)
            for scope in group.scopes:
                yield True
                origin = self.store.origin(target, scope.header)
                for item in scope.items:
                    yield True
                    yield from self.store.add(item, origin, now)

    def exposition(self, chosen: Format) -> bytes:
        """The page in one format."""
        derived = self._derived() if self.config.derived_metrics else []
        received = families(
            self.store,
            protobuf=chosen.kind == PROTOBUF,
            escape=not chosen.utf8,
            timestamps=self.config.send_timestamps,
            others=frozenset(metric.name for metric in derived),
        )
        return write(chain(received, derived), chosen)  # one family at a time: samples are large

    def _derived(self) -> list[Metric]:
        """Derived families of named services (R-506), without those that an application sends itself: no double count (R-505)."""
        shown = []
        for metric in self.settings.meters.derived.collect():
            if not metric.samples:
                continue
            names = {metric.name, *(sample.name for sample in metric.samples)}
            if names.isdisjoint(self.store.claims):
                self._hidden.discard(metric.name)
                metric.samples = [_of_its_service(sample) for sample in metric.samples]
                shown.append(metric)
            elif metric.name not in self._hidden:
                self._hidden.add(metric.name)
                self._conflicts.add(1, metric.name)
        return shown

    async def _scrape(self, request: web.Request) -> web.Response:
        from aiohttp import web

        if request.path != self.config.path:
            raise web.HTTPNotFound(text=f"404: the metrics are at {self.config.path}\n")
        self._scraped.set(time.time(), self.settings.id)
        self.store.expire(self.clock() - self.config.metric_expiration)
        chosen = negotiate(request.headers.get("Accept", ""), openmetrics=self.config.enable_open_metrics)
        if sum(len(family.outputs) for family in self.store.families.values()) > BIG:
            self.settings.meters.settle()  # on a thread it cannot be done
            body = await asyncio.to_thread(self.exposition, chosen)
        else:
            body = self.exposition(chosen)
        response = web.Response(body=body, headers={"Content-Type": chosen.content_type})
        response.enable_compression()
        return response

    def _fold(self, label: str) -> None:
        if label not in self._folded_labels and len(self._folded_labels) >= 98:
            label = OVERFLOW
        self._folded_labels.add(label)
        self._folded.add(1, label)

    def _reject(self, reason: str, name: str) -> None:
        self._rejected.add(1, self.settings.id, reason)
        if (reason, name) not in self._warned and len(self._warned) < 100:
            self._warned.add((reason, name))
            self.settings.log.warning("metric cannot be shown", extra={"reason": reason, "metric": name[:100]})


def _of_its_service(sample: Sample) -> Sample:
    """With `job` where the series names a service; its instance is the sidecar's, which the scraper knows."""
    service = sample.labels.get("service")
    return sample if service is None else sample._replace(labels={"job": service, **sample.labels})


_stores: WeakKeyDictionary[Meters, dict[str, Store]] = WeakKeyDictionary()


def _kept(meters: Meters, component: str, shaping: Shaping) -> Store:
    """The store of the component before a reload, if its names come out the same: counters survive."""
    stores = _stores.setdefault(meters, {})
    found = stores.get(component)
    if found is None or found.shaping != shaping:
        found = stores[component] = Store(shaping)
    return found
