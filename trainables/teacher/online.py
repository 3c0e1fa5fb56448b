"""The teacher in the place of a cache: it answers for each batch when the batch is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.cache.format.logit_encoding import encode_logits
from trainables.config import Precision, ViewsConfig
from trainables.signals import TeacherClassifier, TeacherSignal
from trainables.teacher.live import Answers, LiveTeacher

# B = samples in the batch, C = channels, H, W = height and width


class OnlineTeacher:
    """Says of each view what an fp32 cache of the same teacher would say; each answer costs a pass."""

    def __init__(self, live: LiveTeacher, views: ViewsConfig) -> None:
        """`views` are those that the student sees."""
        self._live = live
        self._views = views

    def classifier(self) -> TeacherClassifier:
        """The weights of the teacher's last linear layer, on the CPU.

        Raises:
            CacheError: it has none with an output for each class.
        """
        return self._live.classifier()

    def feature_shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The shape of one row of each of these features.

        Raises:
            CacheError: the teacher has no such feature.
        """
        return self._live.feature_shapes(names)

    def signal(self, bank: str, view: int, rows_B: Tensor, features: Sequence[str] = ()) -> TeacherSignal:
        """What the teacher says about these rows (int64) of the training split, on the CPU.

        Raises:
            CacheError: the teacher's output is not one logit per class, or not finite; or it has no such
                feature.
        """
        recipe = self._views.bank(bank).recipe
        answers = self._live.answers(recipe, view, rows_B.cpu(), features)
        return _signal_of(answers, rows_B, where=f"bank {bank}, view {view}")

    def signal_about(
        self, images_BCHW: Tensor, rows_B: Tensor, features: Sequence[str] = ()
    ) -> TeacherSignal:
        """What the teacher says, on the CPU, about normalised images that were made of these rows.

        It is asked as it is about views: of a view's own images it says the same.

        Raises:
            CacheError: the teacher's output is not one logit per class, or not finite; or it has no such
                feature.
        """
        answers = self._live.answers_about(images_BCHW, features)
        return _signal_of(answers, rows_B, where="images as the student sees them")


def _signal_of(answers: Answers, rows_B: Tensor, *, where: str) -> TeacherSignal:
    # By the cache's own sums: a last bit could carry a sample across a threshold.
    encoded = encode_logits(answers.logits_BC.numpy(), rows_B.cpu().numpy(), Precision.FP32, where=where)
    return TeacherSignal(answers.logits_BC, torch.from_numpy(encoded.confidence_B), answers.features)
