"""Where the teacher cache lies and what makes two caches the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from trainables.config.base import Config


class Precision(StrEnum):
    """How logits are kept; all but fp32 are z - max(z), with the maximum beside it."""

    FP16 = "fp16"
    FP32 = "fp32"
    INT8 = "int8"
    """256 steps between the smallest and the largest logit of a row."""
    TOPK = "topk"
    """The largest logits in fp16, and the log-sum-exp of all others."""


class FeaturePrecision(StrEnum):
    """How features are kept, those within the teacher's network."""

    FP16 = "fp16"
    FP32 = "fp32"


LOGITS: Final = "logits"
"""The part of a cache that all of it has; the others are features by their names."""
CLASSIFIER: Final = "classifier"
"""The part that holds the weights of the teacher's last layer."""
TEACHER: Final = "teacher"
"""Stands where banks do, for what is the teacher's own whatever the view."""

_SMALL: Final = re.compile(r"logits|classifier|embedding|ss_head|branch\d+|energy\..+")
_RESERVED: Final = (LOGITS, CLASSIFIER, "commits", "manifests")


def _no_own_name(name: str) -> str:
    if name in _RESERVED:
        raise ValueError(f"{name} is a name of the cache's own; give that of a feature")
    return name


PartName = Annotated[str, Field(pattern=r"^[A-Za-z]\w*(\.\w+)*$", max_length=100)]
FeatureName = Annotated[PartName, AfterValidator(_no_own_name)]


def is_whole_map(part: str) -> bool:
    """Whether a part of a cache may be as large as all that a stage of the network gives, or larger.

    What is not known to be small counts as that: it is kept where an experiment names it, and nowhere else.
    """
    return _SMALL.fullmatch(part) is None


BroughtValues = Literal["logits", "probabilities"]
"""What the numbers of a file of teacher's answers are; log-probabilities are logits."""


class CacheConfig(Config):
    """The cache's place and precision."""

    uri: str | None = Field(
        None,
        min_length=1,
        description="folder or s3:// of one cache; default: addressed by fingerprint below `out`",
    )
    precision: Precision = Field(
        Precision.FP16, description="fp16, fp32, int8 (half the bytes of fp16), or topk (the largest logits)"
    )
    top_k: int = Field(100, ge=1, description="logits of each row that precision topk keeps")
    embedding: bool = Field(
        False,
        description="also keep what the teacher's last linear layer is given; as `features: [embedding]`",
    )
    features: tuple[FeatureName, ...] = Field(
        (),
        description="features of the teacher that are kept in files of their own, whole maps (`stage2`, "
        "`tokens`) too; small ones that an objective asks for are kept unnamed",
        exclude_if=lambda features: not features,
    )
    feature_precision: FeaturePrecision = Field(
        FeaturePrecision.FP16,
        description="how features are kept, fp16 or fp32",
        exclude_if=lambda precision: precision is FeaturePrecision.FP16,
    )
    rows_per_map: int = Field(
        2048,
        ge=16,
        description="samples in one Parquet file of a whole map; no more than rows_per_shard",
        exclude_if=lambda rows: rows == 2048,
    )
    autocast: bool = Field(
        False,
        description="the teacher computes in bf16: faster on GPUs, and logits that differ in the third digit",
    )
    online: bool = Field(
        False,
        description="no cache: each trial asks the teacher anew about every batch; for comparison, and for "
        "objectives that ask about adversarial images",
    )
    batch_size: int = Field(512, ge=1, le=65_536, description="samples in a teacher forward")
    rows_per_shard: int = Field(65_536, ge=16, description="samples in one Parquet file")

    @property
    def named_features(self) -> tuple[str, ...]:
        """The features that the file asks for."""
        return tuple(dict.fromkeys((*(("embedding",) if self.embedding else ()), *self.features)))

    def kept_features(
        self, banks: Iterable[str], asked: Mapping[str, Iterable[str]], *, classifier: bool = False
    ) -> dict[str, tuple[str, ...]]:
        """The features to keep of each bank, where objectives ask for these by bank.

        With `classifier` the teacher's last layer too, below `teacher`.

        Small ones are kept where an objective asks for them; whole maps only if the file names them, and then
        of the banks whose maps an objective asks for. What is named and nobody asks for is kept of all banks.
        """
        wanted = {name for names in asked.values() for name in names}
        kept = {}
        for bank in banks:
            own = [name for name in self.named_features if name not in wanted]
            own += [name for name in asked.get(bank, ()) if self.is_kept(name)]
            if own:
                kept[bank] = tuple(dict.fromkeys(own))
        return kept | ({TEACHER: (CLASSIFIER,)} if classifier else {})

    def feature_facts(self, asked: Iterable[str]) -> list[str]:
        """What of the cache decides how students hear the features that are asked of the teacher.

        Their precision where it is not fp16, and the whole maps among them that the cache keeps. Nothing
        where that is as it was before there was a choice: searches keep the keys that they had.
        """
        wanted = set(asked)
        is_usual = not wanted or self.feature_precision is FeaturePrecision.FP16
        maps = sorted(name for name in wanted if is_whole_map(name) and self.is_kept(name))
        return maps if is_usual else [self.feature_precision.value, *maps]

    def is_kept(self, feature: str) -> bool:
        """Whether a feature that an objective asks for is kept."""
        return feature in self.named_features or not is_whole_map(feature)

    @model_validator(mode="after")
    def _no_credentials(self) -> Self:
        # On the whole section, since an error about the key would show what stands there.
        if self.uri is not None and holds_credentials(self.uri):
            raise ValueError(
                "`uri` holds credentials; leave them out and give them in AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or in a profile below ~/.aws"
            )
        return self


class CacheIdentity(Config):
    """All that the teacher's answer to a view depends on; two caches are the same when this is."""

    schema_version: int
    teacher: str = Field(description="sha256 of the teacher's weights and architecture")
    data: str = Field(description="sha256 of the training images and labels")
    split: str = Field(description="sha256 of the sample ids of the training split")
    preprocessing: str = Field(description="sha256 of mean, std and image size")
    seed: int = Field(description="seed of the views")
    n_classes: int = Field(ge=2)
    dtype: Precision
    top_k: int | None = Field(
        None,
        description="logits of each row that precision topk keeps",
        # Left out where it says nothing, so that other caches keep the fingerprints that they always had.
        exclude_if=lambda top_k: top_k is None,
    )
    unlabelled: str | None = Field(
        None,
        description="sha256 of the unlabelled images, whose answers stand behind those of the training split",
        exclude_if=lambda unlabelled: unlabelled is None,
    )


def holds_credentials(uri: str) -> bool:
    """Whether the URI of an object store names a user, as in `s3://key:secret@bucket`."""
    scheme, separator, rest = uri.partition("://")
    return bool(separator) and scheme.lower() != "file" and "@" in rest
