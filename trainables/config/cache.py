"""Where the teacher cache lies and what makes two caches the same."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from trainables.config.base import Config


class Precision(StrEnum):
    """How logits are kept; all but fp32 are z - max(z), with the maximum beside it."""

    FP16 = "fp16"
    FP32 = "fp32"
    INT8 = "int8"
    """256 steps between the smallest and the largest logit of a row."""
    TOPK = "topk"
    """The largest logits in fp16, and the log-sum-exp of all others."""


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
        description="also keep what the teacher's last linear layer is given, as fp16 in files of its own",
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
