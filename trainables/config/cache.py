"""Where the teacher cache lies and what makes two caches the same."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from trainables.config.base import Config


class Precision(StrEnum):
    """How a logit is kept: fp16 of z - max(z) with the maximum beside it, or fp32."""

    FP16 = "fp16"
    FP32 = "fp32"


class CacheConfig(Config):
    """The cache's place and precision."""

    uri: str | None = Field(
        None, description="folder or s3:// of one cache; default: addressed by fingerprint below `out`"
    )
    precision: Precision = Field(Precision.FP16, description="fp16 or fp32")
    batch_size: int = Field(512, ge=1, le=65_536, description="samples in a teacher forward")
    rows_per_shard: int = Field(65_536, ge=16, description="samples in one Parquet file")


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
