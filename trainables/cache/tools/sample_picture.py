"""A sample as the teacher saw it: its views in a row for each bank, with what the teacher said under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainables.cache.format.manifest import Manifest
from trainables.cache.format.parquet import logits_of
from trainables.cache.format.storage import Place, told
from trainables.config import ViewsConfig
from trainables.data import TrainingData
from trainables.errors import CacheError, ConfigError
from trainables.foreign_files import foreign_file
from trainables.views.showing import show_any

# C = classes, H, W = height and width in pixels

MAX_VIEWS: Final = 8
COLUMNS: Final = 4
TOP: Final = 3
CELL_INCHES: Final = 1.9
ROW_INCHES: Final = 2.7
CAPTION: Final = 0.25
"""Height of a caption, in heights of an image."""
DPI: Final = 130


@dataclass(frozen=True)
class Shown:
    """One view of the sample."""

    bank: str
    view: int
    image_HWC: npt.NDArray[np.uint8]
    top: tuple[tuple[str, float], ...]
    """Class and probability at temperature 1, the largest first."""


def views_of_sample(
    place: Place, manifest: Manifest, data: TrainingData, views: ViewsConfig, *, sample: int, seed: int
) -> list[Shown]:
    """The first eight views of each bank of the cache, with the teacher's three most probable classes.

    `seed` is that of the views.

    Raises:
        ConfigError: the training split has no such sample; it names near ones.
        CacheError: a file cannot be read.
    """
    row = _row_of(data, sample)
    shown = []
    for name, bank in manifest.banks.items():
        for view in range(min(bank.views, MAX_VIEWS)):
            recipe = views.bank(name).recipe
            image_CHW = show_any(
                data.parts, torch.tensor([row]), recipe, seed=seed, view=view, device=torch.device("cpu")
            )[0]
            logits_C = _kept_logits(place, manifest, name, view, row)
            shown.append(Shown(name, view, image_CHW.permute(1, 2, 0).numpy(), _top(logits_C, data.classes)))
    return shown


def draw_picture(shown: Sequence[Shown], path: Path, *, title: str, label: str) -> None:
    """Write the views as a PNG; a class in green is the label, one in red is not.

    Raises:
        CacheError: the file cannot be written.
    """
    banks: dict[str, list[Shown]] = {}
    for view in shown:
        banks.setdefault(view.bank, []).append(view)
    lines = [
        (bank, views[first : first + COLUMNS])
        for bank, views in banks.items()
        for first in range(0, len(views), COLUMNS)
    ]
    columns = max(len(views) for _, views in lines)
    figure = Figure(
        figsize=(CELL_INCHES * columns, ROW_INCHES * len(lines) + 0.4), dpi=DPI, layout="constrained"
    )
    figure.suptitle(title, fontsize=10)
    # Captions have axes of their own, so that the layout leaves room for them.
    grid: Any = figure.subplots(
        2 * len(lines), columns, squeeze=False, height_ratios=[1, CAPTION] * len(lines)
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for number, (_, views) in enumerate(lines):
        for column, view in enumerate(views):
            _draw_image(grid[2 * number, column], view)
            _draw_caption(grid[2 * number + 1, column], view, label)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error}; give another place") from error


def _draw_image(axes: Axes, shown: Shown) -> None:
    image = shown.image_HWC if shown.image_HWC.shape[2] == 3 else shown.image_HWC[:, :, 0]
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(f"{shown.bank}, view {shown.view}", fontsize=8)


def _draw_caption(axes: Axes, shown: Shown, label: str) -> None:
    for line, (name, probability) in enumerate(shown.top):
        axes.text(
            0.5,
            1 - line / TOP,
            f"{name[:18]}: {100 * probability:.1f} %",
            transform=axes.transAxes,
            ha="center",
            va="top",
            fontsize=7,
            color="#1a7f37" if name == label else "#b3261e",
            weight="bold" if line == 0 else "normal",
        )


def _row_of(data: TrainingData, sample: int) -> int:
    ids = data.ids_M.numpy()
    row = int(np.searchsorted(ids, sample))
    if row < len(ids) and ids[row] == sample:
        return row
    near = ", ".join(str(found) for found in ids[max(0, row - 2) : row + 2])
    raise ConfigError(
        f"--sample: found {sample}; allowed: ids of the training split ({len(ids)} from {ids[0]} to "
        f"{ids[-1]}, near it {near})"
    )


def _kept_logits(place: Place, manifest: Manifest, bank: str, view: int, row: int) -> npt.NDArray[Any]:
    """C logits up to a constant; of the file, only the row group that holds the row is read."""
    record = next(
        r for r in manifest.shards_of(bank, view) if r.shard.first <= row < r.shard.first + r.shard.rows
    )
    place_in_file = row - record.shard.first
    with (
        foreign_file(lambda why: CacheError(f"cannot read {place.path(record.file)}: {why}"), told),
        place.filesystem.open_input_file(place.path(record.file)) as source,
        pq.ParquetFile(source, page_checksum_verification=True) as file,
    ):
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if place_in_file < rows:
                table = file.read_row_group(group).slice(place_in_file, 1)
                kept_C: npt.NDArray[Any] = logits_of(table)[0].astype(np.float32)
                return kept_C
            place_in_file -= rows
    raise CacheError(f"{place.path(record.file)} has fewer rows than its record says; verify the cache")


def _top(logits_C: npt.NDArray[Any], classes: Sequence[str]) -> tuple[tuple[str, float], ...]:
    exp_C = np.exp(logits_C - logits_C.max())
    order = np.argsort(-exp_C, kind="stable")[:TOP]
    return tuple((classes[index], float(exp_C[index] / exp_C.sum())) for index in order)
