"""What a checkpoint's first bytes tell, at once and without torch: whether it is one, and what it states."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from trainables.config import Normalisation

SUFFIXES: Final = (".safetensors", ".pt", ".pth")
_LENGTH_BYTES: Final = 8
_METADATA: Final = "__metadata__"
NORMALISATION: Final = "normalisation"
CLASSES: Final = "classes"
"""Keys of the metadata of a safetensors file that Stillhouse writes; their values are JSON."""


def why_unreadable(path: Path) -> str | None:
    """What is wrong with a checkpoint file, as far as its format tells; none when it looks right.

    Keys and shapes are compared with the network when it is loaded.
    """
    if path.suffix not in SUFFIXES:
        return f"allowed: a file that ends in {', '.join(SUFFIXES)}"
    try:
        if not path.is_file():
            return "allowed: an existing file"
        whole = _is_safetensors(path) if path.suffix == ".safetensors" else zipfile.is_zipfile(path)
    except OSError as error:
        return f"allowed: a file that can be read ({error.strerror})"
    if whole:
        return None
    if path.suffix == ".safetensors":
        return "allowed: an intact safetensors file; this one is damaged or of another format"
    return (
        "allowed: a file that torch.save wrote (zip format); this one is damaged or of another format; "
        "save the state dict again, best as .safetensors"
    )


def preprocessing_metadata(normalisation: Normalisation, classes: Sequence[str]) -> dict[str, str]:
    """What a file of weights states of the images and classes that they were trained on."""
    return {NORMALISATION: json.dumps(normalisation.plain()), CLASSES: json.dumps(list(classes))}


def stated_normalisation(path: Path) -> Normalisation | None:
    """How the images of these weights are normalised, as their file states; none where it does not."""
    stated = _stated(path, NORMALISATION)
    try:
        return Normalisation.from_plain(stated) if isinstance(stated, dict) else None
    except ValidationError:  # another program's key of that name
        return None


def stated_classes(path: Path) -> tuple[str, ...] | None:
    """The names of the classes in the order of the logits, as the file states; none where it does not."""
    stated = _stated(path, CLASSES)
    return tuple(map(str, stated)) if isinstance(stated, list) else None


def _stated(path: Path, key: str) -> object:
    header = _header(path) if path.suffix == ".safetensors" else None
    metadata = (header or {}).get(_METADATA)
    try:
        return json.loads(metadata[key]) if isinstance(metadata, dict) and key in metadata else None
    except (TypeError, ValueError, RecursionError):
        return None


def _header(path: Path) -> Mapping[str, Any] | None:
    """The header of a safetensors file; none where there is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 2 <= length <= path.stat().st_size - _LENGTH_BYTES:
            return None
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):  # no JSON, or brackets without end
            return None
    return header if isinstance(header, dict) else None


def _is_safetensors(path: Path) -> bool:
    """Whether the header is JSON of the stated length and its tensors fill the file exactly."""
    header = _header(path)
    if header is None:
        return False
    tensors = [entry for name, entry in header.items() if name != _METADATA]
    try:
        end = max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
    except (TypeError, KeyError, ValueError, IndexError):
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    return path.stat().st_size == _LENGTH_BYTES + length + end
