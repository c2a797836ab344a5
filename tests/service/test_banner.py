"""service.banner: where it listens, in one screen."""

from collector.catalog import Catalog
from collector.config.load import load
from collector.service.banner import banner, otlp_http

TEXT = """
receivers: {otlp: {protocols: {grpc: , http: {endpoint: "127.0.0.1:14318"}}}}
exporters: {debug: , prometheus: {endpoint: "127.0.0.1:18889"}}
extensions: {console: {endpoint: "127.0.0.1:15679"}}
service:
  extensions: [console]
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}, metrics: {receivers: [otlp], exporters: [prometheus]}}
"""


def resolved(folder, text=TEXT):
    file = folder / "config.yaml"
    file.write_text(text)
    loaded = load([str(file)], catalog=Catalog())
    assert loaded.resolved is not None, [p.render() for p in loaded.errors]
    return loaded.resolved


def shown(folder, dev):
    return banner(resolved(folder), dev=dev)


def test_every_listener_and_pipeline_is_named(tmp_path):
    text = shown(tmp_path, dev=False)
    for part in (
        "otlp grpc",
        "localhost:4317",
        "127.0.0.1:14318",
        "http://127.0.0.1:15679/",
        "http://127.0.0.1:18889/metrics",
        "http://localhost:8888/metrics",
        "otlp > debug",
    ):
        assert part in text, text
    assert "dev mode" not in text


def test_dev_mode_says_that_nothing_leaves_and_what_to_try(tmp_path):
    text = shown(tmp_path, dev=True)
    assert "nothing leaves this host" in text
    assert "`otel-sidecar send --endpoint http://127.0.0.1:14318`" in text
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:14318 " in text


def test_where_otlp_comes_in_over_http_is_known(tmp_path):
    assert otlp_http(resolved(tmp_path)) == "127.0.0.1:14318"
    assert otlp_http(resolved(tmp_path, TEXT.replace(', http: {endpoint: "127.0.0.1:14318"}', ""))) == ""
    assert otlp_http(resolved(tmp_path, TEXT.replace("otlp", "otlp/b"))) == "127.0.0.1:14318"


def test_the_banner_names_a_command_that_can_be_run_here(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [".venv/bin/otel-sidecar", "run"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "`.venv/bin/otel-sidecar send" in shown(tmp_path, dev=True)
