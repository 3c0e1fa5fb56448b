"""How near a student's answers to a split are to its teacher's: the same class, and the divergence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.tensors import to_device

# N = samples of the split, B = samples of a batch, C = classes


class BesideTeacher(nn.Module):
    """A student as it is, whose answers are compared with the teacher's while somebody else evaluates it.

    It is asked about each sample of the split once, in the order of the split; nothing is computed twice for
    the comparison but two softmaxes.
    """

    def __init__(self, student: nn.Module, teacher_NC: Tensor) -> None:
        """`teacher_NC` are the teacher's logits, on any device; batches of them follow the student's."""
        super().__init__()
        self.student = student
        self._teacher_NC = teacher_NC
        self._compared: list[Tensor] = []
        self._n_compared = 0

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """The student's own logits, BxC."""
        logits_BC: Tensor = self.student(images_BCHW)
        self.compare(logits_BC.float())
        return logits_BC

    def compare(self, logits_BC: Tensor) -> None:
        """Take in the student's fp32 logits of the next batch, where somebody else asked it."""
        first = self._n_compared
        self._n_compared += len(logits_BC)
        teacher_BC = to_device(self._teacher_NC[first : self._n_compared], logits_BC.device)
        self._compared.append(_compared(logits_BC, teacher_BC.float()))

    def figures(self) -> dict[str, float]:
        """`agreement`, the fraction of the samples to which both give the same class, and `kl_to_teacher`.

        The second is the mean over the samples of KL(p || q) = Σ_c p_c (log p_c - log q_c) in nats, where p
        is the teacher's softmax at temperature 1, and q the student's (Hinton et al., 2015, with T = 1).

        Raises:
            ValueError: not every sample was asked about once.
        """
        if self._n_compared != len(self._teacher_NC):
            raise ValueError(
                f"{self._n_compared} answers of the student beside {len(self._teacher_NC)} of the teacher"
            )
        values = torch.cat(self._compared, dim=1).mean(dim=1).tolist()  # one copy from the device
        return dict(zip(("agreement", "kl_to_teacher"), values, strict=True))


def _compared(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """2xB: whether both give the same class (1 or 0), and the divergence; of fp32 logits."""
    same_B = (student_BC.argmax(dim=-1) == teacher_BC.argmax(dim=-1)).float()
    divergence_BC = F.kl_div(
        student_BC.log_softmax(dim=-1), teacher_BC.log_softmax(dim=-1), reduction="none", log_target=True
    )
    return torch.stack([same_B, divergence_BC.sum(dim=-1)])
