"""Finds a component by its name: `redaction` -> collector/processors/redaction.py (or folder). Nothing is registered.

A component is loaded only when a configuration names it. A user's component is a file in a folder given by
`--components DIR`: `DIR/processors/shout.py` is processor `shout`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from collector.component import Component, Exporter, Extension, Processor, Receiver
from collector.errors import ConfigError

KINDS: dict[str, type[Component]] = {
    "receivers": Receiver,
    "processors": Processor,
    "exporters": Exporter,
    "extensions": Extension,
}
ALIASES = {  # otelcol's older (v0.144) and other spellings -> file name
    "exporters": {"otlp": "otlp_grpc", "otlphttp": "otlp_http"},
    "processors": {},
    "receivers": {},
    "extensions": {"zpages": "console"},
}


class Catalog:
    """All components that can be named: the built-in ones and those of user folders, which come first."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        """Raises ConfigError for a folder that is missing or that others could write to."""
        for folder in folders:
            check_folder(folder)
        self._folders = tuple(folders)
        self._loaded: dict[tuple[str, str], type[Component]] = {}

    def types(self, kind: str) -> list[str]:
        """Type ids of a kind (`receivers`, `processors`, `exporters`, `extensions`), without aliases, sorted."""
        return sorted({name for name, _ in self._files(kind)})

    def resolve(self, kind: str, type_id: str) -> str | None:
        """The file name behind a type id or alias; None when there is no such component."""
        name = ALIASES[kind].get(type_id, type_id)
        return name if name in self.types(kind) else None

    def load(self, kind: str, type_id: str) -> type[Component]:
        """The component's class. Raises ConfigError when a user's file does not hold exactly one of that kind."""
        name = self.resolve(kind, type_id)
        if name is None:
            raise ConfigError(f'unknown type: "{type_id}" (valid values: [{" ".join(self.types(kind))}])')
        found = self._loaded.get((kind, name))
        if found is None:
            found = self._loaded[kind, name] = _only_class(self.module(kind, name), KINDS[kind])
        return found

    def module(self, kind: str, name: str) -> ModuleType:
        """The imported module of a component."""
        path = dict(self._files(kind))[name]
        if path is None:
            return importlib.import_module(f"collector.{kind}.{name}")
        module_name = f"otel_sidecar_components.{kind}.{name}"
        if module_name in sys.modules:
            return sys.modules[module_name]
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise ConfigError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
        return module

    def path(self, kind: str, name: str) -> Path | None:
        """The user's file, None for a built-in component."""
        return dict(self._files(kind))[name]

    def _files(self, kind: str) -> Iterator[tuple[str, Path | None]]:
        own = Path(__file__).parent / kind
        for entry in own.iterdir():
            if not entry.name.startswith("_") and (entry.suffix == ".py" or (entry / "__init__.py").is_file()):
                yield entry.stem, None
        for folder in reversed(self._folders):  # dict() keeps the last: the first folder wins
            for entry in sorted((folder / kind).glob("[!_]*.py")):
                yield entry.stem, entry


def check_folder(folder: Path) -> None:
    """Refuse a component folder that anybody but its owner and root may change: its files run in this process."""
    for part in (folder, *(folder / kind for kind in KINDS)):
        if part is not folder and not part.exists():
            continue
        try:
            info = part.stat()
        except OSError as error:
            raise ConfigError(f"--components {folder}: {error.strerror}") from error
        if not stat.S_ISDIR(info.st_mode):
            raise ConfigError(f"--components {folder}: not a directory")
        if info.st_mode & stat.S_IWOTH:
            raise ConfigError(f"--components {part}: everybody may write here; run chmod o-w {part}")
        if info.st_uid not in (0, os.getuid()):
            raise ConfigError(f"--components {part}: belongs to another user")


def _only_class(module: ModuleType, base: type[Component]) -> type[Component]:
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value is not base and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(item.__name__ for item in found) or "none"
        raise ConfigError(f"{module.__file__}: one {base.__name__} class expected, found {names}")
    return found[0]
