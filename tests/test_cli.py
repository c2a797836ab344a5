from __future__ import annotations

import http.server
import json
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import collector.service.run
from collector import __version__
from collector.cli import COMMANDS, main, places
from collector.cli.run import send_sample
from collector.cli.send import conversation
from collector.errors import ConfigError
from tests.config.conftest import BASE, COMPONENTS
from tests.config.test_load import EIGHT_MISTAKES

HEAVY = ("pydantic", "yaml", "grpc", "aiohttp", "google.protobuf", "genai_prices", "hyperscan", "rich", "prometheus_client")
CLIENTS = ("grpc", "aiohttp", "genai_prices", "hyperscan", "re2", "rich", "uvloop")


def cli(*args: str, stdin: str | bytes = "", env: dict[str, str] | None = None) -> Any:
    result = CliRunner().invoke(main, args, input=stdin, env={"OTEL_SIDECAR_CONFIG": "", **(env or {})})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(BASE)
    return str(path)


OWN = ("--components", str(COMPONENTS))


def modules_after(*args: str) -> tuple[int, set[str]]:
    """Exit code and modules of a fresh process that ran the command."""
    script = (
        "import sys, runpy\nsys.argv = ['otel-sidecar', *sys.argv[1:]]\ncode = 0\n"
        "try: runpy.run_module('collector', run_name='__main__')\n"
        "except SystemExit as stop: code = stop.code or 0\n"
        "sys.stderr.write('\\n@' + ' '.join([str(code), *sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=60)
    code, *names = done.stderr.rpartition("@")[2].split()
    return int(code), set(names)


# loading


@pytest.mark.parametrize(
    "args", [["--version"], ["--help"], ["version"], ["health", "--endpoint", "127.0.0.1:1"], ["send", "--help"]]
)
def test_small_commands_load_no_large_library(args: list[str]) -> None:
    code, names = modules_after(*args)
    assert code == (1 if args[0] == "health" else 0)
    assert not names & set(HEAVY)
    assert not any(name.startswith("collector.") and not name.startswith("collector.cli") for name in names)


def test_validate_loads_no_client_library() -> None:
    code, names = modules_after("validate", "config/collector.yaml")
    assert code == 0
    assert "collector.exporters.otlp_grpc" in names
    assert not names & set(CLIENTS)


# the group


def test_help_lists_every_command_and_its_line() -> None:
    shown = cli("--help").output
    assert all(name in shown and text[:30] in shown for name, (_, text) in COMMANDS.items())


@pytest.mark.parametrize("args", [["--version"], ["-v"], ["version"]])
def test_the_version_is_printed(args: list[str]) -> None:
    assert __version__ in cli(*args).output


def test_the_group_knows_its_commands_for_completion() -> None:
    names = main.list_commands(click.Context(main))
    assert names == list(COMMANDS)
    assert all(main.get_command(click.Context(main), name) is not None for name in names)


def test_an_unknown_command_is_wrong_usage() -> None:
    result = cli("valdate")
    assert result.exit_code == 2
    assert "No such command 'valdate'. Did you mean 'validate'?" in result.output
    assert "A configuration file goes after --config." in cli("my.yaml").output


# run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Options of each start; the service itself is tested elsewhere."""
    calls: list[Any] = []

    def record(options: Any) -> int:
        calls.append(options)
        return 0

    monkeypatch.setattr(collector.service.run, "main", record)
    return calls


def test_no_command_means_run(started: list[Any], config: str) -> None:
    assert cli(f"--config={config}").exit_code == 0
    assert cli("run", "--config", config).exit_code == 0
    assert [options.sources for options in started] == [(config,), (config,)]


def test_all_flags_of_run_arrive(started: list[Any]) -> None:
    args = "--config=a.yaml --config=env:B --set=x.y=1 --set z=2 --components=/c --log-level=debug --log-format=json --drain-timeout=1m30s"
    assert cli("run", *args.split(), "--relax-unset-env").exit_code == 0
    (options,) = started
    assert options == collector.service.run.RunOptions(
        sources=("a.yaml", "env:B"),
        sets=("x.y=1", "z=2"),
        components=(Path("/c"),),
        dev=False,
        log_level="debug",
        log_format="json",
        drain_timeout=90.0,
        relax_unset_env=True,
    )


def test_booleans_may_be_written_as_the_operator_writes_them(started: list[Any]) -> None:
    cli("--config=a", "--relax-unset-env=true", "--dev=false")
    cli("--config=a", "--relax-unset-env=false")
    assert [(o.relax_unset_env, o.dev) for o in started] == [(True, False), (False, False)]


def test_feature_gates_are_noted_and_have_no_effect(started: list[Any]) -> None:
    result = cli("--config=a", "--feature-gates=-x.y,+z", "--feature-gates=w")
    assert result.exit_code == 0
    assert [line.split()[3] for line in result.stderr.splitlines()] == ["-x.y", "+z", "w"]


def test_development_needs_no_file_and_may_be_changed(started: list[Any]) -> None:
    assert cli("run", "--dev", "--set=a.b=1").exit_code == 0
    (options,) = started
    assert options.dev
    assert options.sources == (str(places.development()),)
    assert Path(options.sources[0]).name == "dev.yaml"
    assert Path(options.sources[0]).is_file()


def test_without_configuration_run_says_how_to_look_around(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(places, "DEFAULT_FILES", (str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")))
    result = cli("run")
    assert result.exit_code == 2
    assert "otel-sidecar run --dev" in result.output
    assert not started
    (tmp_path / "b.yaml").write_text("")
    assert cli().exit_code == 0
    assert cli("run", env={"OTEL_SIDECAR_CONFIG": "env:C"}).exit_code == 0
    assert [options.sources for options in started] == [(str(tmp_path / "b.yaml"),), ("env:C",)]


@pytest.mark.parametrize("command", ["validate", "print-config"])
def test_without_configuration_a_check_says_how_to_name_one(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "DEFAULT_FILES", ("/nowhere/config.yaml",))
    result = cli(command)
    assert result.exit_code == 2
    assert f"otel-sidecar {command} FILE" in result.output
    assert f"otel-sidecar {command} --dev" in result.output
    assert "run" not in result.output


def test_the_exit_code_of_run_is_that_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector.service.run, "main", lambda options: 1)
    assert cli("--config=a").exit_code == 1

    def broken(options: Any) -> int:
        raise ConfigError("--components x: not a directory")

    monkeypatch.setattr(collector.service.run, "main", broken)
    result = cli("--config=a")
    assert (result.exit_code, result.stderr) == (78, "--components x: not a directory\n")


@pytest.mark.parametrize("flag", ["--drain-timeout=5", "--log-level=loud", "--nope", "extra"])
def test_wrong_usage_of_run_ends_with_2(flag: str, started: list[Any]) -> None:
    assert cli("run", "--config=a", flag).exit_code == 2
    assert not started


def test_a_bad_configuration_ends_the_real_run_with_78(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(EIGHT_MISTAKES)
    result = cli("run", "--config", str(path))
    assert result.exit_code == 78
    assert "8 errors in the configuration" in result.stderr


# validate


def test_a_valid_configuration_is_ok(config: str) -> None:
    result = cli("validate", config, *OWN)
    assert (result.exit_code, result.output) == (0, "ok: 1 pipeline, 4 components, 0 warnings\n")


def test_eight_mistakes_are_shown_in_one_run_and_end_with_78(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(EIGHT_MISTAKES)
    result = cli("validate", f"--config={path}")
    assert result.exit_code == 78
    assert sum(line.startswith(f"{path}:") for line in result.output.splitlines()) == 8
    assert result.output.endswith("failed: 8 errors, 0 warnings\n")


def test_standard_input_can_be_checked() -> None:
    assert cli("validate", "-", *OWN, stdin=BASE).exit_code == 0
    assert "<stdin>:1:1" in cli("validate", "-", stdin="nope: 1").output


def test_warnings_fail_only_when_strict(config: str) -> None:
    unused = ("--set=processors.shape/x.text=a", *OWN)
    assert cli("validate", config, *unused).exit_code == 0
    assert cli("validate", config, "--strict", *unused).exit_code == 78
    assert cli("validate", config, "--strict=true", *unused).exit_code == 78
    assert cli("validate", config, "--strict=false", *unused).exit_code == 0


def test_the_json_twin_of_validate_holds_all_lists(config: str) -> None:
    result = cli("validate", config, "--json", "--set=processors.shape.numbr=1", "--set=exporters.otlp.endpoint=h:1", *OWN)
    document = json.loads(result.stdout)
    assert result.exit_code == 78
    assert (document["schema"], document["ok"]) == ("otel-sidecar/validate/v1", False)
    assert [len(document[name]) for name in ("errors", "warnings", "notes")] == [1, 1, 1]
    assert document["errors"][0]["code"] == "C003"


def test_a_component_folder_that_others_may_change_is_an_error(config: str, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    result = cli("validate", config, "--components", str(folder))
    assert result.exit_code == 78
    assert "everybody may write here" in result.output
    assert cli("components", "--components", str(folder)).exit_code == 78


# print-config


def test_print_config_masks_unless_asked(config: str) -> None:
    args = ("print-config", f"--config={config}", "--set=processors.shape.key=hunter2", *OWN)
    masked = cli(*args)
    assert masked.exit_code == 0
    assert "hunter2" not in masked.output
    assert "key: '****'" in masked.output
    assert json.loads(cli(*args, "--mode=unredacted", "--format=json").output)["processors"]["shape"]["key"] == "hunter2"


def test_print_config_shows_nothing_it_cannot_mask(config: str) -> None:
    args = ("print-config", f"--config={config}", "--set=processors.shape.numbr=hunter2", *OWN)
    for extra in ([], ["--no-validate"], ["--mode=unredacted"]):
        result = cli(*args, *extra)
        assert result.exit_code == 78
        assert "hunter2" not in result.output
    for off in ("--no-validate", "--validate=false"):
        assert cli(*args, off, "--mode=unredacted").exit_code == 0


# components


def test_components_are_listed_with_aliases_and_files() -> None:
    shown = cli("components", *OWN).output
    assert "otlp_grpc" in shown
    assert "(also otlp)" in shown
    document = json.loads(cli("components", "--json", *OWN).output)
    by_type = {entry["type"]: entry for entry in document["processors"]}
    assert document["schema"] == "otel-sidecar/components/v1"
    assert by_type["spans_only"]["signals"] == ["traces"]
    assert by_type["spans_only"]["file"] == str(COMPONENTS / "processors/spans_only.py")
    assert by_type["redaction"]["file"] is None
    assert all(entry["summary"] for kind in ("receivers", "processors", "exporters", "extensions") for entry in document[kind])


def test_print_config_takes_files_as_validate_does(config: str) -> None:
    assert cli("print-config", config, *OWN).output == cli("print-config", f"--config={config}", *OWN).output


# health and send, against a small HTTP server


ANSWER = '{"status":"Server available","uptime":"3m12s"}'


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with what the server object says and keeps what was asked."""

    server: Any

    def do_GET(self) -> None:
        self.answer("")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["content-length"])).decode())

    def answer(self, body: str) -> None:
        self.server.asked.append((self.path, body))
        self.send_response(self.server.codes.get(self.path, self.server.code))
        self.end_headers()
        self.wfile.write(ANSWER.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as found:
        found.asked, found.code, found.codes = [], 200, {}  # type: ignore[attr-defined]
        found.place = f"127.0.0.1:{found.server_address[1]}"  # type: ignore[attr-defined]
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("flags", "path", "text"), [([], "/", "up"), (["--ready"], "/readyz", "ready"), (["--live"], "/livez", "live")]
)
def test_health_asks_and_tells(server: Any, flags: list[str], path: str, text: str) -> None:
    """R-1202 (partly)."""
    result = cli("health", "--endpoint", server.place, *flags)
    assert (result.exit_code, result.output) == (0, f"ok {text} 3m12s\n")
    assert server.asked == [(path, "")]
    server.code = 503
    result = cli("health", *flags, env={"OTEL_SIDECAR_HEALTH_ENDPOINT": f"http://{server.place}/"})
    assert (result.exit_code, result.stderr) == (1, f"failed {text}: HTTP 503 {ANSWER}\n")


def test_health_fails_without_an_answer_and_within_its_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        result = cli("health", "--endpoint", place, "--timeout", "50ms")
        assert (result.exit_code, result.stderr) == (1, f"failed up: {place}: timed out\n")
    result = cli("health", "--endpoint", place, "--timeout", "1s")
    assert result.exit_code == 1
    assert "Connection refused - is health_check in service::extensions" in result.stderr


def test_an_answer_that_is_not_http_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer() -> None:
            connection, _ = odd.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"SSH-2.0-x\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        result = cli("health", "--endpoint", f"127.0.0.1:{odd.getsockname()[1]}")
        thread.join()
    assert result.exit_code == 1
    assert "the answer is not HTTP" in result.stderr


@pytest.mark.parametrize("args", [["--endpoint", "nowhere"], ["--endpoint", ":http"], ["--timeout", "soon"]])
def test_wrong_usage_of_health_ends_with_2(args: list[str]) -> None:
    assert cli("health", *args).exit_code == 2


def test_send_posts_a_trace_and_a_log_record(server: Any) -> None:
    result = cli("send", "--endpoint", f"http://{server.place}", "--count", "2", "--error")
    assert result.exit_code == 0
    assert [path for path, _ in server.asked] == ["/v1/traces", "/v1/logs"] * 2
    assert result.output.count("sent    3 spans") == 2
    assert "-> 200" in result.output
    spans = json.loads(server.asked[0][1])["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert spans[1]["status"]["code"] == 2
    assert json.loads(cli("send", "--endpoint", server.place, "--json").output)["sent"][0]["status"] == 200


def test_send_fails_when_the_answer_is_not_200_or_missing(server: Any) -> None:
    server.code = 503
    assert cli("send", "--endpoint", server.place).exit_code == 1
    result = cli("send", "--endpoint", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "no answer from 127.0.0.1:1: Connection refused" in result.output
    assert "otel-sidecar run --dev" in result.output
    assert cli("send", "--endpoint", "ftp://x").exit_code == 2


def test_send_skips_what_no_pipeline_takes_and_says_so(server: Any) -> None:
    server.codes = {"/v1/logs": 404}
    result = cli("send", "--endpoint", server.place)
    assert result.exit_code == 0
    assert result.output.splitlines()[1] == "skipped 1 log record no pipeline takes logs"
    assert [each["skipped"] for each in json.loads(cli("send", "--endpoint", server.place, "--json").output)["sent"]] == [
        False,
        True,
    ]
    server.codes = {"/v1/traces": 404, "/v1/logs": 404}
    result = cli("send", "--endpoint", server.place)
    assert result.exit_code == 1
    assert result.output.count("failed ") == 2


def test_send_to_a_grpc_port_says_so_in_plain_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"\x00\x00\x1e\x04\x00\x00\x00\x00\x00\n")

        thread = threading.Thread(target=answer)
        thread.start()
        result = cli("send", "--endpoint", f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert result.exit_code == 1
    assert "a gRPC port?" in result.output
    assert "\x00" not in result.output


def test_the_sample_conversation_is_valid_otlp_with_one_priced_call() -> None:
    sent = conversation("ab" * 16, 1_700_000_000_000_000_000, error=False)
    spans = sent["traces"]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert {span["traceId"] for span in spans} == {"ab" * 16}
    assert [span.get("parentSpanId") for span in spans] == [None, spans[0]["spanId"], spans[0]["spanId"]]
    assert all(int(span["startTimeUnixNano"]) < int(span["endTimeUnixNano"]) for span in spans)
    call = {a["key"]: a["value"] for a in spans[1]["attributes"]}
    assert call["gen_ai.usage.input_tokens"] == {"intValue": "1000"}
    assert "jane.doe@example.com" in call["gen_ai.input.messages"]["stringValue"]
    assert sent["logs"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["spanId"] == spans[1]["spanId"]


def test_the_sample_of_run_waits_for_the_receiver(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    send_sample(f"http://{server.place}")
    assert capsys.readouterr().err.count("-> 200") == 2
    send_sample("http://127.0.0.1:1", patience=0.3)
    assert capsys.readouterr().err.count("no answer") == 2


@pytest.mark.parametrize(
    ("place", "sent"),
    [
        ("127.0.0.1:14318", "http://127.0.0.1:14318"),
        ("0.0.0.0:4318", "http://127.0.0.1:4318"),
        (":4318", "http://127.0.0.1:4318"),
        ("[::1]:4318", "http://[::1]:4318"),
    ],
)
def test_the_sample_of_run_goes_where_this_sidecar_listens(
    place: str, sent: str, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(sys.modules["collector.cli.run"], "send_sample", asked.put)
    assert cli("run", "--config=a", "--sample").exit_code == 0
    assert asked.empty()
    started[0].on_ready(place)
    assert asked.get(timeout=10) == sent


@pytest.mark.parametrize("place", ["", "unix:/run/otlp.sock"])
def test_without_a_port_for_http_the_sample_is_not_sent_and_run_says_so(
    place: str, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cli("run", "--config=a", "--sample")
    started[0].on_ready(place)
    assert "sample: not sent" in capsys.readouterr().err
