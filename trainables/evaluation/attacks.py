"""Adversarial images: projected gradient ascent on a network's loss (Madry et al., ICLR 2018)."""

# B = samples, C = classes (of targets) or channels (of images), H, W = height and width

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config.objectives import Attack
from trainables.data import ImageSplit
from trainables.models.modes import evaluating
from trainables.tensors import at_least_fp32
from trainables.views.normalise import normalise


@dataclass(frozen=True)
class Ball:
    """Images within epsilon of clean ones in the maximum norm, whose pixels are all within [0, 1]."""

    lower_BCHW: Tensor
    upper_BCHW: Tensor

    @classmethod
    def around(cls, clean_BCHW: Tensor, epsilon: float) -> Self:
        """The ball of this radius; pixels are in [0, 1], and so is epsilon."""
        return cls((clean_BCHW - epsilon).clamp(min=0), (clean_BCHW + epsilon).clamp(max=1))

    def nearest(self, images_BCHW: Tensor) -> Tensor:
        """The images of the ball that are nearest to these."""
        return torch.clamp(images_BCHW, self.lower_BCHW, self.upper_BCHW)

    def ascended(self, shown_BCHW: Tensor, slope_BCHW: Tensor, step: float) -> Tensor:
        """The images after one step of this size, in each pixel, up the slope."""
        return self.nearest(shown_BCHW + step * slope_BCHW.sign())


class Attacker:
    """Attacks images that are normalised by a data set's mean and standard deviation of each channel."""

    def __init__(
        self, attack: Attack, *, mean: Sequence[float], std: Sequence[float], device: torch.device
    ) -> None:
        """The numbers of each channel, as `normalise` takes them."""
        self.attack = attack
        self._mean_C11 = torch.tensor(mean, device=device)[:, None, None]
        self._std_C11 = torch.tensor(std, device=device)[:, None, None]

    def attacked(self, network: Callable[[Tensor], Tensor], images_BCHW: Tensor, target_BC: Tensor) -> Tensor:
        """The images, each pixel changed by at most epsilon and within [0, 1], without gradient.

        The network's cross-entropy to `target_BC`, probabilities, goes up. A random start comes from torch's
        global generator. The gradients of the network's parameters stay as they are. Put the network in
        evaluation mode before, so that its statistics do so too.
        """
        attack = self.attack
        if attack.epsilon == 0:
            return images_BCHW
        clean_BCHW = images_BCHW * self._std_C11 + self._mean_C11
        ball = Ball.around(clean_BCHW, attack.epsilon)
        shown_BCHW = clean_BCHW
        if attack.random_start:
            noise_BCHW = 2 * torch.rand_like(clean_BCHW) - 1
            shown_BCHW = ball.nearest(clean_BCHW + attack.epsilon * noise_BCHW)
        for _ in range(attack.steps):
            slope_BCHW = self._slope(network, shown_BCHW, target_BC)
            shown_BCHW = ball.ascended(shown_BCHW, slope_BCHW, attack.step)
        return (shown_BCHW - self._mean_C11) / self._std_C11

    def _slope(self, network: Callable[[Tensor], Tensor], shown_BCHW: Tensor, target_BC: Tensor) -> Tensor:
        shown_BCHW = shown_BCHW.detach().requires_grad_()
        logits_BC = network((shown_BCHW - self._mean_C11) / self._std_C11)
        log_BC = F.log_softmax(at_least_fp32(logits_BC), dim=-1)
        (slope_BCHW,) = torch.autograd.grad(-(target_BC * log_BC).sum(), shown_BCHW)
        return slope_BCHW


def attack_target(labels_B: Tensor, teacher_BC: Tensor | None, *, share: float, n_classes: int) -> Tensor:
    """BxC probabilities: the labels, and the teacher's answer in its share, where there is one."""
    one_hot_BC = F.one_hot(labels_B, n_classes).float()
    if teacher_BC is None or share == 0:
        return one_hot_BC
    return (1 - share) * one_hot_BC + share * at_least_fp32(teacher_BC.detach()).softmax(dim=-1)


def accuracy_under_attack(
    model: nn.Module,
    split: ImageSplit,
    attack: Attack,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
) -> float:
    """The fraction of a split that a network still gets right when each image is led away from its label.

    An attack finds some worst case, not the worst: the figure is an upper bound. The model's modes are as
    before afterwards.
    """
    device = next(model.parameters()).device
    attacker, n_correct = Attacker(attack, mean=mean, std=std, device=device), 0
    labels = torch.split(split.labels, batch_size)
    with evaluating(model):
        for batch, labels_B in zip(split.batches(batch_size), labels, strict=True):
            images, labels_B = normalise(batch.to(device), mean, std), labels_B.to(device)
            with torch.no_grad():
                n_classes = model(images).shape[-1]
            shown = attacker.attacked(model, images, F.one_hot(labels_B, n_classes).float())
            with torch.no_grad():
                n_correct += int((model(shown).argmax(dim=-1) == labels_B).sum())
    return n_correct / len(split.labels)
