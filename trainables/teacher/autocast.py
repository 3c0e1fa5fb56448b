"""A teacher that computes in bfloat16, as a teacher of its own: its answers are not those of fp32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.config import digest_of

# B = images in a batch, C = classes


class AutocastTeacher(nn.Module):
    """A network under bf16 autocast; its logits come out as float32."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network; both share their weights."""
        super().__init__()
        self.network = network

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """BxC logits."""
        with torch.autocast(images_BCHW.device.type, dtype=torch.bfloat16):
            logits_BC: Tensor = self.network(images_BCHW)
        return logits_BC.float()


def autocast_digest(teacher: str) -> str:
    """The identity of the teacher of this digest when it computes in bf16."""
    return digest_of([teacher, "bf16 autocast"])
