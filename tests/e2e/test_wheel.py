"""Wheels as pip builds them: with the compiled walker for one platform, without it for all."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hatch_build import ROOT, lacking

SHIPPED = "collector/config/shipped/dev.yaml"
WALKER = ("collector/otlp/_plain", "collector/otlp/_json", "collector/otlp/_numbers")


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


@pytest.mark.skipif(lacking() != "", reason=f"the walker cannot be compiled here: {lacking()}")
def test_a_wheel_with_the_walker_serves_every_python_of_this_platform(tmp_path: Path) -> None:
    built = wheel(tmp_path / "wheels")
    assert "-cp311-abi3-" in built.name
    assert {name for name in names(built) if name.startswith(WALKER)} == {
        f"{part}{end}" for part in WALKER for end in (".abi3.so", ".pyi")
    }
    assert SHIPPED in names(built)
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path, [f"{part}.abi3.so" for part in WALKER])
    script = (
        "import _plain, _json; assert _plain.open(1, b'') == []; assert _json.Transcoder(1, b'{}', 0, 0, 0).advance(9) == b''"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "collector" / "otlp", check=True, timeout=30)


@pytest.mark.parametrize("wish", [{"OTEL_SIDECAR_PURE": "1"}, {"CC": "no-such-compiler"}])
def test_a_wheel_without_the_walker_serves_every_python(tmp_path: Path, wish: dict[str, str]) -> None:
    built = wheel(tmp_path, **wish)
    assert built.name.endswith("-py3-none-any.whl")
    assert {name for name in names(built) if name.startswith(WALKER)} == {f"{part}.pyi" for part in WALKER}
    assert SHIPPED in names(built)
