"""The shuffle that lets groups of channels hear of each other (Zhang et al., CVPR 2018, section 3.1)."""

from __future__ import annotations

from torch import Tensor, nn

# B = samples in the batch, C = channels, H, W = height and width


class ChannelShuffle(nn.Module):
    """Channel j of group g comes to place j * groups + g: each new group has some of every old one."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The same channels in another order."""
        grouped: Tensor = x_BCHW.unflatten(1, (self.groups, -1))  # type: ignore[no-untyped-call]
        return grouped.transpose(1, 2).flatten(1, 2)

    def extra_repr(self) -> str:
        """For the printed network."""
        return f"groups={self.groups}"
