"""A small network with all that quantisation has to look at: batch norm, a shortcut, a ReLU called twice."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """A stem, a block with a shortcut, pooling and a linear layer; its one ReLU is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.relu(self.bn1(self.conv1(images)))
        logits: Tensor = self.fc(self.relu(self.conv2(stem) + stem).mean(dim=(2, 3)))
        return logits
