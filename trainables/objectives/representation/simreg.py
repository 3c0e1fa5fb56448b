"""Regression of the teacher's embedding by an MLP (SimReg: Navaneet et al., BMVC 2021, arXiv 2201.05131)."""

# B = samples in the batch, D = numbers in the teacher's embedding

from __future__ import annotations

from torch import nn

from trainables.config.objective_base import EMBEDDING
from trainables.config.representation.regression import SimregConfig
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.distances import direction_distance_B
from trainables.objectives.representation.terms.heads import BatchNorm, head_output, width_of
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature


class SimregObjective(StatefulObjective[SimregConfig]):
    """regression_weight · mean over samples of 2 - 2 cos(head(student), teacher) of the embeddings.

    The head is an MLP of `depth` linear layers (`regression_head`), dropped at the end: what counts is the
    embedding before it. The paper has no labels; `ce_weight` above 0 is inferred (the reference's
    CE + lambda L, lambda 1 to 10, is `ce_weight: 1` with `regression_weight` lambda), and so is `kd_weight`.
    At a `ce_weight` of 0 the student's own classifier learns nothing: judge it by its embedding.
    One teacher; the paper's several, with a head each, are left out.
    Terms: `ce`, `kd`, `simreg`.
    """

    def __init__(self, config: SimregConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it does not hold the widths.
        """
        super().__init__(config, setting)
        self.head = regression_head(
            width_of(self.setting.student_shapes, "the student"),
            width_of(self.setting.teacher_shapes, "the teacher"),
            depth=config.depth,
            width_factor=config.width_factor,
        )

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals hold no embedding of student or teacher.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        given_BD = head_output(self.head, student_feature(signals, "weak", EMBEDDING))
        distance = direction_distance_B(given_BD, teacher_feature(signals, "weak", EMBEDDING)).mean()
        return beside_kd(signals, config, {"simreg": (config.regression_weight, distance)})


def regression_head(n_in: int, n_out: int, *, depth: int, width_factor: int) -> nn.Sequential:
    """An MLP from the student's width d to the teacher's, with hidden layers of w = width_factor · d.

    Depth 4 is the paper's: Linear(d, w)-BN-ReLU-Linear(w, d)-Linear(d, w)-BN-ReLU-Linear(w, n_out), nothing
    between the second and the third; 3,678,720 parameters from 512 to 2048 at the factor 2. Depth 2 is
    Linear(d, w)-BN-ReLU-Linear(w, n_out), where the released code has no BN and ReLU, and so is no deeper
    than depth 1; depth 1 is Linear(d, n_out), without a hidden layer.

    Raises:
        ValueError: another depth.
    """
    hidden = width_factor * n_in
    if depth == 1:
        return nn.Sequential(nn.Linear(n_in, n_out))
    if depth == 2:
        return nn.Sequential(*_bent(n_in, hidden), nn.Linear(hidden, n_out))
    if depth == 4:
        return nn.Sequential(
            *_bent(n_in, hidden), nn.Linear(hidden, n_in), *_bent(n_in, hidden), nn.Linear(hidden, n_out)
        )
    raise ValueError(f"found depth {depth}; allowed: 1, 2 and 4")


def _bent(n_in: int, n_out: int) -> tuple[nn.Module, ...]:
    return nn.Linear(n_in, n_out), BatchNorm(n_out), nn.ReLU()
