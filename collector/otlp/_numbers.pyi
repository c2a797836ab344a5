from typing import TypeVar

T = TypeVar("T")
_Names = tuple[T | None, T | None, T | None, T | None, T | None, T | None]

def search(data: bytes, names: _Names[T], limit: int, /) -> list[tuple[T, int, int]]: ...
