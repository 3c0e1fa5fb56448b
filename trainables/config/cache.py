"""Where the teacher cache lies and what makes two caches the same."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

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


def holds_credentials(uri: str) -> bool:
    """Whether the URI of an object store names a user, as in `s3://key:secret@bucket`."""
    scheme, separator, rest = uri.partition("://")
    return bool(separator) and scheme.lower() != "file" and "@" in rest
