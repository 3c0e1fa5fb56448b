"""The most that ascent finds of some scores around images: of all it looked at, never of the last alone."""

# K = scores, B = images, C = channels, H, W = height and width

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from trainables.evaluation.attacks import Ball

STEP_SHARE: Final = 2.5
"""Steps together go so many radii: from anywhere in a ball to its end, and more (Madry et al., 2018)."""

Scores = Callable[[Tensor], Mapping[str, Tensor]]
"""From BxCxHxW images with pixels in [0, 1] to named scores of them, B each."""


class BestInBall:
    """For each of several scores, the most that was found around each image, and where that was.

    Whatever is looked at counts for every score: the image itself, and each step of each ascent, also of one
    for another score. What is found is a lower bound of what there is.
    """

    def __init__(self, scores: Scores, clean_BCHW: Tensor) -> None:
        """Look at the images themselves."""
        self._scores = scores
        self._clean_BCHW = clean_BCHW
        with torch.no_grad():
            first = scores(clean_BCHW)
        self._names = tuple(first)
        self._most_KB = torch.stack(list(first.values()))
        self._places_KBCHW = torch.stack([clean_BCHW] * len(first))

    @property
    def most(self) -> dict[str, Tensor]:
        """By score, the most that was found so far, B each."""
        return dict(zip(self._names, self._most_KB.clone(), strict=True))

    @property
    def places(self) -> dict[str, Tensor]:
        """By score, the images of which it is the score."""
        return dict(zip(self._names, self._places_KBCHW.clone(), strict=True))

    def search(
        self,
        names: Sequence[str],
        epsilon: float,
        *,
        steps: int,
        restarts: int,
        generator: torch.Generator,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """Climb these scores within epsilon of the images, in `restarts` ascents each.

        The first ascent of a score begins at the best that was found for it so far, so go from small balls to
        large ones; the others begin anywhere in the ball. The scores of an image must depend on no other.

        Args:
            names: scores that have a slope, in this order.
            epsilon: radius in the maximum norm, of pixels in [0, 1]; not below that of an earlier search.
            steps: of each ascent; each changes each pixel by 2.5 epsilon / steps.
            restarts: ascents of each score.
            generator: on the CPU, so that every device begins at the same points.
            told: called after each ascent.
        """
        ball = Ball.around(self._clean_BCHW, epsilon)
        for name in names:
            for restart in range(restarts):
                start_BCHW = self._places_KBCHW[self._names.index(name)].clone()
                if restart > 0:
                    noise_BCHW = torch.rand(self._clean_BCHW.shape, generator=generator).to(self._clean_BCHW)
                    start_BCHW = ball.nearest(self._clean_BCHW + epsilon * (2 * noise_BCHW - 1))
                self._climb(name, start_BCHW, ball, step=STEP_SHARE * epsilon / steps, steps=steps)
                told()

    def _climb(self, name: str, start_BCHW: Tensor, ball: Ball, *, step: float, steps: int) -> None:
        shown_BCHW = start_BCHW
        for _ in range(steps):
            shown_BCHW = shown_BCHW.detach().requires_grad_()
            found = self._scores(shown_BCHW)
            (slope_BCHW,) = torch.autograd.grad(found[name].sum(), shown_BCHW)
            shown_BCHW = shown_BCHW.detach()
            self._keep(shown_BCHW, found)
            shown_BCHW = ball.ascended(shown_BCHW, slope_BCHW, step)
        with torch.no_grad():
            self._keep(shown_BCHW, self._scores(shown_BCHW))

    def _keep(self, shown_BCHW: Tensor, found: Mapping[str, Tensor]) -> None:
        found_KB = torch.stack([found[name].detach() for name in self._names])
        scores, images = (found_KB > self._most_KB).nonzero(as_tuple=True)
        self._most_KB[scores, images] = found_KB[scores, images]
        self._places_KBCHW[scores, images] = shown_BCHW[images]
