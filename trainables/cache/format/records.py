"""What a cache's folder is for, its files, and the commit record of each."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, Field, ValidationInfo, field_validator

from trainables.cache.format.identity import part_fingerprint
from trainables.config import CacheIdentity, Config, Recipe
from trainables.config.cache import LOGITS, FeaturePrecision, PartName
from trainables.config.objective_base import EMBEDDING


class Shard(Config):
    """One Parquet file: a contiguous range of rows of the training split, in one view of a bank."""

    bank: str
    view: int = Field(ge=0)
    index: int = Field(ge=0, description="number of the shard in its view and part")
    first: int = Field(
        ge=0, description="row of the training split that comes first; of the classifier, class"
    )
    rows: int = Field(ge=1)
    part: PartName = Field(
        LOGITS,
        description="what the file holds of the teacher's answers: logits, or the feature of that name",
        # Left out of records of logits, which therefore read as they did before there were features.
        exclude_if=lambda part: part == LOGITS,
    )

    @property
    def file(self) -> str:
        """Name of the Parquet file in the cache's folder; readers of that folder skip features (`_`)."""
        name = f"bank={self.bank}/view={self.view:04d}/shard-{self.index:05d}.parquet"
        return name if self.part == LOGITS else f"_{self.part}/{name}"

    @property
    def commit(self) -> str:
        """Name of the commit record in the cache's folder."""
        name = f"{self.bank}-{self.view:04d}-{self.index:05d}"
        return f"_commits/{name}.json" if self.part == LOGITS else f"_commits/{name}.{self.part}.json"


class ShardRecord(Config):
    """The commit record of a shard: the file counts only when this is there."""

    shard: Shard
    file: str
    first_id: int = Field(description="sample id of the first row")
    last_id: int = Field(description="sample id of the last row")
    bytes: int
    sha256: str = Field(description="of the whole file")
    correct: int = Field(description="rows whose teacher_top1 is their label; 0 for features")
    fingerprint: str = Field(description="of the identity and the bank's recipe")
    shape: tuple[int, ...] | None = Field(
        None,
        # Embeddings were the first features, and their records told a width.
        validation_alias=AliasChoices("shape", "embedding_width"),
        description="of one row of a feature; none for logits",
        exclude_if=lambda shape: shape is None,
    )

    @field_validator("shape", mode="before")
    @classmethod
    def _of_a_width(cls, told: Any) -> Any:
        if isinstance(told, list):  # of JSON
            return tuple(told)
        return (told,) if isinstance(told, int) and not isinstance(told, bool) else told

    @property
    def embedding_width(self) -> int | None:
        """Numbers in an embedding; none where the file holds no embeddings."""
        return self.shape[0] if self.shape and self.shard.part == EMBEDDING else None


class Origin(Config):
    """What a cache folder is for; written before the first shard."""

    identity: CacheIdentity
    n_rows: int = Field(ge=1, description="samples in the training split, and unlabelled ones behind them")
    classes: tuple[str, ...] = Field(description="class names in the order of the logits")
    rows_per_shard: int = Field(ge=1)
    recipes: dict[str, Recipe] = Field(description="of each bank")
    features: dict[str, tuple[PartName, ...]] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("features", "embedding"),
        description="kept beside the logits, by bank; below `teacher` its classifier",
        exclude_if=lambda features: not features,
    )
    feature_precision: FeaturePrecision = Field(
        FeaturePrecision.FP16, exclude_if=lambda precision: precision is FeaturePrecision.FP16
    )
    stated: dict[str, str] = Field(
        default_factory=dict,
        description="parts of the teacher's network that the experiment file says are features, by name; and "
        "hashes of the parts beside it that make a feature of a prepared teacher",
        exclude_if=lambda stated: not stated,
    )
    rows_per_map: int = Field(
        2048, ge=1, description="of a file of a whole map", exclude_if=lambda rows: rows == 2048
    )

    @field_validator("features", mode="before")
    @classmethod
    def _of_all_banks(cls, told: Any, info: ValidationInfo) -> Any:
        """Before there were other features, a folder said `embedding: true` of all its banks."""
        if isinstance(told, bool):
            return dict.fromkeys(info.data.get("recipes", {}), (EMBEDDING,)) if told else {}
        return {bank: tuple(names) for bank, names in told.items() if names}

    def fingerprint_of(self, shard: Shard) -> str:
        """What the commit record of a shard of this folder has to bear."""
        recipe = self.recipes.get(shard.bank, ())
        path = self.stated.get(shard.part)
        return part_fingerprint(self.identity, recipe, shard.part, self.feature_precision, path)
