"""The steps of the Dockerfile, done without a container engine: what they install works as another user without rights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.ports import free_port
from tests.e2e.stack import LOOPBACK, get, wait_for
from tests.test_deploy import ROOT, arguments

USER = 10001
SYSTEM_PYTHON, NEW_ENOUGH = "/usr/bin/python3", "import sys; sys.exit(sys.version_info < (3, 11))"


LACKING = "import sys; sys.path.insert(0, {!r}); from hatch_build import lacking; print(lacking(), end='')"


class Installed(NamedTuple):
    """Where the build stage put things, and what its Python lacked to compile the walker."""

    command: Path
    config: Path
    home: Path
    lacking: str


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """The build stage: exactly the copied files, a fresh environment, the locked versions."""
    # pytest's own folders are for the present user alone.
    folder = Path(tempfile.mkdtemp(prefix="otel-sidecar-image-"))
    folder.chmod(0o755)
    try:
        yield build(folder)
    finally:
        shutil.rmtree(folder)


def build(folder: Path) -> Installed:
    source, home = folder / "src", folder / "home"
    for path in (source, home):
        path.mkdir(mode=0o755)
    for value in arguments("COPY"):
        if not value.startswith("--from") and not value.endswith("/etc/otelcol/config.yaml"):
            *names, target = value.split()
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, source / target)
    # The system's Python can be run by another user; one that lives in somebody's home cannot.
    python = SYSTEM_PYTHON if subprocess.run([SYSTEM_PYTHON, "-c", NEW_ENOUGH]).returncode == 0 else sys.executable
    subprocess.run([python, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (install,) = [value for value in arguments("RUN") if "pip install" in value]
    constraint = re.search(r"pip install (--constraint \S+ \.)", install)
    assert constraint is not None
    pip = [sys.executable, "-m", "pip", "--python", folder / "venv" / "bin" / "python", "--disable-pip-version-check"]
    command = [*pip, "install", "-q", *constraint[1].split()]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    shutil.copy(ROOT / "config" / "collector.yaml", folder / "config.yaml")
    shutil.rmtree(source)
    if os.getuid() == 0:
        os.chown(home, USER, USER)
    lacking = subprocess.check_output([folder / "venv" / "bin" / "python", "-c", LACKING.format(str(ROOT))], text=True)
    return Installed(folder / "venv" / "bin" / "otel-sidecar", folder / "config.yaml", home, lacking)


def as_user(installed: Installed, ports: dict[str, int]) -> dict[str, object]:
    """Arguments of a process in the image: user 10001, no home of its own, the image's environment."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(installed.home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        **{f"{name}_ENDPOINT": f"{LOOPBACK}:{port}" for name, port in ports.items()},
    }
    rights = {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}
    return {"cwd": installed.home, "env": environment, "text": True, **rights}


def test_the_installed_program_serves_as_user_10001_with_the_shipped_configuration(installed: Installed) -> None:
    """R-1202 (partly), R-1104 (partly)."""
    ports = {name: free_port() for name in ("OTLP_GRPC", "OTLP_HTTP", "PROMETHEUS", "HEALTH")}
    options = as_user(installed, ports)
    with (installed.home / "log").open("w") as log:
        command = [installed.command, f"--config={installed.config}"]
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)  # type: ignore[call-overload]
    try:
        wait_for(lambda: get(f"http://{LOOPBACK}:{ports['HEALTH']}/readyz"), 20, "readiness")
        walker = "python" if installed.lacking else "compiled"
        assert f'"walker":"{walker}"' in (installed.home / "log").read_text()
        health = subprocess.run(
            [installed.command, "health", "--endpoint", f"{LOOPBACK}:{ports['HEALTH']}"],
            capture_output=True,
            **options,  # type: ignore[call-overload]
        )
        assert health.returncode == 0, health.stderr
        process.terminate()
        assert process.wait(20) == 0, (installed.home / "log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_the_build_stage_has_a_compiler_and_the_image_none() -> None:
    build, final = (ROOT / "Dockerfile").read_text().split("\nFROM ")[1:]
    assert re.search(r"apt-get install .* gcc libc6-dev\b", build)
    assert "apt-get" not in final


def test_the_health_check_fails_when_nothing_listens(installed: Installed) -> None:
    command = [installed.command, "health", "--endpoint", f"{LOOPBACK}:{free_port()}"]
    done = subprocess.run(command, capture_output=True, **as_user(installed, {}))  # type: ignore[call-overload]
    assert done.returncode == 1
