"""The compiled walker is built where that is possible, and nothing fails where it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hatch_build
from bench.size import c_lines
from hatch_build import ROOT, WalkerHook, check, compile_walker, lacking, main

pytestmark = pytest.mark.skipif(lacking() != "", reason=f"the walker cannot be compiled here: {lacking()}")
BROKEN = '#include "nowhere.h"\n'
UNTIDY = "static int unused;\n"


@pytest.fixture(autouse=True)
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wish of the caller's environment."""
    for name in ("OTEL_SIDECAR_PURE", "CC", "CFLAGS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the source that a test may break; returns where the compiled file will be."""
    source = tmp_path / "_plain.c"
    source.write_bytes(hatch_build.SOURCE.read_bytes())
    monkeypatch.setattr(hatch_build, "SOURCE", source)
    monkeypatch.setattr(hatch_build, "BUILT", tmp_path / "_plain.abi3.so")
    return tmp_path / "_plain.abi3.so"


def append(text: str) -> None:
    with hatch_build.SOURCE.open("a") as file:
        file.write(text)


def age(path: Path, seconds: float) -> None:
    """As if written so long before the source."""
    then = min(hatch_build.SOURCE.stat().st_mtime, Path(hatch_build.__file__).stat().st_mtime) - seconds
    os.utime(path, (then, then))


def loads(path: Path) -> bool:
    """Whether a fresh Python can import and use it."""
    script = "import _plain; assert _plain.open(1, b'') == []"
    return subprocess.run([sys.executable, "-c", script], cwd=path.parent, timeout=30).returncode == 0


def test_what_is_compiled_can_be_used_and_nothing_else_is_left_behind(place: Path) -> None:
    assert main([]) == 0
    assert loads(place)
    assert sorted(path.name for path in place.parent.iterdir()) == ["_plain.abi3.so", "_plain.c"]


def test_it_is_compiled_again_only_when_the_source_is_newer(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place.write_text("up to date")
    assert main([]) == 0
    assert place.read_text() == "up to date"
    age(place, 10)
    assert main([]) == 0
    assert loads(place)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("lack", "said"),
    [("compiler", "no C compiler"), ("headers", "no headers of Python"), ("abi", "this Python has no limited API")],
)
def test_what_is_lacking_is_said_in_one_line_and_no_old_one_stays(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], lack: str, said: str
) -> None:
    place.write_text("old")
    age(place, 10)
    if lack == "compiler":
        monkeypatch.setenv("PATH", str(place.parent))
    elif lack == "headers":
        monkeypatch.setattr("sysconfig.get_path", lambda _: str(place.parent))
    else:
        monkeypatch.setattr(sys.implementation, "name", "other")
    assert main([]) == 0
    assert not place.exists()
    assert capfd.readouterr().err == f"warning: walker not compiled ({said}); its Python twin does the same work, slower\n"


def test_a_compiler_named_in_the_environment_is_the_one_that_is_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    assert compile_walker(place) == "no C compiler"
    monkeypatch.setenv("CC", "cc -DNAMED")
    append('#ifdef NAMED\n#error "named"\n#endif\n')
    assert "named" in compile_walker(place)


def test_source_that_does_not_compile_costs_the_walker_and_not_the_install(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    append(BROKEN)
    assert main([]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert "nowhere.h" in line


def test_a_folder_that_cannot_be_written_costs_the_walker_and_not_the_install(place: Path) -> None:
    assert "No such file" in compile_walker(place.parent / "none" / place.name)


@pytest.mark.parametrize(("value", "there"), [("1", False), ("0", True)])
def test_a_pure_install_can_be_asked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], value: str, there: bool
) -> None:
    place.write_text("from before")
    monkeypatch.setenv("OTEL_SIDECAR_PURE", value)
    assert main([]) == 0
    assert place.exists() is there
    assert capfd.readouterr() == ("", "")


def test_the_check_fails_on_any_warning_and_leaves_nothing(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert check() == 0
    append(UNTIDY)
    assert main(["--check"]) == 1
    assert "unused" in capfd.readouterr().err
    assert not place.exists()


def test_the_check_passes_where_nothing_can_be_said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert check() == 0
    assert capfd.readouterr().out == "walker not checked: no C compiler\n"


def test_a_wheel_is_of_this_platform_with_the_walker_and_of_any_without(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data: dict[str, Any] = {"force_include": {}}
    hook = object.__new__(WalkerHook)
    hook.initialize("standard", data)
    assert data.pop("tag").startswith("cp311-abi3-")
    ((built, inside),) = data["force_include"].items()
    assert (data["pure_python"], inside) == (False, "collector/otlp/_plain.abi3.so")
    assert loads(Path(built))
    assert not place.exists(), "the checkout stays as it was"
    hook.finalize("standard", data, "")
    assert not Path(built).exists()
    monkeypatch.setenv("OTEL_SIDECAR_PURE", "1")
    pure: dict[str, Any] = {"force_include": {}}
    hook = object.__new__(WalkerHook)
    hook.initialize("standard", pure)
    hook.finalize("standard", pure, "")
    assert pure == {"force_include": {}}


def test_an_editable_install_compiles_next_to_the_source(place: Path) -> None:
    data: dict[str, Any] = {"force_include": {}}
    object.__new__(WalkerHook).initialize("editable", data)
    assert loads(place)
    assert data == {"force_include": {}}


def test_lines_of_c_are_counted_without_comments_and_blank_lines() -> None:
    assert c_lines("/* one\n two */\n\nint a; // why\nint b; /* why */\n// why\n") == 2


def test_git_and_the_image_leave_out_what_was_compiled_here() -> None:
    assert "*.so" in (ROOT / ".gitignore").read_text().splitlines()
    assert "**/*.so" in (ROOT / ".dockerignore").read_text().splitlines()
