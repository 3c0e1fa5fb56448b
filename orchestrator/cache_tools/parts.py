"""What each part of a cache takes, logits and features, and what maps would take that are not kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.terminal.console import Console
from orchestrator.terminal.formatting import duration
from trainables.cache.format.disk_space import bytes_in_words, expected_bytes
from trainables.cache.format.planning import Plan, all_shards
from trainables.cache.format.records import Origin, Shard
from trainables.config.cache import CLASSIFIER, LOGITS, TEACHER
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.feature_shapes import maps_not_kept

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class PartCost:
    """One part of one bank."""

    bank: str
    part: str
    shape: tuple[int, ...] | None
    """Of a row of a feature, where it is known."""
    rows: int
    """In a complete cache: samples x views."""
    rows_to_compute: int
    bytes_to_write: int

    def teacher_s(self, images_per_s: float | None) -> float | None:
        """Seconds that one teacher takes for the missing rows of this part alone.

        Logits and features of a row are one answer, so times of parts of one bank do not add up.
        """
        asked = 0 if self.part == CLASSIFIER else self.rows_to_compute
        return asked / images_per_s if images_per_s else None

    def plain(self, images_per_s: float | None) -> dict[str, Any]:
        """Plain data, with the teacher's time in `teacher_s`."""
        return {
            "bank": self.bank,
            "part": self.part,
            "shape": None if self.shape is None else list(self.shape),
            "rows": self.rows,
            "rows_to_compute": self.rows_to_compute,
            "bytes_to_write": self.bytes_to_write,
            "teacher_s": self.teacher_s(images_per_s),
        }


def kept_parts(plan: Plan, shapes: Shapes) -> list[PartCost]:
    """What each part of a planned cache still takes."""
    whole = [*all_shards(plan.origin, plan.banks)]
    return _costs(plan.origin, whole, set(plan.missing), shapes)


def unkept_parts(request: CacheRequest, plan: Plan, shapes: Shapes) -> list[PartCost]:
    """What the features would take that objectives ask for and the cache does not keep."""
    origin, shards = maps_not_kept(request, plan.origin, plan.banks)
    return _costs(origin, shards, set(shards), shapes)


def show_parts(
    title: str, parts: Iterable[PartCost], plan: Plan, console: Console, *, images_per_s: float | None
) -> None:
    """A line for each part of each bank."""
    rows = [_row(part, plan, images_per_s) for part in parts]
    columns = ("bank", "views", "part", "rows", "rows to compute", "bytes to write", "teacher time")
    if rows:
        console.table(title, columns, rows)


def _costs(origin: Origin, whole: Iterable[Shard], missing: set[Shard], shapes: Shapes) -> list[PartCost]:
    by_part: dict[tuple[str, str], list[Shard]] = {}
    for shard in whole:
        by_part.setdefault((shard.bank, shard.part), []).append(shard)
    costs = []
    for (bank, part), shards in by_part.items():
        todo = [shard for shard in shards if shard in missing]
        costs.append(
            PartCost(
                bank=bank,
                part=part,
                shape=shapes.get(part),
                rows=sum(shard.rows for shard in shards),
                rows_to_compute=sum(shard.rows for shard in todo),
                bytes_to_write=expected_bytes(origin, todo, shapes),
            )
        )
    return costs


def _row(cost: PartCost, plan: Plan, images_per_s: float | None) -> tuple[str, ...]:
    views = "" if cost.bank == TEACHER else str(plan.banks[cost.bank].views)
    seconds = cost.teacher_s(images_per_s)
    shape = "" if cost.shape is None else f" ({' x '.join(str(size) for size in cost.shape)})"
    is_unknown = cost.part != LOGITS and cost.shape is None and cost.rows_to_compute > 0
    return (
        cost.bank,
        views,
        f"{cost.part}{shape}",
        f"{cost.rows:,}",
        f"{cost.rows_to_compute:,}",
        "not known yet" if is_unknown else bytes_in_words(cost.bytes_to_write),
        "not known" if seconds is None else duration(seconds),
    )
