"""Views: how a training image is altered before a network sees it, as a list of replayable steps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainables.config.base import Config, FiniteFloat

Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]
Level = Annotated[int, Field(ge=0, le=255)]


class CropFlipStep(Config):
    """Pad with black, crop back to the original size at a random place, mirror at random."""

    op: Literal["crop_flip"]
    padding: int = Field(4, ge=0, le=64, description="pixels added on each side before the crop")
    flip_probability: Probability = Field(0.5, description="chance of a horizontal mirror")


class RandAugmentStep(Config):
    """FixMatch-style RandAugment: operations drawn with replacement from 14, magnitudes uniform."""

    op: Literal["randaugment"]
    operations: int = Field(2, ge=1, le=8, description="operations applied one after the other")


class CutoutStep(Config):
    """Fill a square, whose side is uniform in [0, max_fraction] of the width, at a random centre."""

    op: Literal["cutout"]
    max_fraction: Probability = Field(0.5, description="largest side of the square, as a fraction")
    fill: tuple[Level, Level, Level] = Field((125, 123, 114), description="grey images use the mean")


Step = Annotated[CropFlipStep | RandAugmentStep | CutoutStep, Field(discriminator="op")]
Recipe = tuple[Step, ...]


class BankConfig(Config):
    """A recipe and a number of views of it: epoch e trains on view e mod `views` of each sample."""

    recipe: Recipe = Field((), description="steps in order; an empty list shows the image unchanged")
    views: int = Field(1, ge=1, le=9999, description="distinct views of each sample")


class ViewsConfig(Config):
    """The banks of an experiment; an objective names the ones that it needs."""

    weak: BankConfig = BankConfig()
    strong: BankConfig = BankConfig()

    def bank(self, name: str) -> BankConfig:
        """The bank of that name (`weak` or `strong`)."""
        return {"weak": self.weak, "strong": self.strong}[name]
