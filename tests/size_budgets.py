"""Checks the size budgets of modules, functions and folders: `python tests/size_budgets.py PACKAGE ...`.

A module stays under 300 lines; a function under 40 lines without its docstring and at most 6 parameters.
A folder holds at most 20 files, and its `__init__.py` says in two sentences or more what happens there.
An exception is a comment `# budget: reason`, on the line of the `def`, or as the module's first line.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MODULE_LINES: Final = 300
FUNCTION_LINES: Final = 40
PARAMETERS: Final = 6
FOLDER_FILES: Final = 20
_SENTENCE_END: Final = re.compile(r"[.:](\s|$)")
_REASON: Final = re.compile(r"# budget: \S+")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def violations(path: Path) -> Iterator[str]:
    """What in a module is over budget and has no reason for it, as `path:line: message`."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) >= MODULE_LINES and not _REASON.match(lines[0]):
        yield f"{path}:1: module of {len(lines)} lines; stay under {MODULE_LINES}: split it by idea"
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, Function) and not _has_reason(node, lines):
            yield from (f"{path}:{node.lineno}: {message}" for message in _over_budget(node))


def folder_violations(folder: Path) -> Iterator[str]:
    """What is over budget in a folder and in those below it, as `path: message`."""
    below = (path for path in folder.rglob("*") if path.is_dir() and path.name != "__pycache__")
    for path in [folder, *sorted(below)]:
        names = [entry.name for entry in path.iterdir() if entry.is_file()]
        if len(names) > FOLDER_FILES:
            yield f"{path}: folder of {len(names)} files; {FOLDER_FILES} at most: split it by idea"
        if any(name.endswith(".py") for name in names) and not _is_introduced(path / "__init__.py"):
            yield f"{path}: say in two sentences, in the docstring of __init__.py, what happens here"


def _is_introduced(init: Path) -> bool:
    text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) if init.exists() else None
    return len(_SENTENCE_END.findall(text or "")) > 1


def length(function: Function) -> int:
    """Lines of a function from its `def` on, without its docstring."""
    first = function.body[0]
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is None:
        return total
    return total - ((first.end_lineno or first.lineno) - first.lineno + 1)


def parameters(function: Function) -> int:
    """Named parameters of a function, without `self` or `cls`."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def _over_budget(function: Function) -> Iterator[str]:
    if length(function) >= FUNCTION_LINES:
        yield f"{function.name} has {length(function)} lines; stay under {FUNCTION_LINES}: split it by idea"
    if parameters(function) > PARAMETERS:
        yield f"{function.name} has {parameters(function)} parameters; {PARAMETERS} at most: pass a record"


def _has_reason(function: Function, lines: list[str]) -> bool:
    """The comment may stand on any line of the signature, where the formatter puts it."""
    signature = lines[function.lineno - 1 : function.body[0].lineno - 1]
    return any(_REASON.search(line) for line in signature or [lines[function.lineno - 1]])


def main(packages: list[str]) -> int:
    """Prints the violations of the packages; the exit status is 1 when there is one."""
    paths = sorted(path for package in packages for path in Path(package).rglob("*.py"))
    if not paths:
        print(f"no Python modules in {packages}", file=sys.stderr)
        return 2
    found = [violation for path in paths for violation in violations(path)]
    found += [violation for package in packages for violation in folder_violations(Path(package))]
    print("\n".join(found) or f"{len(paths)} modules within budget")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
