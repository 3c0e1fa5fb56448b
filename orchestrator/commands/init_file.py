"""Files to start from: a shipped experiment or search space under a name of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from orchestrator.config.loading import EXPERIMENTS_FOLDER, SPACES_FOLDER, load_experiment, shipped_file
from trainables.errors import ConfigError

_NAME_LINE: Final = re.compile(r"^name:.*$", re.MULTILINE)
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_.-]+")


def start_file(path: Path, *, experiment: str, pair: str | None, space: str | None, force: bool) -> None:
    """Writes the shipped experiment, or the shipped space if one is given, named after the file.

    With a pair, the file chooses it.

    Raises:
        ConfigError: no such experiment, pair or space; the path has another suffix than YAML's, exists
            without `force`, or cannot be written.
    """
    if space is not None and pair is not None:
        raise ConfigError("--pair is for an experiment; a search space has no pairs: leave one of them out")
    if space is not None:
        original = shipped_file(space, SPACES_FOLDER, kind="search space")
    else:
        original = shipped_file(experiment, EXPERIMENTS_FOLDER, kind="experiment")
    if pair is not None:
        load_experiment(f"{experiment}:{pair}", check_paths=False)
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{path}: found suffix {path.suffix!r}; allowed: .yaml or .yml")
    name = _FOREIGN.sub("-", path.stem).lstrip("_.-") or original.stem
    head = f"name: {name}" if pair is None else f"name: {name}\npair: {pair}    # one of `pairs` below"
    text = _NAME_LINE.sub(head, original.read_text(encoding="utf-8"), count=1)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists; give another name, or --force to replace it") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
