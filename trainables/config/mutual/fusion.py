"""Hyper-parameters of MFEF."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainables.config.mutual.peers import WithPeers
from trainables.config.objective_base import Temperature, Weight
from trainables.config.representation.bases import LAST_MAP
from trainables.config.schedules import ramp_up


class MfefConfig(WithPeers):
    """MFEF (Zou et al., 2022), reconstructed: networks learn from a fusion of what their last maps hold.

    No code of the authors was released, and the paper leaves much open: all but the idea is inferred.
    """

    keeps_state = True
    paper = "Zou et al., 2022, arXiv 2206.08224 (reconstruction)"
    structural = ("peers", "groups")

    name: Literal["mfef"] = "mfef"
    kd_weight: Weight = Field(1.0, description="of what the fusion teaches, and of what it is taught")
    temperature: Temperature = 3.0
    groups: int = Field(
        4,
        ge=1,
        le=64,
        description="of a last map's channels; where so many do not divide them, as many as divide both",
    )
    ramp_epochs: int = Field(
        0, ge=0, le=10_000, description="epochs over which kd_weight rises in an S-curve; 0: none"
    )

    @property
    def student_features(self) -> tuple[str, ...]:
        """The last feature map."""
        return (LAST_MAP,)

    def varying(self, epoch: int, epochs: int | None) -> dict[str, float]:
        """`ramp`, the factor of kd_weight: exp(-5 (1 - e/R)²) in epoch e (counted from 0) of R, then 1."""
        if self.ramp_epochs == 0:
            return {}
        return {"ramp": ramp_up(epoch, self.ramp_epochs)}
