"""The shape around the components: sections, ids, pipelines, references. otelcol's core phrases, with positions and advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from collector.catalog import ALIASES, KINDS, Catalog
from collector.config.ids import id_fault, same_id
from collector.config.nodes import Node
from collector.config.problems import Mark, Report, did_you_mean
from collector.config.resolved import Declared, PipelineSpec
from collector.config.settings import check
from collector.config.telemetry import TelemetryConfig
from collector.errors import ConfigError
from collector.model import Signal

PLANNED = {
    "receivers": "kafka",
    "processors": "attributes resource filter transform resource_detection resourcedetection span groupbytrace cumulativetodelta "
                  "deltatocumulative interval k8sattributes k8s_attributes metricstransform queuebatch",
    "exporters": "kafka prometheusremotewrite loadbalancing zipkin elasticsearch",
    "extensions": "file_storage basicauth bearertokenauth oidc pprof",
}  # fmt: skip
ELSEWHERE = {
    "receivers": "jaeger zipkin prometheus hostmetrics opencensus filelog syslog statsd redis k8s_cluster kubeletstats nop",
    "processors": "groupbyattrs k8s_attributes logdedup remotetap schema sumologic geoip isolationforest",
    "exporters": "logging jaeger zipkin nop prometheus_remote_write datadog splunk_hec awsxray googlecloud clickhouse",
    "extensions": "memory_ballast host_observer k8s_observer opamp jaegerremotesampling headers_setter",
}
INSTEAD = {  # what does the same here
    ("exporters", "logging"): "use debug, its newer name",
    ("exporters", "jaeger"): "Jaeger takes OTLP: use otlp_grpc with endpoint jaeger:4317",
    ("exporters", "datadog"): "use otlp_http with Datadog's OTLP endpoint and its API key as a header",
    ("extensions", "memory_ballast"): "not needed: remove it",
}
_SECTIONS = (*KINDS, "connectors", "service")
_PIPELINE_KINDS = ("receivers", "processors", "exporters")
Declarations = dict[str, dict[str, Declared | None]]
"""By kind and id as written; None when the component's own part is wrong, so that references to it are no further errors."""


class Structure:
    """Reads one tree; everything wrong goes into the report."""

    def __init__(self, tree: Node, catalog: Catalog, report: Report) -> None:
        self.tree, self.catalog, self.report = tree, catalog, report
        self.declared: Declarations = {kind: {} for kind in KINDS}
        self.pipelines: dict[str, PipelineSpec] = {}
        self.extensions_on: tuple[str, ...] = ()
        self.telemetry: TelemetryConfig | None = TelemetryConfig()

    def read(self) -> None:
        """All of it, in the order of the sections."""
        if not self.tree.value:
            self.report.add("C014", self.tree.mark if self.tree.mark.line else None, (), "empty configuration file")
            return
        self._known_keys(self.tree, (), _SECTIONS)
        for kind in KINDS:
            self._components(kind)
        self._connectors()
        for kind, noun in (("receivers", "receiver"), ("exporters", "exporter")):
            section = self.tree.child(kind)
            if section is None or not section.value:
                mark = self.tree.keys.get(kind, self.tree.mark)
                self.report.add("C014", mark, (kind,), f"no {noun} configuration specified in config")
        self._service()

    def _known_keys(self, node: Node, path: tuple[str, ...], known: Sequence[str]) -> None:
        for key, mark in node.keys.items():
            if key not in known:
                where = f"'{'::'.join(path)}' has" if path else "configuration has"
                hint = did_you_mean(key, known) or f"known: {', '.join(known)}"
                self.report.add("C003", mark, (*path, key), f"{where} invalid keys: {key}", hint)

    def _map(self, node: Node | None, path: tuple[str, ...]) -> Node | None:
        if node is None or node.value is None:
            return None
        if isinstance(node.value, dict):
            return node
        hint = f"write {path[-1]}: {{}} or one `id: {{...}}` a line"
        self.report.add("C004", node.mark, path, f"'{'::'.join(path)}' expected a mapping", hint)
        return None

    # components

    def _components(self, kind: str) -> None:
        section = self._map(self.tree.child(kind), (kind,))
        for component_id, node in (section.value if section else {}).items():
            mark = section.keys[component_id] if section else node.mark
            self.declared[kind][component_id] = self._component(kind, component_id, node, mark)

    def _component(self, kind: str, component_id: str, node: Node, mark: Mark) -> Declared | None:
        path = (kind, component_id)
        if fault := id_fault(component_id):
            self.report.add("C013", mark, path, fault)
            return None
        type_id = component_id.partition("/")[0]
        name = self.catalog.resolve(kind, type_id)
        if name is None:
            self._unknown_type(kind, component_id, mark)
            return None
        if ALIASES[kind].get(type_id) == name:
            self.report.add("N201", mark, path, f'"{type_id}" is the older name of {kind[:-1]} "{name}"', "both work")
        try:
            cls = self.catalog.load(kind, type_id)
        except ConfigError as error:
            self.report.add("C024", mark, path, str(error))
            return None
        if node.value is not None and not isinstance(node.value, dict):
            self.report.add(
                "C004", node.mark, path, f"'{kind}::{component_id}' expected a mapping", "indent its settings below it"
            )
            return None
        config = check(cls.Config, node, path, self.report)
        return Declared(component_id, kind, name, cls, config) if config is not None else None

    def _unknown_type(self, kind: str, component_id: str, mark: Mark) -> None:
        type_id = component_id.partition("/")[0]
        known = self.catalog.types(kind)
        others = [other for other in KINDS if other != kind and self.catalog.resolve(other, type_id)]
        if found := INSTEAD.get((kind, type_id)):
            hint = found
        elif type_id in PLANNED[kind].split():
            hint = "planned, not there yet: remove it for now"
        elif near := did_you_mean(type_id, (*known, *ALIASES[kind])):
            hint = near
        elif others:
            hint = f"{type_id} is one of the {others[0]}"
        elif type_id in ELSEWHERE[kind].split():
            hint = f"otel-sidecar does not have this {kind[:-1]} of otelcol: remove it"
        else:
            hint = "`otel-sidecar components` lists all; own ones need --components DIR"
        message = f'unknown type: "{type_id}" for id: "{component_id}" (valid values: [{" ".join(known)}])'
        self.report.add("C010", mark, (kind, component_id), message, hint)

    def _connectors(self) -> None:
        section = self._map(self.tree.child("connectors"), ("connectors",))
        for component_id, mark in (section.keys if section else {}).items():
            message = f'connectors: "{component_id}" cannot be used: otel-sidecar has no connectors yet'
            self.report.add("C017", mark, ("connectors", component_id), message, "planned, not there yet: remove it for now")

    # service

    def _service(self) -> None:
        service = self._map(self.tree.child("service"), ("service",))
        pipelines = None
        if service is not None:
            self._known_keys(service, ("service",), ("extensions", "pipelines", "telemetry"))
            self._extensions(service.child("extensions"))
            telemetry = service.child("telemetry")
            if telemetry is not None and telemetry.value is not None:
                self.telemetry = check(TelemetryConfig, telemetry, ("service", "telemetry"), self.report)
            pipelines = self._map(service.child("pipelines"), ("service", "pipelines"))
        if pipelines is None or not pipelines.value:
            mark = (service.keys.get("pipelines") if service else None) or self.tree.keys.get("service", self.tree.mark)
            self.report.add("C014", mark, ("service", "pipelines"), "service must have at least one pipeline")
            return
        for pipeline_id, node in pipelines.value.items():
            self._pipeline(pipeline_id, node, pipelines.keys[pipeline_id])

    def _extensions(self, node: Node | None) -> None:
        path = ("service", "extensions")
        self.extensions_on = tuple(
            found for _, found in self._references(node, path, "extensions", "service::extensions: references extension")
        )

    def _pipeline(self, pipeline_id: str, node: Node, mark: Mark) -> None:
        path = ("service", "pipelines", pipeline_id)
        type_id, slash, _ = pipeline_id.partition("/")
        if type_id not in tuple(Signal):
            self._wrong_signal(pipeline_id, type_id, mark)
            return
        if slash and (fault := id_fault(pipeline_id)):
            self.report.add("C013", mark, path, fault)
            return
        body = self._map(node, path)
        parts: dict[str, tuple[str, ...]] = {}
        if body is not None:
            self._known_keys(body, path, _PIPELINE_KINDS)
        for kind in _PIPELINE_KINDS:
            given = body.child(kind) if body else None
            phrase = f"service::pipelines::{pipeline_id}: references {kind[:-1]}"
            found = list(self._references(given, (*path, kind), kind, phrase))
            for at, component_id in found:
                self._takes_signal(kind, component_id, Signal(type_id), pipeline_id, at)
            parts[kind] = tuple(component_id for _, component_id in found)
            if kind != "processors" and (given is None or not given.value):
                at = (body.keys.get(kind) if body else None) or mark
                message = f"service::pipelines::{pipeline_id}: must have at least one {kind[:-1]}"
                self.report.add("C014", at, (*path, kind), message)
        self.pipelines[pipeline_id] = PipelineSpec(pipeline_id, Signal(type_id), **parts)

    def _wrong_signal(self, pipeline_id: str, type_id: str, mark: Mark) -> None:
        message = f'service::pipelines::{pipeline_id}: unknown signal "{type_id}" (valid values: [traces metrics logs])'
        hint = did_you_mean(type_id, tuple(Signal)) or "name further pipelines traces/name"
        if type_id == "profiles":
            hint = "profiles need the gate service.profilesSupport in otelcol and are not supported here"
        self.report.add("C015", mark, ("service", "pipelines", pipeline_id), message, hint)

    def _takes_signal(self, kind: str, component_id: str, signal: Signal, pipeline_id: str, mark: Mark) -> None:
        declared = self.declared[kind].get(component_id)
        if declared is None or signal in declared.cls.signals:
            return
        takes = ", ".join(s for s in Signal if s in declared.cls.signals)
        message = f'service::pipelines::{pipeline_id}: {kind[:-1]} "{component_id}": telemetry type is not supported'
        self.report.add("C016", mark, ("service", "pipelines", pipeline_id, kind), message, f"it takes {takes} only")

    def _references(self, node: Node | None, path: tuple[str, ...], kind: str, phrase: str) -> Iterator[tuple[Mark, str]]:
        if node is None or node.value is None:
            return
        if not isinstance(node.value, list):
            hint = f"write {path[-1]}: [a, b]"
            self.report.add("C004", node.mark, path, f"'{'::'.join(path)}' expected a list", hint)
            return
        seen: set[str] = set()
        for index, item in enumerate(node.value):
            at: tuple[str | int, ...] = (*path, index)
            if not isinstance(item.value, str):
                self.report.add("C004", item.mark, at, f"'{'::'.join(map(str, at))}' expected an id", "write type or type/name")
                continue
            found = same_id(kind, item.value, self.declared[kind])
            if found is None:
                self._not_configured(kind, item, at, phrase)
            elif found in seen:
                self.report.add("C012", item.mark, at, f'{phrase} "{item.value}" multiple times')
            else:
                seen.add(found)
                yield item.mark, found

    def _not_configured(self, kind: str, item: Node, path: tuple[str | int, ...], phrase: str) -> None:
        section = self.tree.child(kind)
        if section is not None and section.value is not None and not isinstance(section.value, dict):
            return  # the section itself is wrong, which is told already
        hint = did_you_mean(item.value, self.declared[kind])
        others = [other for other in KINDS if other != kind and item.value in self.declared[other]]
        if hint and section:
            hint += f" (line {section.keys[hint.split(chr(34))[1]].line})"
        elif others:
            hint = f"it is defined under {others[0]}"
        elif self.catalog.resolve(kind, item.value.partition("/")[0]):
            hint = f"define it: {kind}: {{{item.value}: {{}}}}"
        self.report.add("C011", item.mark, path, f'{phrase} "{item.value}" which is not configured', hint)
