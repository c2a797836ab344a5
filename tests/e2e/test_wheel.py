"""Wheels as pip builds them: with the compiled walker for one platform, without it for all."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hatch_build import BUILT, ROOT, lacking

SHIPPED = "collector/config/shipped/dev.yaml"
WALKER = {f"collector/{name}" for name in BUILT}


def wheel(folder: Path, **environment: str) -> Path:
    """Build the checkout's wheel into a folder."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check", "-w", folder, ROOT]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    (built,) = folder.iterdir()
    return built


def names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def compiled(path: Path) -> set[str]:
    return {name for name in names(path) if name.endswith(".so")}


@pytest.mark.skipif(lacking() != "", reason=f"the walker cannot be compiled here: {lacking()}")
def test_a_wheel_with_the_walker_serves_every_python_of_this_platform(tmp_path: Path) -> None:
    built = wheel(tmp_path / "wheels")
    assert "-cp311-abi3-" in built.name
    assert compiled(built) == WALKER
    assert SHIPPED in names(built)
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path, WALKER)
    script = (
        "import _plain, _json; assert _plain.open(1, b'') == []; assert _json.Transcoder(1, b'{}', 0, 0, 0).advance(9) == b''"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "collector" / "otlp", check=True, timeout=30)


@pytest.mark.parametrize("wish", [{"OTEL_SIDECAR_PURE": "1"}, {"CC": "no-such-compiler"}])
def test_a_wheel_without_the_walker_serves_every_python(tmp_path: Path, wish: dict[str, str]) -> None:
    built = wheel(tmp_path, **wish)
    assert built.name.endswith("-py3-none-any.whl")
    assert not compiled(built)
    assert SHIPPED in names(built)
