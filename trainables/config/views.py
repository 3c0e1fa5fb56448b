"""Views: how a training image is altered before a network sees it, as a list of replayable steps."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from trainables.config.base import Config, FiniteFloat

MAX_VIEWS: Final = 9999
Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]
Level = Annotated[int, Field(ge=0, le=255)]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound comes first, not {bounds[0]:g} before {bounds[1]:g}")
    return bounds


Share = Annotated[FiniteFloat, Field(gt=0, le=1)]
Aspect = Annotated[FiniteFloat, Field(ge=0.1, le=10)]


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


class RandomResizedCropStep(Config):
    """Cut out a box of random area and aspect, and stretch it (bilinear) to the size of the image."""

    op: Literal["random_resized_crop"]
    scale: Annotated[tuple[Share, Share], AfterValidator(_ascending)] = Field(
        (0.08, 1.0), description="bounds of the box's area, as a fraction of the image's"
    )
    ratio: Annotated[tuple[Aspect, Aspect], AfterValidator(_ascending)] = Field(
        (3 / 4, 4 / 3), description="bounds of the box's width over its height, in pixels"
    )


class TrivialAugmentStep(Config):
    """TrivialAugment (wide): one operation of 14, its magnitude one of 31 evenly spaced ones."""

    op: Literal["trivial_augment"]


class TurnBy(StrEnum):
    """What decides by how much a rotation turns an image."""

    VIEW = "view"
    RANDOM = "random"


class RotationStep(Config):
    """Turn square images by 0, 90, 180 or 270 degrees anticlockwise."""

    op: Literal["rotation"]
    by: TurnBy = Field(TurnBy.VIEW, description="view v turns by 90 v degrees, or each image at random")


class QuarterTurnStep(Config):
    """Turn square images by so many quarter turns anticlockwise, all alike.

    Nothing is drawn for it, and at the end of a recipe it changes no draw: what is shown is the view of the
    recipe without it, turned.
    """

    op: Literal["quarter_turn"]
    turns: int = Field(1, ge=1, le=3, description="by how many times 90 degrees")


class MixingStep(Config):
    """A step that makes an image of a sample and of another one, and its label of theirs."""

    alpha: FiniteFloat = Field(
        1.0, ge=0.01, le=32, description="the sample's own share is drawn from Beta(alpha, alpha)"
    )
    probability: Probability = Field(1.0, description="chance that a sample is mixed at all")


class MixupStep(MixingStep):
    """Blend the image with another sample's (Zhang et al., 2018)."""

    op: Literal["mixup"]


class CutmixStep(MixingStep):
    """Replace a box of the image by another sample's pixels (Yun et al., 2019)."""

    op: Literal["cutmix"]


Step = Annotated[
    CropFlipStep
    | RandAugmentStep
    | CutoutStep
    | RandomResizedCropStep
    | TrivialAugmentStep
    | RotationStep
    | QuarterTurnStep
    | MixupStep
    | CutmixStep,
    Field(discriminator="op"),
]
Recipe = tuple[Step, ...]


class BankConfig(Config):
    """A recipe and a number of views of it: epoch e trains on view e mod `views` of each sample."""

    recipe: Recipe = Field((), description="steps in order; an empty list shows the image unchanged")
    views: int = Field(1, ge=1, le=MAX_VIEWS, description="distinct views of each sample")

    @property
    def mixes(self) -> str | None:
        """The first step that mixes samples, by its name; none where every image shows one sample."""
        return next((step.op for step in self.recipe if isinstance(step, MixupStep | CutmixStep)), None)

    @property
    def unmixed(self) -> BankConfig:
        """The same without the steps that mix samples, for whoever takes each image to have one label."""
        recipe = tuple(step for step in self.recipe if not isinstance(step, MixupStep | CutmixStep))
        return self if len(recipe) == len(self.recipe) else BankConfig(recipe=recipe, views=self.views)

    def turned(self, turns: int) -> BankConfig:
        """The same views, turned by so many quarter turns; with 0 the bank itself."""
        if turns == 0:
            return self
        recipe = (*self.recipe, QuarterTurnStep(op="quarter_turn", turns=turns))
        return BankConfig(recipe=recipe, views=self.views)


TURNED_BANKS: Final = MappingProxyType(
    {f"{bank}{90 * turns}": (bank, turns) for bank in ("weak", "strong") for turns in (1, 2, 3)}
)
"""The banks that show another one turned, and by how many quarter turns."""


def base_of(bank: str) -> tuple[str, int]:
    """Which bank a bank shows turned, and by how many quarter turns: `weak90` is ("weak", 1).

    A bank that is not turned is its own base, with 0 turns.
    """
    return TURNED_BANKS.get(bank, (bank, 0))


class ViewsConfig(Config):
    """The banks of an experiment; an objective names the ones that it needs.

    Of each bank there are three more, which show its views turned anticlockwise: `weak90`, `weak180`,
    `weak270` and so on. No file states them.
    """

    weak: BankConfig = BankConfig()
    strong: BankConfig = BankConfig()

    def bank(self, name: str) -> BankConfig:
        """The bank of that name: `weak`, `strong`, or one of them turned, such as `weak90`."""
        base, turns = base_of(name)
        return {"weak": self.weak, "strong": self.strong}[base].turned(turns)
