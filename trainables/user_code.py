"""Where a user's own modules are found, and what the code of a factory is made of.

They lie beside the experiment's file, or in the folder that the command was started from. What was trained is
known by the content of these files: edited code is other code.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from trainables.config.base import FactoryPath, digest_of
from trainables.errors import ConfigError

OWN_PACKAGES: Final = ("orchestrator", "search_spaces", "cluster", "trainables")
"""Names at the top level that are ours."""
FOLDER_VARIABLE: Final = "STILLHOUSE_CODE"
"""Environment variable that tells workers where the experiment's file lies: absolute, and from the start."""


@dataclass(frozen=True)
class Sources:
    """The files that a factory's code is made of."""

    files: Mapping[str, str]
    """By module name the sha256 of its content."""
    paths: tuple[Path, ...] = field(default=(), compare=False)
    """Where they lie on this machine."""

    @property
    def digest(self) -> str:
        """Of all of them."""
        return digest_of(dict(self.files))


def look_in(folder: Path) -> None:
    """Have factories found in this folder too, by this process and by those that it starts.

    Side effect: an environment variable.
    """
    absolute, here = folder.absolute(), Path.cwd()
    below = [str(absolute.relative_to(here))] if absolute.is_relative_to(here) else []
    os.environ[FOLDER_VARIABLE] = os.pathsep.join([str(absolute), *below])


def code_folders() -> list[Path]:
    """Where a user's modules may lie: beside the experiment's file, then where the command was started."""
    told = os.environ.get(FOLDER_VARIABLE, "")
    # On another node of a cluster the working folder may be another one: there the second form counts.
    named = [Path(each).absolute() for each in told.split(os.pathsep) if each]
    return list(dict.fromkeys([*(folder for folder in named if folder.is_dir()), Path.cwd()]))


@contextmanager
def code_importable() -> Iterator[None]:
    """In the block the folders of a user's code stand in front of `sys.path`, where they are not on it."""
    present = {str(Path(entry or ".").absolute()) for entry in sys.path}
    added = [str(folder) for folder in code_folders() if str(folder) not in present]
    sys.path[:0] = added
    try:
        yield
    finally:
        # The imported module may have changed sys.path itself; take away only what was put there.
        for entry in added:
            if entry in sys.path:
                sys.path.remove(entry)


def sources_of(path: FactoryPath) -> Sources | None:
    """The module of a factory and all that it imports from beside it, by reading alone; nothing is run.

    Of an installed library it is the factory's module alone: its version says the rest. Files that code reads
    while it runs are not among them. None where there is no such file.

    Raises:
        ConfigError: a file of the user's, which has the name of one of our packages, is imported; or one of
            the files cannot be read.
    """
    try:
        return _read(path.partition(":")[0])
    except OSError as error:
        raise ConfigError(f"the code of factory {path!r} cannot be read: {error}") from error


def _read(name: str) -> Sources | None:
    roots = _roots(name.partition(".")[0]) if _is_name(name) else []
    if not roots:
        return None
    found: dict[str, str] = {}
    paths: list[Path] = []
    wanted, own = [name], not any(_is_installed(root) for root in roots)
    while wanted:
        module = wanted.pop()
        for part, file in _files(module, roots):
            if part in found:
                continue
            content = file.read_bytes()
            paths.append(file)
            found[part] = hashlib.sha256(content).hexdigest()
            if own:
                wanted += _imports(part, file, content, roots)
    return Sources(dict(sorted(found.items())), tuple(paths)) if name in found else None


def _is_name(module: str) -> bool:
    """Whether a module can have this name; relative imports of one at the top level make other ones."""
    return all(module.split("."))


def refuse_our_names(path: FactoryPath) -> None:
    """Refuse a factory that needs a file of the user's with the name of one of our packages.

    Raises:
        ConfigError: it names the file, and how to go on.
    """
    name = path.partition(":")[0]
    _refuse(name, _roots(name.partition(".")[0]) or code_folders(), f"factory {path!r}")
    sources_of(path)


def _refuse(module: str, roots: list[Path], who: str) -> None:
    top = module.partition(".")[0]
    if top not in OWN_PACKAGES:
        return
    for root in roots:
        for file in (root / f"{top}.py", root / top):
            if file.exists() and not _is_ours(file):
                raise ConfigError(
                    f"{who} imports `{module}`, meaning {file}, but {', '.join(OWN_PACKAGES)} are the names "
                    f"of Stillhouse's own packages; rename it, as my_{file.name}, and write `my_{module}` "
                    "where it is imported"
                )


def _is_ours(file: Path) -> bool:
    """Whether a package is Stillhouse's: this file lies in one, and the others lie beside it."""
    return file.is_dir() and (file.parent / "trainables" / Path(__file__).name).is_file()


def _roots(top: str) -> list[Path]:
    """The folders in which a top-level module is looked for: the user's, or the one where it is installed."""
    own = [folder for folder in code_folders() if _exists(folder, top)]
    if own:
        return own
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return []
    if spec is None or not (spec.has_location or spec.submodule_search_locations):
        return []
    places = list(spec.submodule_search_locations or ())
    return [Path(place).parent for place in places] or [Path(str(spec.origin)).parent]


def _exists(folder: Path, top: str) -> bool:
    if top in OWN_PACKAGES and _is_ours(folder / top):
        return False
    return (folder / f"{top}.py").is_file() or (folder / top).is_dir()


def _is_installed(root: Path) -> bool:
    places = {sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(root.is_relative_to(place) for place in places)


def _files(module: str, roots: list[Path]) -> Iterator[tuple[str, Path]]:
    """The packages around a module and itself, by their names, as far as they are files."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        inner = Path(*parts[:count])
        for root in roots:
            file = next(
                (f for f in (root / inner / "__init__.py", root / inner.with_suffix(".py")) if f.is_file()),
                None,
            )
            if file is not None:
                yield ".".join(parts[:count]), file
                break


def _imports(module: str, file: Path, content: bytes, roots: list[Path]) -> list[str]:
    """What a file imports, anywhere in it, by names that may be modules; empty where it has an error."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # told when it is imported
        return []
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names += filter(_is_name, [base, *(f"{base}.{alias.name}" for alias in node.names)])
    for name in names:
        _refuse(name, roots, str(file))
    return [name for name in names if any(_exists(root, name.partition(".")[0]) for root in roots)]


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    kept = parts[: len(parts) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])
