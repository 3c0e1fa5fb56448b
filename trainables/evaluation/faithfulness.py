"""Whether a student says what its teacher says also near images (Lamb et al., 2023, arXiv 2306.04431).

The questions are the paper's: do teacher and student disagree anywhere in a small ball around an image that
the teacher gets right, and is the student as confident there? That is known from its abstract. Inferred here,
and not from the paper: the exact figures (whose confidence, means over samples, the gap of the lowest as a
ratio of means), what is climbed, steps and restarts. The paper's certificates, which bound disagreement from
above, and its training with altered images are left out. All that is found in a ball is found by attack:
there may be worse.
"""

# B = samples in the batch, C = classes (of logits) or channels (of images), H, W = height and width

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.config.base import Config
from trainables.config.faithfulness import BallSearch, ConfidenceOf
from trainables.data import ImageSplit
from trainables.errors import DataError, TrialFailed
from trainables.evaluation.ball_search import BestInBall, Scores
from trainables.models.modes import evaluating
from trainables.seeds import derive_seed, first_by_hash, salt_of
from trainables.tensors import at_least_fp32, memory_format

MAX_BATCH: Final = 1024
"""Images that are attacked together, through both networks, all copies of an image counted ..."""
MAX_BATCH_VALUES: Final = 1 << 22
"""... and the values of their pixels: large images are attacked in smaller batches, for want of memory."""
LEVELS: Final = 255
DISAGREEMENT: Final = "disagreement"
CLIMBED: Final = (
    *("teacher_lowest", "teacher_highest", "student_lowest", "student_highest"),
    *("teacher_surer", "student_surer", "student_leaves", "teacher_leaves"),
)
"""What is attacked: where confidences end, both signs of their gap, both ways to disagree."""

Told = Callable[[int, int], None]
"""Called with the ascents, of all scores at once, that are done and with how many there are."""


class BallFigures(Config):
    """What was found within one radius; at radius 0 it is what the networks say of the images themselves."""

    epsilon: float = Field(description="radius in the maximum norm, in levels of 0 to 255")
    disagreement_at_least: float = Field(
        description="share of samples near which both were found to give different classes: a lower bound"
    )
    confidence_gap_at_least: float = Field(
        description="mean over samples of the largest |p_teacher - p_student| that was found: a lower bound"
    )
    teacher_lowest_found: float = Field(
        description="mean smallest confidence that was found: an upper bound of it"
    )
    teacher_highest_found: float = Field(
        description="mean largest confidence that was found: a lower bound of it"
    )
    student_lowest_found: float
    student_highest_found: float
    relative_gap_of_lowest: float | None = Field(
        description="(teacher_lowest_found - student_lowest_found) / teacher_lowest_found; above 0 the "
        "student is the less confident one; none where the teacher's is 0"
    )


class Faithfulness(Config):
    """Teacher and student compared around samples that the teacher gets right."""

    search: BallSearch
    samples_drawn: int
    samples: int = Field(description="those of them that the teacher gets right; the figures are of these")
    balls: tuple[BallFigures, ...] = Field(description="radius 0 first, then ascending")


class NetworkPair:
    """A teacher and a student of images that are normalised in the same way."""

    def __init__(
        self, teacher: nn.Module, student: nn.Module, *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        """The networks are on one device; mean and std are of each channel, of pixels in [0, 1]."""
        self.networks = (teacher, student)
        self.device = next(student.parameters()).device
        self._formats = tuple(memory_format(network) for network in self.networks)
        self._mean_C11 = torch.tensor(mean, device=self.device)[:, None, None]
        self._std_C11 = torch.tensor(std, device=self.device)[:, None, None]

    def answers(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of teacher and student, BxC and at least fp32, for images with pixels in [0, 1].

        Raises:
            TrialFailed: a logit is not finite.
        """
        shown_BCHW = (images_BCHW - self._mean_C11) / self._std_C11
        teacher_BC, student_BC = (
            at_least_fp32(network(shown_BCHW.contiguous(memory_format=layout)))
            for network, layout in zip(self.networks, self._formats, strict=True)
        )
        if not bool(teacher_BC.isfinite().all() & student_BC.isfinite().all()):
            raise TrialFailed("near an image a network gives logits that are not finite; train it again")
        return teacher_BC, student_BC


def faithfulness(
    pair: NetworkPair, split: ImageSplit, search: BallSearch, told: Told = lambda _done, _total: None
) -> Faithfulness:
    """Compare a teacher and a student in balls around a split's images, both in evaluation mode.

    The same search gives the same figures, on a GPU as far as its convolutions do. None of a larger ball is
    milder than that of a smaller one, since what was found in that is where the next search begins. Modes and
    gradients are as before afterwards.

    Raises:
        DataError: the teacher gets none of the samples right.
        TrialFailed: a logit is not finite.
    """
    drawn = drawn_rows(split, search)
    with contextlib.ExitStack() as modes:
        for network in pair.networks:
            modes.enter_context(evaluating(network))
        rows = drawn[_is_right(pair, split, drawn)]
        if len(rows) == 0:
            raise DataError(
                f"the teacher gets none of {len(drawn)} samples right, and a student can be compared with it "
                "only near those that it does; take more samples, or a better teacher"
            )
        batches = torch.split(rows, _rows_together(split, len(CLIMBED)))
        ascents = len(batches) * len(search.epsilons) * search.restarts
        done = itertools.count(1)
        generator = torch.Generator().manual_seed(derive_seed(search.seed, "faithfulness"))
        found = []
        for rows_B in batches:
            images_BCHW, labels_B = _shown(pair, split, rows_B)
            best = BestInBall(ball_scores(pair, labels_B, search.confidence_of), images_BCHW)
            found.append(_searched(best, search, generator, lambda: told(next(done), ascents)))
    radii = (0.0, *search.epsilons)
    by_radius = [
        {name: torch.cat([each[name] for each in parts]) for name in parts[0]}
        for parts in zip(*found, strict=True)
    ]
    balls = tuple(figures_of(radius, most) for radius, most in zip(radii, by_radius, strict=True))
    return Faithfulness(search=search, samples_drawn=len(drawn), samples=len(rows), balls=balls)


def drawn_rows(split: ImageSplit, search: BallSearch) -> Tensor:
    """Rows (int64, ascending) of the samples that a search looks at; more samples are these and others."""
    ids = split.ids.numpy()
    chosen = first_by_hash(ids, search.samples, salt=salt_of(f"faithfulness/samples/{search.seed}"))
    return torch.from_numpy(np.searchsorted(ids, chosen))


def ball_scores(pair: NetworkPair, labels_B: Tensor, confidence_of: ConfidenceOf) -> Scores:
    """The scores of images that are near others with these labels, once or several times over."""

    def scores(images_NCHW: Tensor) -> Mapping[str, Tensor]:
        labels_N = labels_B.repeat(len(images_NCHW) // len(labels_B))
        return scores_of(*pair.answers(images_NCHW), labels_N, confidence_of)

    return scores


def scores_of(
    teacher_BC: Tensor, student_BC: Tensor, labels_B: Tensor, confidence_of: ConfidenceOf
) -> dict[str, Tensor]:
    """What an attack makes as large as it can, B each; the teacher gives the clean images their labels.

    - `..._highest`, `..._lowest`: log-odds z_y - log Σ_{c≠y} exp z_c, and their negative. They grow with the
      confidence, but their slope does not vanish where it is close to 1.
    - `teacher_surer`, `student_surer`: p_teacher - p_student, and its negative.
    - `student_leaves`: min(m_teacher, -m_student), where m = z_label - max_{c≠label} z_c. Above 0 the teacher
      keeps the label and the student does not. `teacher_leaves` is the other way round.
    - `disagreement`: 1 where the two give different classes, whichever; it has no slope.
    """
    is_label = confidence_of is ConfidenceOf.LABEL
    class_B = labels_B if is_label else teacher_BC.detach().argmax(dim=-1)
    teacher_B, student_B = log_odds(teacher_BC, class_B), log_odds(student_BC, class_B)
    gap_B = teacher_B.sigmoid() - student_B.sigmoid()
    kept_B, followed_B = margins(teacher_BC, labels_B), margins(student_BC, labels_B)
    differ_B = teacher_BC.argmax(dim=-1) != student_BC.argmax(dim=-1)
    return {
        "teacher_lowest": -teacher_B,
        "teacher_highest": teacher_B,
        "student_lowest": -student_B,
        "student_highest": student_B,
        "teacher_surer": gap_B,
        "student_surer": -gap_B,
        "student_leaves": torch.minimum(kept_B, -followed_B),
        "teacher_leaves": torch.minimum(followed_B, -kept_B),
        DISAGREEMENT: differ_B.to(teacher_BC.dtype),
    }


def log_odds(logits_BC: Tensor, class_B: Tensor) -> Tensor:
    """log(p / (1 - p)) of the class's softmax probability p, B."""
    return _own(logits_BC, class_B) - _others(logits_BC, class_B).logsumexp(dim=-1)


def margins(logits_BC: Tensor, class_B: Tensor) -> Tensor:
    """The class's logit less the largest of the others, B."""
    return _own(logits_BC, class_B) - _others(logits_BC, class_B).amax(dim=-1)


def _own(logits_BC: Tensor, class_B: Tensor) -> Tensor:
    return logits_BC.gather(-1, class_B[:, None]).squeeze(-1)


def _others(logits_BC: Tensor, class_B: Tensor) -> Tensor:
    return logits_BC.scatter(-1, class_B[:, None], -torch.inf)


def _is_right(pair: NetworkPair, split: ImageSplit, rows: Tensor) -> Tensor:
    """Whether the teacher gives these samples their labels, on the CPU."""
    parts = [torch.zeros(0, dtype=torch.bool)]
    with torch.no_grad():
        for rows_B in torch.split(rows, _rows_together(split, 1)) if len(rows) else ():
            images_BCHW, labels_B = _shown(pair, split, rows_B)
            parts.append((pair.answers(images_BCHW)[0].argmax(dim=-1) == labels_B).cpu())
    return torch.cat(parts)


def _rows_together(split: ImageSplit, copies: int) -> int:
    """How many samples are attacked at once, with so many copies of each."""
    values = math.prod(split.images.shape[1:])
    return max(min(MAX_BATCH, MAX_BATCH_VALUES // values) // copies, 1)


def _shown(pair: NetworkPair, split: ImageSplit, rows_B: Tensor) -> tuple[Tensor, Tensor]:
    """Images with pixels in [0, 1] and labels of these rows, on the device."""
    return split.images[rows_B].to(pair.device).float() / LEVELS, split.labels[rows_B].to(pair.device)


def _searched(
    best: BestInBall, search: BallSearch, generator: torch.Generator, told: Callable[[], None]
) -> list[dict[str, Tensor]]:
    """The most that was found of each score within each radius, 0 first."""
    found = [best.most]
    for epsilon in search.epsilons:
        best.search(
            CLIMBED,
            epsilon / LEVELS,
            steps=search.steps,
            restarts=search.restarts,
            generator=generator,
            told=told,
        )
        found.append(best.most)
    return found


def figures_of(epsilon: float, most: Mapping[str, Tensor]) -> BallFigures:
    """What the largest scores within a radius (in levels) say, by the names of `scores_of`."""
    most = {name: score_N.double() for name, score_N in most.items()}

    def mean(values_N: Tensor) -> float:
        return float(values_N.mean())

    teacher_lowest, student_lowest = (
        mean((-most[name]).sigmoid()) for name in ("teacher_lowest", "student_lowest")
    )
    return BallFigures(
        epsilon=epsilon,
        disagreement_at_least=mean(most[DISAGREEMENT]),
        confidence_gap_at_least=mean(torch.maximum(most["teacher_surer"], most["student_surer"])),
        teacher_lowest_found=teacher_lowest,
        teacher_highest_found=mean(most["teacher_highest"].sigmoid()),
        student_lowest_found=student_lowest,
        student_highest_found=mean(most["student_highest"].sigmoid()),
        relative_gap_of_lowest=(teacher_lowest - student_lowest) / teacher_lowest if teacher_lowest else None,
    )
