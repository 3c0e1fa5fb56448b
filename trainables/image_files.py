"""Which files are images, by their names, and whether those of a folder are still the same; without torch."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image; hidden ones are not."""
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def images_stamp(folder: Path) -> str:
    """Hex sha256 of path, size and time of change of each image file of a folder, at any depth.

    As for other files that fingerprints know, the time is the one that copies keep.
    """
    digest = hashlib.sha256()
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # links may lead in a circle
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(filter(is_image_name, files)):
            path = Path(place, name)
            facts = [0, 0]  # a link that leads nowhere
            with suppress(OSError):
                facts = [path.stat().st_size, path.stat().st_mtime_ns]
            digest.update(os.fsencode(path.relative_to(folder)) + f"\0{facts}\0".encode())
    return digest.hexdigest()
