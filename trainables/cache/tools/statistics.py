"""What a cache says of its teacher, bank by bank, read from the scalar columns of its Parquet files."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from trainables.cache.format.manifest import Manifest
from trainables.cache.format.records import ShardRecord
from trainables.cache.format.storage import Place, told
from trainables.cache.tools.callbacks import OnStep
from trainables.config import Config
from trainables.errors import CacheError
from trainables.foreign_files import foreign_file

COLUMNS: Final = ("label", "teacher_top1", "teacher_confidence", "teacher_entropy")


class ViewFigures(Config):
    """One view of a bank."""

    rows: int
    accuracy: float = Field(
        description="of the teacher on the training split as this view shows it; a fraction"
    )
    unlabelled: int = Field(
        0, description="rows without a label, which accuracy leaves out", exclude_if=lambda count: count == 0
    )
    confidence: float = Field(description="mean of the largest probability at temperature 1")
    entropy: float = Field(description="mean entropy at temperature 1, in nats")


class BankFigures(Config):
    """One bank of a cache; means are over all rows of all views."""

    bank: str
    views: tuple[ViewFigures, ...]
    steps: tuple[str, ...] = Field(description="operations of the recipe, in order")
    bytes: int

    @property
    def rows(self) -> int:
        """Answers: samples x views."""
        return sum(view.rows for view in self.views)

    def mean(self, figure: str) -> float:
        """The mean of `accuracy`, `confidence` or `entropy` over all rows."""
        total = sum(view.rows * float(getattr(view, figure)) for view in self.views)
        return total / self.rows


def bank_figures(
    place: Place, manifest: Manifest, *, progress: OnStep = lambda *_: None
) -> tuple[BankFigures, ...]:
    """Accuracy, confidence and entropy of each bank, from 16 bytes of each row.

    Raises:
        CacheError: a file cannot be read; `verify` tells more of it.
    """
    total = sum(
        len(manifest.shards_of(name, view))
        for name, bank in manifest.banks.items()
        for view in range(bank.views)
    )
    done = 0
    found = []
    for name, bank in manifest.banks.items():
        views = []
        for view in range(bank.views):
            shards = manifest.shards_of(name, view)
            views.append(_figures([_sums(place, record) for record in shards]))
            done += len(shards)
            progress(done, total)
        size = sum(record.bytes for record in manifest.shards if record.shard.bank == name)
        steps = tuple(step.op for step in bank.recipe)
        found.append(BankFigures(bank=name, views=tuple(views), steps=steps, bytes=size))
    return tuple(found)


def read_columns(place: Place, record: ShardRecord, columns: tuple[str, ...] | None = None) -> pa.Table:
    """Columns of a shard (all of them, when none are named), with the checksum of every page verified.

    Raises:
        CacheError: the file is missing or damaged; it is named.
    """
    path = place.path(record.file)
    repair = "stillhouse cache verify EXPERIMENT --deep --repair rebuilds damaged files"
    with (
        foreign_file(lambda why: CacheError(f"cannot read {path}: {why}; {repair}"), told),
        place.filesystem.open_input_file(path) as source,
        pq.ParquetFile(source, page_checksum_verification=True) as file,
    ):
        return file.read(columns=None if columns is None else list(columns))


def _sums(place: Place, record: ShardRecord) -> tuple[float, ...]:
    table = read_columns(place, record, COLUMNS)
    label, top1, confidence, entropy = (np.asarray(table.column(name)) for name in COLUMNS)
    return (
        float(len(label)),
        float((label == top1).sum()),
        float((label < 0).sum()),
        float(confidence.sum(dtype=np.float64)),
        float(entropy.sum(dtype=np.float64)),
    )


def _figures(sums: list[tuple[float, ...]]) -> ViewFigures:
    rows, correct, unlabelled, confidence, entropy = (sum(column) for column in zip(*sums, strict=True))
    return ViewFigures(
        rows=int(rows),
        accuracy=correct / (rows - unlabelled),
        unlabelled=int(unlabelled),
        confidence=confidence / rows,
        entropy=entropy / rows,
    )
