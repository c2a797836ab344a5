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
from hatch_build import BUILT, ROOT, WalkerHook, check, compile_walker, lacking, main

pytestmark = pytest.mark.skipif(lacking() != "", reason=f"the walker cannot be compiled here: {lacking()}")
BROKEN = '#include "nowhere.h"\n'
UNTIDY = "static int unused;\n"
SOURCES = (
    "otlp/_plain.c",
    "otlp/_plain_items.c",
    "otlp/_plain_ids.c",
    "otlp/_plain.h",
    "otlp/_json.c",
    "otlp/_numbers.c",
    "otlp/_text.h",
    "processors/llm_cost/_calls.c",
    "_model.c",
)


@pytest.fixture(autouse=True)
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wish of the caller's environment."""
    for name in ("OTEL_SIDECAR_PURE", "CC", "CFLAGS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources that a test may break; returns where the compiled files will be."""
    for name in SOURCES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((hatch_build.FOLDER / name).read_bytes())
    monkeypatch.setattr(hatch_build, "FOLDER", tmp_path)
    return tmp_path


def append(text: str, name: str = SOURCES[0]) -> None:
    with (hatch_build.FOLDER / name).open("a") as file:
        file.write(text)


def write(place: Path, text: str) -> None:
    """Something in the place of what was compiled."""
    for name in BUILT:
        (place / name).write_text(text)


def files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def there(place: Path) -> list[str]:
    """What was compiled."""
    return [name for name in files(place) if name.endswith(".so")]


def age(path: Path, seconds: float) -> None:
    """As if written so long before the sources."""
    sources = (*hatch_build.FOLDER.rglob("*.[ch]"), Path(hatch_build.__file__))
    then = max(source.stat().st_mtime for source in sources) - seconds
    os.utime(path, (then, then))


def loads(path: Path) -> bool:
    """Whether a fresh Python can import and use what lies there."""
    script = (
        "import sys; sys.path[:0] = ['otlp', 'processors/llm_cost']; import _calls, _plain, _json, _numbers, _model; assert _plain.open(1, b'') == [];"
        "assert _json.Transcoder(1, b'{}', 0, 0, 0).advance(9) == b''; assert _model.encode([]) == b'';"
        "assert _numbers.search(b'', (None,) * 6, 0) == []; assert len(_calls.add_up([])) == 12"
    )
    return subprocess.run([sys.executable, "-c", script], cwd=path, timeout=30).returncode == 0


def test_what_is_compiled_can_be_used_and_nothing_else_is_left_behind(place: Path) -> None:
    assert main([]) == 0
    assert loads(place)
    assert files(place) == sorted([*SOURCES, *BUILT])


@pytest.mark.parametrize("old", BUILT)
def test_it_is_compiled_again_only_when_a_source_is_newer(place: Path, capfd: pytest.CaptureFixture[str], old: str) -> None:
    write(place, "up to date")
    assert main([]) == 0
    assert {(place / name).read_text() for name in BUILT} == {"up to date"}
    age(place / old, 10)
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
    write(place, "old")
    age(place / BUILT[0], 10)
    if lack == "compiler":
        monkeypatch.setenv("PATH", str(place))
    elif lack == "headers":
        monkeypatch.setattr("sysconfig.get_path", lambda _: str(place))
    else:
        monkeypatch.setattr(sys.implementation, "name", "other")
    assert main([]) == 0
    assert there(place) == []
    assert capfd.readouterr().err == f"warning: walker not compiled ({said}); its Python twin does the same work, slower\n"


def test_a_compiler_named_in_the_environment_is_the_one_that_is_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    assert compile_walker(place) == "no C compiler"
    monkeypatch.setenv("CC", "cc -DNAMED")
    append('#ifdef NAMED\n#error "named"\n#endif\n')
    assert "named" in compile_walker(place)


@pytest.mark.parametrize("name", SOURCES)
def test_source_that_does_not_compile_costs_the_walker_and_not_the_install(
    place: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    append(BROKEN, name)
    assert main([]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert "nowhere.h" in line
    assert there(place) == [], "all or nothing"


def test_a_folder_that_cannot_be_written_costs_the_walker_and_not_the_install(place: Path) -> None:
    (place / "file").touch()
    assert "Not a directory" in compile_walker(place / "file")


@pytest.mark.parametrize(("value", "stays"), [("1", False), ("0", True)])
def test_a_pure_install_can_be_asked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], value: str, stays: bool
) -> None:
    write(place, "from before")
    monkeypatch.setenv("OTEL_SIDECAR_PURE", value)
    assert main([]) == 0
    assert there(place) == (sorted(BUILT) if stays else [])
    assert capfd.readouterr() == ("", "")


def test_the_check_fails_on_any_warning_and_leaves_nothing(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert check() == 0
    append(UNTIDY)
    assert main(["--check"]) == 1
    assert "unused" in capfd.readouterr().err
    assert there(place) == []


def test_the_check_passes_where_nothing_can_be_said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert check() == 0
    assert capfd.readouterr().out == "walker not checked: no C compiler\n"


def test_a_wheel_is_of_this_platform_with_the_walker_and_of_any_without(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data: dict[str, Any] = {"force_include": {}}
    hook = object.__new__(WalkerHook)
    hook.initialize("standard", data)
    assert data.pop("tag").startswith("cp311-abi3-")
    assert set(data["force_include"].values()) == {f"collector/{name}" for name in BUILT}
    assert data["pure_python"] is False
    built = {Path(path).parent for path, name in data["force_include"].items() if name == "collector/_model.abi3.so"}
    assert all(loads(folder) for folder in built)
    assert there(place) == [], "the checkout stays as it was"
    hook.finalize("standard", data, "")
    assert not any(folder.exists() for folder in built)
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
