"""Hyper-parameters that objectives of several networks share, and those of DML."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from trainables.config.objective_base import ObjectiveBase, Temperature, Weight

MAX_PEERS: Final = 16

Peers = Annotated[
    Annotated[int, Field(ge=2, le=MAX_PEERS)]
    | Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,59}$")],
    Field(
        description="networks that are trained together, the student included; or the name of a list of the "
        "others in the experiment's `peers`",
    ),
]


class WithPeers(ObjectiveBase):
    """What trains several networks together, all on the weak view, without a teacher."""

    banks: ClassVar[tuple[str, ...]] = ("weak",)
    teacher_banks: ClassVar[tuple[str, ...]] = ()
    with_peers: ClassVar[bool] = True
    structural: ClassVar[tuple[str, ...]] = ("peers",)

    peers: Peers = 2

    @property
    def n_networks(self) -> int:
        """`peers`, or two where the experiment lists the others."""
        return self.peers if isinstance(self.peers, int) else 2


class PeersTarget(StrEnum):
    """What a network of DML learns from the others."""

    EACH = "each"
    """The answer of each of them: one divergence for each."""
    MEAN = "mean"
    """The mean of their probabilities: one divergence; the paper found it worse."""


class PeersWeight(StrEnum):
    """How the divergences from several peers come together."""

    MEAN = "mean"
    """Divided by their number, as in the paper."""
    SUM = "sum"
    """Not divided, as in the released code."""


class DmlConfig(WithPeers):
    """DML (Zhang et al., CVPR 2018): networks learn from the labels and from each other's answers."""

    paper = "Zhang et al., CVPR 2018, arXiv 1706.00384"

    name: Literal["dml"] = "dml"
    kl_weight: Weight = 1.0
    temperature: Temperature = Field(
        1.0,
        description="of both answers; the divergence is times its square, as KD's (the paper has 1 alone)",
    )
    target: PeersTarget = Field(
        PeersTarget.EACH, description="each: the answer of each peer; mean: the mean of their probabilities"
    )
    over_peers: PeersWeight = Field(
        PeersWeight.MEAN, description="mean: divided by the number of peers (paper); sum: not (released code)"
    )
