"""Pairs of teacher and student that share the rest of an experiment: one file for a paper's whole table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orchestrator.config.schema_description import did_you_mean
from orchestrator.config.validation_messages import Problem, as_error, shown
from orchestrator.config.yaml_reader import Document, KeyPath
from trainables.errors import ConfigError

_OF_TEACHER: Final = ("checkpoint", "pretrained", "normalisation", "classes", "expected_accuracy")
"""What a pair says of its teacher beside the network."""


def split_pair(ref: str) -> tuple[str, str | None]:
    """An experiment's name or path, and the pair that may stand behind it: EXPERIMENT:PAIR."""
    experiment, _, pair = ref.rpartition(":")
    if experiment and "/" not in pair and not pair.endswith((".yaml", ".yml")):
        return experiment, pair
    return ref, None


def chosen(document: Document, wanted: str | None) -> str | None:
    """The pair that is wanted from outside, else the file's `pair`, else none.

    Raises:
        ConfigError: the file, a valid one, has no such pair; it names those that it has.
    """
    name = document.data.get("pair") if wanted is None else wanted
    pairs = document.data.get("pairs") or {}
    if name is None or name in pairs:
        return name
    allowed = f"allowed: {', '.join(pairs)}" if pairs else "the file has no `pairs` to choose from"
    text = f"{allowed}{did_you_mean(name, pairs)}"
    if wanted is not None:
        raise ConfigError(f"{document.file} has no pair {name!r}; {text}")
    raise as_error(document, [Problem(("pair",), f"found {shown(name)}; {text}")])


def with_pair(document: Document, name: str | None) -> Document:
    """The experiment as if the pair stood in the place of teacher and student, and there were no pairs.

    Teacher and student are the pair's altogether; its `training` is laid over the file's. The name is that
    of the experiment and of the pair, so that each pair has an output folder and a record of its own.
    """
    data = {key: value for key, value in document.data.items() if key not in ("pair", "pairs")}
    if name is None:
        return replace(document, data=data)
    data = {key: value for key, value in data.items() if key not in ("teachers", "combine")}
    pair, base = document.data["pairs"][name], ("pairs", name)
    moved: dict[KeyPath, KeyPath] = {
        ("teacher", "model"): (*base, "teacher"),
        **{("teacher", key): (*base, key) for key in _OF_TEACHER},
        ("student",): (*base, "student"),
        **{("training", key): (*base, "training", key) for key in pair.get("training") or {}},
    }
    data["name"] = f"{data['name']}-{name}"
    data["teacher"] = {
        "model": pair["teacher"],
        **{key: pair[key] for key in _OF_TEACHER if key in pair},
        **_recipe(data.get("teacher") or {}),
    }
    data["student"] = pair["student"]
    data["training"] = {**(data.get("training") or {}), **(pair.get("training") or {})}
    return replace(document, data=data, lines=_lines(document.lines, moved))


def _recipe(teacher: Mapping[str, Any]) -> dict[str, Any]:
    return {"training": teacher["training"]} if "training" in teacher else {}


def _lines(lines: Mapping[KeyPath, int], moved: Mapping[KeyPath, KeyPath]) -> dict[KeyPath, int]:
    """The lines of what stays, and of what came from elsewhere under its new path."""
    stay = {path: line for path, line in lines.items() if not any(_below(path, new) for new in moved)}
    came = {
        (*new, *path[len(old) :]): line
        for new, old in moved.items()
        for path, line in lines.items()
        if _below(path, old)
    }
    return stay | came


def _below(path: KeyPath, root: KeyPath) -> bool:
    return path[: len(root)] == root
