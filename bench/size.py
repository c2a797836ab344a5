"""Lines of code per room, longest file and longest function; with --ratio also lines of tests per line of code.

Blank lines, comments and docstrings do not count.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
_NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(text: str) -> int:
    """Lines that hold code."""
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NOT_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - set(docstring_lines(ast.parse(text))))


def docstring_lines(tree: ast.AST) -> Iterator[int]:
    """Lines of strings that stand alone: docstrings of modules, classes, functions and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def c_lines(text: str) -> int:
    """Lines of C that hold code."""
    return sum(bool(line.strip()) for line in re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL).splitlines())


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """(lines, file:line name) of every function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            yield size, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def rooms() -> Counter[str]:
    """Lines of code of each room."""
    out: Counter[str] = Counter()
    for path in sorted((ROOT / "collector").rglob("*.[chp]*")):
        count = {".py": code_lines, ".c": c_lines, ".h": c_lines}.get(path.suffix)
        if count is not None:
            parts = path.relative_to(ROOT / "collector").parts
            out[parts[0] + ("/" if len(parts) > 1 else "")] += count(path.read_text())
    return out


def main() -> None:
    """Print the table."""
    counted = rooms()
    if "--ratio" in sys.argv:
        code = sum(counted.values())
        tests = sum(code_lines(path.read_text()) for path in (ROOT / "tests").rglob("*.py"))
        print(f"tests {tests} lines, code {code} lines, ratio {tests / code:.2f}")
        return
    for room, lines in sorted(counted.items(), key=lambda item: -item[1]):
        print(f"{lines:6}  {room}")
    print(f"{sum(counted.values()):6}  all")
    paths = list((ROOT / "collector").rglob("*.py"))
    file = max([*paths, *(ROOT / "collector").rglob("*.c")], key=lambda path: path.read_text().count("\n"))
    print(f"longest file: {file.relative_to(ROOT)}, {file.read_text().count(chr(10))} lines")
    size, name = max(entry for path in paths for entry in functions(path))
    print(f"longest function: {name}, {size} lines")


if __name__ == "__main__":
    main()
