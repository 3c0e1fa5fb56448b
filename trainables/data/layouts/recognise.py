"""Which layout a folder of images has, and which of its files are to train on and to test."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from trainables.config.data import DataConfig, ImageLayout, SourcePart
from trainables.data.folder_listing import LAYOUT
from trainables.errors import DataError
from trainables.foreign_files import in_characters
from trainables.image_files import SUFFIXES

MANIFEST_SUFFIXES: Final = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})
PACKED: Final = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
TEST_NAMES: Final = ("test", "val", "valid", "validation")
"""Folders that may be the test part, the first that is there."""
SPLIT_OF: Final[Mapping[str, str]] = MappingProxyType(
    {"train": "train", "training": "train", "test": "test", "testing": "test"}
    | dict.fromkeys(("val", "valid", "validation", "dev"), "val")
)
"""What words in names of files and in manifests say of a split."""
_SHARD_FOLDERS: Final = frozenset({"data", *SPLIT_OF})
_NAMED: Final = 3


@dataclass(frozen=True)
class Found:
    """A layout, and where its two parts lie."""

    layout: ImageLayout
    parts: Mapping[SourcePart, tuple[Path, ...]]
    """Folders or files; where there are none for the test, it is cut off."""
    notes: tuple[str, ...] = field(default=())
    """What else is there, and is not read."""


def recognise(root: Path, config: DataConfig) -> Found:
    """The layout that `layout` or `manifest` says, or the only one that the folder can be.

    Folders train/ and test/ (or val/) with a folder for each class are that, whatever lies beside them.

    Raises:
        DataError: the folder could be several, or is none.
    """
    try:
        has_parts = _has_folder(root / SourcePart.TRAIN.value)
        wanted: ImageLayout | None = ImageLayout.MANIFEST if config.manifest is not None else config.layout
        if wanted is ImageLayout.PARTS or (wanted is None and has_parts):
            return _parts(root)
        kinds = _kinds(root, config.manifest)
        split_folders = _split_folders(root)
    except OSError as error:
        raise DataError(f"cannot list {in_characters(str(root))}: {error.strerror}") from error
    if wanted is None and split_folders and kinds.pop(ImageLayout.CLASSES, []) and not kinds:
        raise DataError(
            f"{in_characters(str(root))} has folders that are named as parts ({_some(root, split_folders)}); "
            "call them train/ and test/, with a folder for each class in both; or, where they are classes, "
            "set `layout: classes`"
        )
    if wanted is None and len(kinds) > 1:
        told = "; ".join(f"{layout.value} ({_some(root, files)})" for layout, files in kinds.items())
        raise DataError(
            f"{in_characters(str(root))} could be several layouts of images: {told}; say which one it is "
            "with `layout`, or name the `manifest`"
        )
    if wanted is not None and wanted not in kinds:
        there = ", ".join(layout.value for layout in kinds) or "none that is known"
        raise DataError(
            f"{in_characters(str(root))} has not the layout {wanted.value}; what is there looks like: {there}"
        )
    if config.manifest is not None:  # which may lie anywhere, and its name tells nothing
        return Found(ImageLayout.MANIFEST, {SourcePart.TRAIN: tuple(kinds[ImageLayout.MANIFEST])})
    if not kinds:
        _refuse_packed(root)
        return _parts(root)  # which says what is missing
    layout = next(iter(kinds)) if wanted is None else wanted
    return _of_files(root, layout, kinds[layout])


def _parts(root: Path) -> Found:
    there = [name for name in TEST_NAMES if (root / name).is_dir()] or [SourcePart.TEST.value]
    notes = tuple(f"{name}/ is not read" for name in there[1:])
    parts = {SourcePart.TRAIN: (root / SourcePart.TRAIN.value,), SourcePart.TEST: (root / there[0],)}
    return Found(ImageLayout.PARTS, parts, notes)


def _kinds(root: Path, manifest: str | None) -> dict[ImageLayout, list[Path]]:
    """What the folder could be, each with its files or folders."""
    if manifest is not None:
        if not (root / manifest).is_file():
            raise DataError(f"`manifest` {in_characters(str(root / manifest))} is no file on this machine")
        return {ImageLayout.MANIFEST: [root / manifest]}
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir()]
    files = [path for path in entries if path.is_file()]
    names = {path.name for path in files}
    if "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= names:
        return {ImageLayout.DATASETS: [root]}
    shards = [
        path
        for folder in folders
        if folder.name.lower() in _SHARD_FOLDERS
        for path in sorted(folder.iterdir())
        if path.suffix in {".parquet", ".tar"} and not path.name.startswith(".") and path.is_file()
    ]
    found = {
        ImageLayout.MANIFEST: [path for path in files if path.suffix.lower() in MANIFEST_SUFFIXES],
        ImageLayout.PARQUET: [path for path in (*files, *shards) if path.suffix == ".parquet"],
        ImageLayout.TARS: [path for path in (*files, *shards) if path.suffix == ".tar"],
        ImageLayout.CLASSES: folders if len(folders) > 1 and all(map(_holds_image, folders[:2])) else [],
    }
    return {layout: paths for layout, paths in found.items() if paths}


def _split_folders(root: Path) -> list[Path]:
    """Folders whose names are those of parts, such as Training/, and hardly those of classes."""
    return sorted(path for path in root.iterdir() if path.name.lower() in SPLIT_OF and path.is_dir())


def _of_files(root: Path, layout: ImageLayout, paths: Sequence[Path]) -> Found:
    if layout in {ImageLayout.CLASSES, ImageLayout.DATASETS}:
        return Found(layout, {SourcePart.TRAIN: (root,)})
    by_split: dict[str | None, list[Path]] = {}
    for path in paths:
        by_split.setdefault(split_in_name(path.relative_to(root).as_posix()), []).append(path)
    if len(paths) == 1 or set(by_split) == {None}:
        if layout is ImageLayout.MANIFEST and len(paths) > 1:
            raise DataError(
                f"{in_characters(str(root))} holds {len(paths)} manifests ({_some(root, paths)}); name one "
                "with `manifest`"
            )
        return Found(layout, {SourcePart.TRAIN: tuple(paths)})
    if None in by_split or "train" not in by_split:
        odd = by_split.get(None, list(paths))
        raise DataError(
            f"{in_characters(str(root))}: names of files tell which are to train on and to test, and these "
            f"do not: {_some(root, odd)} (of {len(paths)} files); use names with train and test (or val)"
        )
    if layout is ImageLayout.MANIFEST and any(len(files) > 1 for files in by_split.values()):
        raise DataError(
            f"{in_characters(str(root))} holds {len(paths)} manifests ({_some(root, paths)}); name one with "
            "`manifest`, whose column `split` may tell the parts"
        )
    parts = {SourcePart.TRAIN: tuple(by_split["train"])}
    test = by_split.get("test") or by_split.get("val")
    if test:
        parts[SourcePart.TEST] = tuple(test)
    notes = (f"{_some(root, by_split['val'])}: not read",) if len(by_split) > 2 else ()
    return Found(layout, parts, notes)


def split_in_name(name: str) -> str | None:
    """What the first word of a path says that is one of a split; a word is a run of letters."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((SPLIT_OF[word] for word in words if word in SPLIT_OF), None)


def _has_folder(path: Path) -> bool:
    return path.is_dir() and any(
        not inner.name.startswith(".") and inner.is_dir() for inner in path.iterdir()
    )


def _holds_image(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*"))


def _refuse_packed(root: Path) -> None:
    packed = sorted(path for path in root.iterdir() if path.name.endswith(PACKED))
    if packed:
        raise DataError(
            f"{in_characters(str(root))} holds compressed tars ({_some(root, packed)}), of which single "
            f"images cannot be read; unpack them to .tar files; {LAYOUT}"
        )


def _some(root: Path, paths: Sequence[Path]) -> str:
    more = ", ..." if len(paths) > _NAMED else ""
    names = (path.relative_to(root).as_posix() for path in paths[:_NAMED])
    return ", ".join(map(in_characters, names)) + more
