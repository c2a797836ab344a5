"""Compiles the walker, the C files of `collector`; without a compiler or Python's headers everything installs just as well.

A wheel built with it serves every CPython from 3.11 on (limited API) on one platform, one without it every Python.
`OTEL_SIDECAR_PURE=1` leaves it out on purpose; `CC` and `CFLAGS` are respected.
Called as a program (`make setup`) it compiles next to the source what is out of date; with `--check` (`make check`) it compiles
nowhere and fails on any warning. pip shows what a build says only with `--verbose`; the running program names its walker.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # make calls this file in an environment without hatchling
    BuildHookInterface = object

ROOT = Path(__file__).parent
FOLDER = ROOT / "collector"
SOURCES = {
    "otlp/_plain.abi3.so": ("otlp/_plain.c", "otlp/_plain_items.c", "otlp/_plain_ids.c"),
    "otlp/_json.abi3.so": ("otlp/_json.c",),
    "otlp/_numbers.abi3.so": ("otlp/_numbers.c",),
    "processors/llm_cost/_calls.abi3.so": ("processors/llm_cost/_calls.c",),
    "_model.abi3.so": ("_model.c",),
}
BUILT = tuple(SOURCES)
"""All modules or none."""
FLAGS = (
    "-std=c11",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fstack-protector-strong",
    "-ffp-contract=off",  # an amount is to the last bit what Python makes it
    "-Wall",
    "-Wextra",
    "-DPy_LIMITED_API=0x030B0000",
)
LINK = ("-shared", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)


def unwanted() -> bool:
    """Whether `OTEL_SIDECAR_PURE` says to do without."""
    return os.environ.get("OTEL_SIDECAR_PURE", "") not in ("", "0")


def compiler() -> list[str]:
    """The C compiler's command; empty when there is none."""
    if named := shlex.split(os.environ.get("CC", "")):
        return named if shutil.which(named[0]) else []
    found = (shutil.which(name) for name in ("cc", "gcc", "clang"))
    return next(([path] for path in found if path), [])


def lacking() -> str:
    """What is lacking to compile here; empty when nothing is."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this Python has no limited API"
    if not compiler():
        return "no C compiler"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "no headers of Python"
    return ""


def compile_module(name: str, folder: Path, *flags: str) -> str:
    """Compile one module into `folder`, `flags` after the usual ones.

    Returns what is lacking or the compiler's complaint, empty when it worked.
    """
    if problem := lacking():
        return problem
    own, sources = shlex.split(os.environ.get("CFLAGS", "")), [str(FOLDER / each) for each in SOURCES[name]]
    target = folder / name
    command = [*compiler(), *FLAGS, *own, *flags, f"-I{sysconfig.get_path('include')}", *LINK, *sources, "-o"]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".plain-") as beside:
            built = Path(beside, target.name)
            done = subprocess.run([*command, str(built)], capture_output=True, text=True)  # noqa: S603
            if done.returncode:
                return f"{shlex.join(command)} ...\n{done.stderr.strip()}"
            built.replace(target)  # a process that runs keeps the file it has open
    except OSError as error:  # the source lies where nobody may write
        return str(error)
    return ""


def compile_walker(folder: Path, *flags: str) -> str:
    """Compile all modules into `folder`; the first problem, empty when there was none."""
    return next((problem for name in BUILT if (problem := compile_module(name, folder, *flags))), "")


def warn(problem: str) -> None:
    """One line, whatever the compiler said."""
    lines = problem.splitlines()
    reason = next((line for line in lines if "error" in line), lines[-1])
    print(f"warning: walker not compiled ({reason}); its Python twin does the same work, slower", file=sys.stderr)


class WalkerHook(BuildHookInterface):  # type: ignore[misc]
    """Puts the compiled walker next to the source of an editable install, or into the wheel, which then is of this platform."""

    folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before files are collected; `version` is `editable` or `standard`."""
        if version == "editable":
            make()
        elif not unwanted():
            self.folder = tempfile.TemporaryDirectory()
            built = Path(self.folder.name)
            if problem := compile_walker(built):
                warn(problem)
                return
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data.update(pure_python=False, tag=f"cp311-abi3-{platform}")
            build_data["force_include"].update({str(built / name): f"collector/{name}" for name in BUILT})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written."""
        if self.folder is not None:
            self.folder.cleanup()


def make() -> int:
    """Compile next to the source unless that is up to date; without a result take the old ones away. Exit code 0 always."""
    newest = max(path.stat().st_mtime for path in (*FOLDER.rglob("*.[ch]"), Path(__file__)))
    built = [FOLDER / name for name in BUILT]
    if not unwanted() and all(path.exists() and path.stat().st_mtime >= newest for path in built):
        return 0
    problem = "" if unwanted() else compile_walker(FOLDER)
    if problem or unwanted():
        for path in built:
            path.unlink(missing_ok=True)
    if problem:
        warn(problem)
    return 0


def check() -> int:
    """Exit code of `--check`: 1 when the compiler has any complaint; without a compiler nothing can be said."""
    if missing := lacking():
        print(f"walker not checked: {missing}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        problem = compile_walker(Path(folder), "-Werror")
    print(problem, end="\n" if problem else "", file=sys.stderr)
    return 1 if problem else 0


def main(arguments: list[str]) -> int:
    """Exit code of a call by make."""
    return check() if arguments == ["--check"] else make()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
