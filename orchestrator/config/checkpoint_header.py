"""Whether a file can be a checkpoint at all: told from its first bytes, at once and without torch."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Final

SUFFIXES: Final = (".safetensors", ".pt", ".pth")
_LENGTH_BYTES: Final = 8


def why_unreadable(path: Path) -> str | None:
    """What is wrong with a checkpoint file, as far as its format tells; none when it looks right.

    Keys and shapes are compared with the network when it is loaded.
    """
    if path.suffix not in SUFFIXES:
        return f"allowed: a file that ends in {', '.join(SUFFIXES)}"
    if not path.is_file():
        return "allowed: an existing file"
    try:
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


def _is_safetensors(path: Path) -> bool:
    """Whether the header is JSON of the stated length and its tensors fill the file exactly."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        size = path.stat().st_size
        if not 2 <= length <= size - _LENGTH_BYTES:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    if not isinstance(header, dict):
        return False
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    try:
        end = max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
    except (TypeError, KeyError, ValueError, IndexError):
        return False
    return size == _LENGTH_BYTES + length + end
