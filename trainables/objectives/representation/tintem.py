"""The teacher's features, narrowed with their angles kept, as what the student regresses (TinTeM)."""

# B = samples in the batch, P = tokens of an image, N = rows whose angles are compared, T = temperatures
# D = numbers of a student's feature, E = numbers of a teacher's

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from trainables.config.representation.tokens import ImageRow, TintemConfig, TintemLevel
from trainables.errors import TrialFailed
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.heads import head_output
from trainables.objectives.terms.directions import directions
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature
from trainables.tensors import at_least_fp32

TEMPERATURES: Final = tuple(step / 100 for step in range(1, 11))
"""Of the angles, before `tau_scale`."""

_BANK: Final = "weak"


class TintemObjective(StatefulObjective[TintemConfig]):
    """token_weight · L_tok + feature_weight · L_fea + global_weight · L_glob + local_weight · L_loc.

    A head on the teacher's side, LayerNorm and Linear, makes its features as narrow as the student's. It
    learns from L_glob and L_loc alone, which hold the angles between rows; the student learns from L_tok and
    L_fea alone, which hold it to what the head gives (arXiv 2411.15239; the authors' weights are all 1).
    L_glob (`global`): `angle_divergence` of the batch's image rows. The batch is that of a rank; the authors
    gather those of all.
    L_loc (`local`): the mean over images of that of the image's tokens, class token included.
    L_tok (`token`): the mean over images of 1 - cosine of student's and narrowed teacher's image row.
    L_fea (`feature`): the same of all tokens of an image as one vector, class token included.
    An image row is the first token, or with `image_row: mean` the mean over tokens (inferred, for
    transformers without a class token). With `level: embedding` it is the embedding, and L_fea and L_loc are
    not there: this form, for networks of every kind, is inferred. Ours, not the paper's: ce_weight · CE and
    kd_weight · T² KL(teacher ‖ student), both 0 by default. The labels alone, or `kd_weight`, train the
    student's classifier: without them only its features are of use. Terms: those above, `ce` and `kd`.
    """

    def __init__(self, config: TintemConfig, setting: Setting | None = None) -> None:
        """Raises:
        TrialFailed: student and teacher have tokens that do not correspond.
        ValueError: there is no setting, or it lacks the features' shapes.
        """
        super().__init__(config, setting)
        (name,) = config.student_features
        student = _shape(self.setting.student_shapes, name, "student")
        teacher = _shape(self.setting.teacher_shapes, name, "teacher")
        if student[:-1] != teacher[:-1]:
            raise TrialFailed(
                f"level tokens: the student has {_in_words(student)}, the teacher {_in_words(teacher)}; they "
                "need as many: choose their patch sizes and `resolution` so, or `level: embedding`"
            )
        self.narrow = nn.Sequential(nn.LayerNorm(teacher[-1]), nn.Linear(teacher[-1], student[-1]))

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no feature of student or teacher.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        (name,) = config.student_features
        student, teacher = student_feature(signals, _BANK, name), teacher_feature(signals, _BANK, name)
        narrowed = head_output(self.narrow, teacher)
        image, wide, narrow = (self._image_row(each) for each in (student, teacher, narrowed))
        own = {
            "token": (config.token_weight, cosine_distance(image, narrow)),
            "global": (config.global_weight, angle_divergence(wide, narrow, self._taus())),
        }
        if config.level is TintemLevel.TOKENS:
            flat = cosine_distance(student.flatten(1), narrowed.flatten(1))
            local = angle_divergence(teacher, narrowed, self._taus())
            own |= {"feature": (config.feature_weight, flat), "local": (config.local_weight, local)}
        return beside_kd(signals, config, own)

    def _image_row(self, feature: Tensor) -> Tensor:
        """What stands for each image, of its embedding or its tokens."""
        if self.config.level is TintemLevel.EMBEDDING:
            return feature
        return feature.mean(dim=1) if self.config.image_row is ImageRow.MEAN else feature[:, 0]

    def _taus(self) -> tuple[float, ...]:
        return tuple(self.config.tau_scale * temperature for temperature in TEMPERATURES)


def angle_divergence(teacher_ND: Tensor, narrowed_ND: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    """KL(P ‖ Q) of the pairs of rows, mean over temperatures; gradient reaches the narrowed rows alone.

    P is of the teacher's rows: P_ij is proportional to exp(l_ij) + exp(l_ji), l_ij = log softmax over j of
    cos(x_i, x_j) / tau without j = i, and sums to 1 over all i and j; Q is the same of the narrowed rows
    (arXiv 2411.15239). With dimensions before the last two, the mean over these. A row alone has no pairs: 0.
    """
    if narrowed_ND.shape[-2] < 2:
        return 0.0 * at_least_fp32(narrowed_ND).sum()
    with torch.no_grad():
        teacher_log = pair_log_probabilities(teacher_ND, temperatures)
    narrowed_log = pair_log_probabilities(narrowed_ND, temperatures)
    return (teacher_log.exp() * (teacher_log - narrowed_log)).sum(dim=-1).mean()


def pair_log_probabilities(rows_ND: Tensor, temperatures: tuple[float, ...]) -> Tensor:
    """log 2 P_ij of the pairs i < j by temperature, ...xTx(N(N-1)/2), at least in fp32; N is 2 or more.

    P is symmetric and 0 on the diagonal, so those of i < j, times 2, are all of it. The rows of each softmax
    sum to 1, so what P is divided by is 2 N.
    """
    n_rows = rows_ND.shape[-2]
    unit_ND = directions(rows_ND, dim=-1)
    taus_T11 = unit_ND.new_tensor(temperatures)[:, None, None]
    # Autocast would take the product in half precision, and a temperature of 0.01 its errors times 100.
    with torch.autocast(unit_ND.device.type, enabled=False):
        cosines_TNN = (unit_ND @ unit_ND.mT).unsqueeze(-3) / taus_T11
    itself_NN = torch.eye(n_rows, dtype=torch.bool, device=unit_ND.device)
    # -inf meets no other -inf: each row has another entry, and the diagonal is not looked at again.
    mass_TN = cosines_TNN.masked_fill(itself_NN, -torch.inf).logsumexp(dim=-1)
    first, second = torch.triu_indices(n_rows, n_rows, offset=1, device=unit_ND.device)
    either_TM = torch.logaddexp(-mass_TN[..., first], -mass_TN[..., second])
    return cosines_TNN[..., first, second] + either_TM - torch.log(unit_ND.new_tensor(float(n_rows)))


def cosine_distance(student_BD: Tensor, narrowed_BD: Tensor) -> Tensor:
    """1 - cosine of each row with the narrowed teacher's, mean over rows; gradient for the student alone."""
    cosine_B = (directions(student_BD, dim=-1) * directions(narrowed_BD.detach(), dim=-1)).sum(dim=-1)
    return (1 - cosine_B).mean()


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, whose: str) -> tuple[int, ...]:
    if name not in shapes:
        raise ValueError(
            f"tintem is made for the shape of the {whose}'s feature {name!r}; give it in the setting"
        )
    return shapes[name]


def _in_words(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} tokens of {shape[1]} numbers"
