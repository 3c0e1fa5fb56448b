"""The schedulers that a search space may name: which trials stop early, pause, or go on from another."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trainables.config.base import Config, FiniteFloat


class SchedulerBase(Config):
    """What every scheduler tells of itself."""

    pauses: ClassVar[bool] = False
    """It pauses trials until others have come as far, so that all trials are alive at once."""

    def first_decision(self) -> tuple[str, int]:
        """The key that says after how many epochs a trial is first judged, and that number."""
        for key in ("grace_period", "perturbation_interval"):
            if key in type(self).model_fields:
                return key, int(getattr(self, key))
        return "name", 1

    def place_of(self, epoch: int) -> str:
        """In words, where a trial stood that was judged after so many epochs."""
        return f"after epoch {epoch}"


class FifoScheduler(SchedulerBase):
    """Every trial runs all its epochs."""

    name: Literal["fifo"]


class AshaScheduler(SchedulerBase):
    """Asynchronous successive halving (Li et al., 2020): weak trials stop early."""

    name: Literal["asha"]
    grace_period: int = Field(1, ge=1, description="epochs that every trial is given")
    reduction_factor: int = Field(4, ge=2, description="one in so many goes on at each rung")

    def place_of(self, epoch: int) -> str:
        """The same with the rung, counted from 1: rung k is at grace_period · reduction_factor^(k-1)."""
        rung = 1
        while self.grace_period * self.reduction_factor**rung <= epoch:
            rung += 1
        return f"{super().place_of(epoch)}, at rung {rung}"


class HyperBandScheduler(SchedulerBase):
    """HyperBand (Li et al., 2018): brackets of halving, from many short trials to few long ones."""

    pauses = True
    name: Literal["hyperband"]
    reduction_factor: int = Field(3, ge=2, description="one in so many goes on at each rung of a bracket")


class MedianScheduler(SchedulerBase):
    """Median stopping (Golovin et al., 2017): a trial stops whose best lies below the others' median mean."""

    name: Literal["median"]
    grace_period: int = Field(1, ge=1, description="epochs that every trial is given")
    min_samples_required: int = Field(3, ge=1, description="other trials that a median needs")


class PbtScheduler(SchedulerBase):
    """Population based training (Jaderberg et al., 2017): the weak go on from the strong, perturbed.

    A fork copies weights and optimiser state, and the objective's own state, so that what is structural to an
    objective is not perturbed. All trials meet every `perturbation_interval` epochs, so that the same results
    lead to the same forks.
    """

    pauses = True
    name: Literal["pbt"]
    perturbation_interval: int = Field(4, ge=1, description="epochs between two meetings")
    quantile_fraction: FiniteFloat = Field(
        0.25, gt=0, le=0.5, description="share of the weak that go on from as many strong ones"
    )
    resample_probability: FiniteFloat = Field(
        0.25, ge=0, le=1, description="of drawing a value anew instead of multiplying it by 0.8 or 1.2"
    )


Scheduler = Annotated[
    FifoScheduler | AshaScheduler | HyperBandScheduler | MedianScheduler | PbtScheduler,
    Field(discriminator="name"),
]

UNPERTURBED = frozenset({"optimizer", "epochs"})
"""Of the recipe: a fork keeps the optimiser whose state it copies, and the length of its training."""
