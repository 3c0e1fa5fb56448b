"""Paths in an output folder's own files: those inside it are relative, so that it can be moved and copied.

In memory every path is absolute, below the folder's present place; the ledger and `summary.json` turn them
into relative ones when they write, and back when they read. Earlier versions wrote absolute ones: the place
where such a folder was made is read off its ledger, and what lay below it then lies below the folder now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from orchestrator.records.events import ArtifactAdded, Event, EventT, StageEvent, TrialEnded

PATH_FIELDS: Final = frozenset({"weights", "uri", "folder", "card", "path"})
"""Fields of stages' results that hold a path."""
_SQLITE: Final = "sqlite:///"


def relative(text: str, folder: Path) -> str:
    """A path, or the URI of an SQLite file, as it is written down in a folder: relative if it lies inside."""
    return _on_path(text, lambda path: "." if path == str(folder) else _rebased(path, str(folder), ""))


def absolute(text: str, folder: Path, former: Collection[str] = ()) -> str:
    """A path as it was written down in a folder, where it is now; `former` are places of that folder."""

    def place(path: str) -> str:
        for home in former:
            if _is_below(path, home):
                return _rebased(path, home, str(folder))
        return str(folder / path)

    return _on_path(text, place)


def written(event: EventT, folder: Path) -> EventT:
    """The event as a folder's ledger writes it."""
    return _with_paths(event, lambda text: relative(text, folder))


def read(event: EventT, folder: Path, former: Collection[str]) -> EventT:
    """The event of a folder's ledger, with the paths of now."""
    return _with_paths(event, lambda text: absolute(text, folder, former))


def summary_as_written(summary: dict[str, Any]) -> dict[str, Any]:
    """The plain data of a summary as its output folder keeps it."""
    folder = Path(summary["out"])
    return _in_summary(summary, lambda text: relative(text, folder))


def summary_as_read(summary: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The plain data of a summary that lies in a folder, with the paths of now."""
    former = [summary["out"]]
    return _in_summary(summary, lambda text: absolute(text, folder, former))


def former_places(events: Iterable[Event]) -> list[str]:
    """Where an output folder was when earlier versions wrote absolute paths into its ledger, latest first."""
    found: dict[str, None] = {}
    for event in events:
        if isinstance(event, TrialEnded):
            path, inside = Path(event.checkpoint or ""), f"students/{event.trial}/best.safetensors"
        elif isinstance(event, StageEvent) and event.stage == "teacher":
            path, inside = Path(event.found.get("weights") or ""), "teacher/teacher.safetensors"
        else:
            continue
        if path.is_absolute() and str(path).endswith(f"/{inside}"):
            home = str(path).removesuffix(f"/{inside}")
            found.pop(home, None)
            found[home] = None
    return list(reversed(found))


@dataclass(frozen=True)
class KeyPaths:
    """Writes places into fingerprints, so that a stage is known again when the folder was moved.

    What lies in the output folder is relative to it, and what lies beside the experiment's file is relative
    to that. In a ledger of an earlier version a place is written as it was when the folder was there: what
    the folder's former and present paths do not share at their end has been renamed, with all below it.
    """

    folder: Path
    former: str | None
    """Where the folder was when an earlier version wrote the ledger."""
    project: Path
    """The folder of the experiment's file."""

    def __call__(self, text: str) -> str:
        """A path, or the URI of an SQLite file, as fingerprints hold it."""
        if self.former is not None:
            then, now = _renamed(self.former, str(self.folder))
            return _on_path(text, lambda path: _rebased(path, now, then))
        inside = relative(text, self.folder)
        return (
            f"out:{inside}"
            if inside != text
            else _on_path(text, lambda path: _rebased(path, str(self.project), "experiment:"))
        )


def _renamed(then: str, now: str) -> tuple[str, str]:
    """The two paths without the parts that they share at their end."""
    a, b = Path(then), Path(now)
    while a.name == b.name and len(a.parents) > 1 and len(b.parents) > 1:
        a, b = a.parent, b.parent
    return str(a), str(b)


def _with_paths(event: EventT, change: Callable[[str], str]) -> EventT:
    update: dict[str, Any] = {}
    if isinstance(event, TrialEnded) and event.checkpoint is not None:
        update["checkpoint"] = change(event.checkpoint)
    elif isinstance(event, ArtifactAdded):
        update["path"] = change(event.path)
    elif isinstance(event, StageEvent) and event.result is not None:
        update["result"] = _in_result(event.result, change)
    return cast(EventT, event.model_copy(update=update)) if update else event


def _in_summary(summary: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    champion, cache, mlflow = summary["champion"], summary["cache"], summary["mlflow"]
    exports = {name: {**file, "path": change(file["path"])} for name, file in champion["exports"].items()}
    return {
        **summary,
        "out": change(summary["out"]),
        "cache": None if cache is None else {**cache, "uri": change(cache["uri"])},
        "champion": {**champion, "exports": exports, "model_card": change(champion["model_card"])},
        "mlflow": {**mlflow, "tracking_uri": change(mlflow["tracking_uri"])},
    }


def _in_result(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_in_result(each, change) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: change(each) if name in PATH_FIELDS and isinstance(each, str) else _in_result(each, change)
        for name, each in value.items()
    }


def _on_path(text: str, change: Callable[[str], str]) -> str:
    """The text with its path changed; an address on another kind of storage stays as it is."""
    if text.startswith(_SQLITE):
        return f"{_SQLITE}{change(text.removeprefix(_SQLITE))}"
    return text if "://" in text else change(text)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _rebased(path: str, old: str, new: str) -> str:
    """The path with the folder `old` at its beginning replaced; another path stays as it is."""
    if not _is_below(path, old):
        return path
    rest = path[len(old.rstrip("/")) :].lstrip("/")
    return f"{new}/{rest}".rstrip("/") if new else rest
