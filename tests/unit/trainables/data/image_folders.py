"""Small image folders of mixed sizes and modes, written with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainables.config import DataConfig
from trainables.config.data import DataName

SIDE = 8
SIZES = ((12, 10), (9, 21), (8, 8), (30, 14), (6, 5), (17, 16), (11, 40))
MODES = ("RGB", "L", "P", "RGBA", "CMYK")
CLASSES = ("rose", "daisy")


def picture(seed: int, width: int = 12, height: int = 10) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_folder(root: Path, *, per_class: int = 14, suffix: str = "tif") -> Path:
    """Two classes, some pictures in a folder of their own, to train on and (two each) to test."""
    for part, count in (("train", per_class), ("test", 2)):
        for label, name in enumerate(CLASSES):
            (root / part / name / "more").mkdir(parents=True)
            for index in range(count):
                seed = 100 * label + index
                width, height = SIZES[seed % len(SIZES)]
                mode = MODES[seed % len(MODES)] if suffix == "tif" else "RGB"
                inner = "more/" if index % 3 == 0 else ""
                path = root / part / name / f"{inner}{index}.{suffix}"
                picture(seed, width, height).convert(mode).save(path)
    return root


def config_of(root: Path, **changes: Any) -> DataConfig:
    """Left in its files, unless `memory_gb` is among the changes."""
    settings: dict[str, Any] = {"image_size": SIDE, "selection_fraction": 0.3, "memory_gb": 0} | changes
    return DataConfig(name=DataName.IMAGE_FOLDER, root=str(root), **settings)
