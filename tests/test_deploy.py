"""What ships for deployment is accepted by the programs it is meant for, as far as no container engine is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
BACKENDS = Path(os.environ.get("OTEL_SIDECAR_BACKENDS") or CACHE / "otel-sidecar" / "backends")
EXACT = re.compile(r"[a-z0-9./-]+:v?[0-9]+\.[0-9]+\.[0-9]+([-.a-z0-9]*)?")
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KUBERNETES = ("native-sidecar", "plain-container")


def run(*command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=60
    )


def accepted(*command: str | Path, **env: str) -> None:
    """The program exists and accepts the file; a program that is not installed skips the test, saying so."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = run(*command, **env)
    assert done.returncode == 0, done.stdout + done.stderr


def dockerfile(path: Path) -> list[tuple[str, str]]:
    """Instructions and arguments, continuation lines joined."""
    text = re.sub(r"\\\n", " ", path.read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0].upper(), line.split(maxsplit=1)[1]) for line in lines]


def arguments(instruction: str) -> list[str]:
    return [value for name, value in dockerfile(ROOT / "Dockerfile") if name == instruction]


# Compose


def compose_command() -> list[str]:
    if shutil.which("docker") and run("docker", "compose", "version").returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("neither the docker compose plugin nor docker-compose is installed")


def test_compose_accepts_the_stack_when_a_password_is_set() -> None:
    """R-1203 (partly)."""
    done = run(*compose_command(), "-f", "deploy/compose/compose.yaml", "config", "-q", GRAFANA_PASSWORD="chosen")
    assert done.returncode == 0, done.stderr


def test_compose_refuses_the_stack_without_a_grafana_password() -> None:
    """R-1206 (partly)."""
    done = run(*compose_command(), "-f", "deploy/compose/compose.yaml", "config", "-q", GRAFANA_PASSWORD="")
    assert done.returncode != 0
    assert "GRAFANA_PASSWORD" in done.stderr


def test_the_stack_has_the_application_the_sidecar_and_every_backend() -> None:
    """R-1203 (partly), R-1208, R-1209 (partly)."""
    assert SERVICES.keys() == {"demo", "sidecar", "jaeger", "loki", "prometheus", "alertmanager", "grafana"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_pinned_checked_and_restarted(name: str) -> None:
    """R-1203 (partly)."""
    service = SERVICES[name]
    assert EXACT.fullmatch(service["image"]), "an exact version, never latest"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_mounted_file_exists_and_every_volume_is_declared(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / "compose" / source).exists(), source
            assert volume.endswith(":ro"), "configuration is mounted read-only"
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", ["jaeger", "loki", "prometheus", "alertmanager", "grafana", "sidecar"])
def test_whatever_keeps_data_keeps_it_in_a_named_volume(name: str) -> None:
    """R-1203 (partly)."""
    assert [volume for volume in SERVICES[name]["volumes"] if not volume.startswith(".")]


def test_services_wait_until_what_they_need_is_healthy() -> None:
    needs = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    assert needs["sidecar"] >= {"jaeger", "loki"}
    assert needs["grafana"] >= {"prometheus", "loki", "jaeger"}


def test_the_sidecar_shares_the_network_of_its_application_and_may_write_nowhere_else() -> None:
    """R-1202 (partly)."""
    sidecar = SERVICES["sidecar"]
    assert sidecar["network_mode"] == "service:demo"
    assert sidecar["read_only"] is True
    assert sidecar["cap_drop"] == ["ALL"]
    assert sidecar["tmpfs"] == ["/tmp"]
    assert "sidecar-data:/var/lib/otelcol" in sidecar["volumes"]
    assert SERVICES["demo"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://localhost:4318"


# Mounted configuration, each through its own program


def test_prometheus_accepts_its_configuration() -> None:
    accepted("promtool", "check", "config", "--syntax-only", "deploy/prometheus/prometheus.yml")


def test_prometheus_accepts_the_rules_and_they_fire_and_stay_silent_as_tested() -> None:
    """R-801 (partly), R-804 (partly), R-823, R-827 (partly)."""
    accepted("promtool", "check", "rules", *(DEPLOY / "prometheus" / "rules").glob("*.yml"))
    accepted("promtool", "test", "rules", "deploy/prometheus/rules_test.yml")


def test_prometheus_scrapes_every_15_seconds_and_honours_the_labels_of_the_sidecar() -> None:
    """R-1204 (partly), R-1210 (partly)."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert config["global"]["scrape_interval"] == config["global"]["evaluation_interval"] == "15s"
    assert config["global"]["external_labels"].keys() == {"cluster", "environment"}
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs["applications"]["honor_labels"] is True
    assert "--storage.tsdb.retention.time=30d" in SERVICES["prometheus"]["command"]
    assert "--web.enable-lifecycle" in SERVICES["prometheus"]["command"]


def test_alertmanager_accepts_its_configuration() -> None:
    """R-1205 (partly), R-806 (partly), R-807 (partly)."""
    accepted("amtool", "check-config", "deploy/alertmanager/alertmanager.yml")


def test_loki_accepts_its_configuration() -> None:
    accepted(BACKENDS / "loki", "-verify-config", "-config.file=deploy/loki/loki.yaml")


def test_loki_keeps_lines_as_long_as_their_level_asks_for() -> None:
    """R-608."""
    limits = yaml.safe_load((DEPLOY / "loki" / "loki.yaml").read_text())
    assert limits["compactor"]["retention_enabled"] is True
    kept = {stream["selector"]: stream["period"] for stream in limits["limits_config"]["retention_stream"]}
    days = {"debug": 1, "info": 7, "warning": 30, "error": 90, "critical": 365}
    assert kept == {f'{{level="{level}"}}': f"{24 * count}h" for level, count in days.items()}


def test_jaeger_accepts_its_configuration() -> None:
    accepted(BACKENDS / "jaeger", "validate", "--config", "deploy/jaeger/jaeger.yaml")


@pytest.mark.parametrize("file", ["deploy/compose/collector.yaml", "deploy/kubernetes/base/config.yaml"])
def test_the_sidecar_accepts_its_configuration(file: str) -> None:
    """R-1202 (partly)."""
    accepted(sys.executable, "-m", "collector", "validate", file)


def test_grafana_leads_from_a_log_line_to_its_trace_and_from_a_span_to_its_lines() -> None:
    """R-611."""
    file = DEPLOY / "grafana" / "provisioning" / "datasources" / "datasources.yaml"
    sources = {each["type"]: each for each in yaml.safe_load(file.read_text())["datasources"]}
    assert sources.keys() == {"prometheus", "loki", "jaeger"}
    (derived,) = sources["loki"]["jsonData"]["derivedFields"]
    # `label` also looks into structured metadata, where the sidecar puts the id.
    assert (derived["matcherType"], derived["matcherRegex"], derived["datasourceUid"]) == ("label", "trace_id", "jaeger")
    back = sources["jaeger"]["jsonData"]["tracesToLogsV2"]
    assert back["datasourceUid"] == sources["loki"]["uid"]
    assert back["query"] == '{$${__tags}} | trace_id="$${__trace.traceId}"'
    assert back["tags"] == [{"key": "service.name", "value": "service"}]


def test_grafana_data_sources_reach_the_services_of_the_stack_and_cannot_be_edited() -> None:
    """R-1206 (partly)."""
    file = DEPLOY / "grafana" / "provisioning" / "datasources" / "datasources.yaml"
    for source in yaml.safe_load(file.read_text())["datasources"]:
        assert re.fullmatch(r"http://([a-z]+):[0-9]+", source["url"])[1] in SERVICES  # type: ignore[index]
        assert source["editable"] is False
        assert source.get("isDefault", False) is (source["type"] == "prometheus")


def test_grafana_boards_are_read_from_files() -> None:
    """R-1206 (partly), R-901 (partly)."""
    file = DEPLOY / "grafana" / "provisioning" / "dashboards" / "dashboards.yaml"
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    assert (provider["updateIntervalSeconds"], provider["allowUiUpdates"], provider["disableDeletion"]) == (10, True, False)
    assert f"../grafana/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    boards = list((DEPLOY / "grafana" / "dashboards").rglob("*.json"))
    assert boards
    for board in boards:
        for panel in json.loads(board.read_text())["panels"]:
            assert panel["description"], panel["title"]
            assert panel["targets"]
            assert panel["fieldConfig"]["defaults"]["unit"]


def test_every_expression_on_a_board_is_valid_and_its_counters_are_suffixed() -> None:
    """R-910 (partly)."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    for board in (DEPLOY / "grafana" / "dashboards").rglob("*.json"):
        for panel in json.loads(board.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "1h")
                done = subprocess.run(
                    ["promtool", "check", "rules", "/dev/stdin"],
                    input=json.dumps({"groups": [{"name": "board", "rules": [{"record": "a:b", "expr": expression}]}]}),
                    capture_output=True,
                    text=True,
                )
                assert done.returncode == 0, f"{panel['title']}: {done.stderr}"
                for family in re.findall(r"(?:rate|increase)\(([a-z_]+)", expression):
                    assert family.endswith(("_total", "_bucket", "_count", "_sum")), panel["title"]


# Image


def test_the_image_is_built_in_stages_from_an_exact_base() -> None:
    """R-1202 (partly)."""
    bases = [value.split()[0] for value in arguments("FROM")]
    assert len(bases) == 2
    assert len(set(bases)) == 1, "the environment needs the interpreter it was made with"
    assert re.fullmatch(r"python:[0-9]+\.[0-9]+\.[0-9]+-slim-[a-z]+", bases[0])
    assert not arguments("ADD")


def test_the_image_runs_as_user_10001_under_both_names() -> None:
    """R-1202 (partly)."""
    assert arguments("USER") == ["10001:10001"]
    assert arguments("ENTRYPOINT") == ['["/otel-sidecar"]']
    assert arguments("CMD") == ['["--config=/etc/otelcol/config.yaml"]']
    (links,) = [value for value in arguments("RUN") if "ln -s" in value]
    assert re.findall(r"ln -s /opt/otel-sidecar/bin/otel-sidecar (\S+)", links) == ["/otel-sidecar", "/otelcol"]
    assert "-o 10001 -g 10001" in links
    assert arguments("VOLUME") == ["/var/lib/otelcol"]


def test_the_image_checks_its_own_health() -> None:
    """R-1202 (partly)."""
    (check,) = arguments("HEALTHCHECK")
    assert check.endswith('CMD ["/otel-sidecar", "health"]')


def test_everything_the_image_copies_exists_and_is_sent_to_the_builder() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for value in arguments("COPY"):
        if value.startswith("--from"):
            continue
        for source in value.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] in allowed, source


def test_the_demo_image_copies_what_exists_and_is_not_root() -> None:
    instructions = dockerfile(DEPLOY / "demo" / "Dockerfile")
    for name, value in instructions:
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (DEPLOY / "demo" / source).exists(), source
    assert ("USER", "10001:10001") in instructions


# Kubernetes


def manifests(name: str) -> list[dict[str, Any]]:
    if shutil.which("kubectl"):
        done = run("kubectl", "kustomize", f"deploy/kubernetes/{name}")
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name / "deployment.yaml").read_text()))


def pod(name: str) -> dict[str, Any]:
    (deployment,) = [each for each in manifests(name) if each["kind"] == "Deployment"]
    return dict(deployment["spec"]["template"]["spec"])


def sidecar(name: str) -> dict[str, Any]:
    spec = pod(name)
    (found,) = [each for each in (*spec.get("initContainers", []), *spec["containers"]) if each["name"] == "otel-sidecar"]
    return dict(found)


@pytest.mark.parametrize("name", KUBERNETES)
@pytest.mark.parametrize("version", ["1.29", "1.34"])
def test_manifests_follow_the_schema_of_kubernetes(name: str, version: str) -> None:
    """R-1212 (partly)."""
    for manifest in manifests(name):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", KUBERNETES)
def test_pods_run_without_root_and_without_a_writable_root(name: str) -> None:
    """R-1202 (partly)."""
    spec = pod(name)
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert EXACT.fullmatch(container["image"])


@pytest.mark.parametrize("name", KUBERNETES)
def test_probes_ask_the_health_endpoint_and_the_drain_fits_into_the_grace_period(name: str) -> None:
    """R-1101 (partly), R-1102 (partly), R-1103 (partly)."""
    container = sidecar(name)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    paths = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    for probe, path in paths.items():
        asked = container[probe]["httpGet"]
        assert (asked["path"], ports[asked["port"]]) == (path, 13133)
    assert pod(name)["terminationGracePeriodSeconds"] > 20


@pytest.mark.parametrize("name", KUBERNETES)
def test_the_configuration_is_mounted_as_a_directory_so_that_changes_arrive(name: str) -> None:
    container = sidecar(name)
    (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == "/etc/otelcol"]
    assert "subPath" not in mount
    (volume,) = [each for each in pod(name)["volumes"] if each["name"] == mount["name"]]
    assert volume["configMap"]["name"] == "otel-sidecar"
    writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert writable == {"/var/lib/otelcol", "/tmp"}


def test_the_native_sidecar_starts_before_the_application_and_outlives_it() -> None:
    """R-1212 (partly)."""
    spec = pod("native-sidecar")
    assert [(each["name"], each["restartPolicy"]) for each in spec["initContainers"]] == [("otel-sidecar", "Always")]
    assert [each["name"] for each in spec["containers"]] == ["app"]


def test_the_configuration_in_the_config_map_is_the_one_that_was_checked() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    (config,) = [each for each in manifests("native-sidecar") if each["kind"] == "ConfigMap"]
    assert config["metadata"]["name"] == "otel-sidecar", "no suffix: a change reaches the running pod"
    assert config["data"]["config.yaml"] == (DEPLOY / "kubernetes" / "base" / "config.yaml").read_text()


def test_native_and_plain_sidecars_differ_only_in_where_they_stand() -> None:
    native, plain = sidecar("native-sidecar"), sidecar("plain-container")
    assert native.pop("restartPolicy") == "Always"
    assert native == plain
