"""The most that ascent finds of some scores around images: of all it looked at, never of the last alone."""

# S = scores, K = those that are climbed, B = images, N = K x B, C = channels, H, W = height and width

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from trainables.evaluation.attacks import Ball

STEP_SHARE: Final = 2.5
"""Steps together go so many radii: from anywhere in a ball to its end, and more (Madry et al., 2018)."""

Scores = Callable[[Tensor], Mapping[str, Tensor]]
"""From NxCxHxW images with pixels in [0, 1] to named scores of them, N each.

The images are those around the B clean ones in their order, once or several times over.
"""


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
        self._most_SB = torch.stack(list(first.values()))
        self._places_SBCHW = torch.stack([clean_BCHW] * len(first))

    @property
    def most(self) -> dict[str, Tensor]:
        """By score, the most that was found so far, B each."""
        return dict(zip(self._names, self._most_SB.clone(), strict=True))

    @property
    def places(self) -> dict[str, Tensor]:
        """By score, the images of which it is the score."""
        return dict(zip(self._names, self._places_SBCHW.clone(), strict=True))

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

        All scores are climbed at once, in one batch of as many copies of the images. The first ascent of a
        score begins at the best that was found for it so far, so go from small balls to large ones; the
        others begin anywhere in the ball. The scores of an image must depend on no other.

        Args:
            names: scores that have a slope.
            epsilon: radius in the maximum norm, of pixels in [0, 1]; not below that of an earlier search.
            steps: of each ascent; each changes each pixel by 2.5 epsilon / steps.
            restarts: ascents of each score.
            generator: on the CPU, so that every device begins at the same points.
            told: called after each ascent of all scores.
        """
        ball = Ball.around(self._clean_BCHW, epsilon)
        for restart in range(restarts):
            starts_KBCHW = self._places_SBCHW[[self._names.index(name) for name in names]]
            if restart > 0:
                noise_KBCHW = torch.rand(starts_KBCHW.shape, generator=generator).to(starts_KBCHW)
                starts_KBCHW = ball.nearest(self._clean_BCHW + epsilon * (2 * noise_KBCHW - 1))
            self._climb(names, starts_KBCHW, ball, step=STEP_SHARE * epsilon / steps, steps=steps)
            told()

    def _climb(
        self, names: Sequence[str], shown_KBCHW: Tensor, ball: Ball, *, step: float, steps: int
    ) -> None:
        for _ in range(steps):
            shown_KBCHW = shown_KBCHW.detach().requires_grad_()
            found = self._found(shown_KBCHW)
            climbed = torch.stack([found[name][own] for own, name in enumerate(names)])
            (slope_KBCHW,) = torch.autograd.grad(climbed.sum(), shown_KBCHW)
            shown_KBCHW = shown_KBCHW.detach()
            self._keep(shown_KBCHW, found)
            shown_KBCHW = ball.ascended(shown_KBCHW, slope_KBCHW, step)
        with torch.no_grad():
            self._keep(shown_KBCHW, self._found(shown_KBCHW))

    def _found(self, shown_KBCHW: Tensor) -> dict[str, Tensor]:
        """Every score of every image, KxB each."""
        found = self._scores(shown_KBCHW.flatten(0, 1))
        return {name: score_N.view(shown_KBCHW.shape[:2]) for name, score_N in found.items()}

    def _keep(self, shown_KBCHW: Tensor, found: Mapping[str, Tensor]) -> None:
        found_SKB = torch.stack([found[name].detach() for name in self._names])
        found_SB, copies_SB = found_SKB.max(dim=1)
        scores, images = (found_SB > self._most_SB).nonzero(as_tuple=True)
        self._most_SB[scores, images] = found_SB[scores, images]
        self._places_SBCHW[scores, images] = shown_KBCHW[copies_SB[scores, images], images]
