"""Features judged by the teacher's classifier (SRD: Yang et al., IJCV 2024, arXiv 2205.06701)."""

# B = samples in the batch, D = numbers in the teacher's embedding, S = in the student's, C = classes

from __future__ import annotations

from torch import Tensor, nn

from trainables.config.objective_base import EMBEDDING
from trainables.config.representation.bases import LAST_MAP
from trainables.config.representation.regression import Activation, SrdConfig, SrdSource
from trainables.errors import TrialFailed
from trainables.objectives.representation.terms.composition import beside_kd
from trainables.objectives.representation.terms.distances import squared_distance
from trainables.objectives.representation.terms.frozen_classifier import FrozenClassifier
from trainables.objectives.representation.terms.heads import BatchNorm, head_output, width_of
from trainables.signals import Losses, Setting, Signals, StatefulObjective, student_feature, teacher_feature


class SrdObjective(StatefulObjective[SrdConfig]):
    """ce_weight · CE + alpha · mean of (W x + b - teacher logits)² + beta · mean of (x - teacher embedding)².

    x is the mean over positions of ReLU(BN(1x1 convolution)) of the student's last feature map, as wide as
    the teacher's embedding; W and b are the teacher's last linear layer, frozen. Both terms need no label, so
    unlabelled images add to them, whatever they show. The layers are dropped: the student keeps its own
    classifier. Neither is a softmax, so the teacher's logits must be its own, and not up to a constant.
    `level: embedding` (inferred) takes ReLU(BN(linear)) of the student's embedding, and so does `auto` where
    the student has no map, as transformers have none.
    `activation: none` (inferred) leaves out the ReLU, which can give no negative number.
    Not the method of the same short name about the role of the projector (AAAI 2024).
    Terms: `ce`, `kd`, `srd_logits`, `srd_embedding`.
    """

    def __init__(self, config: SrdConfig, setting: Setting | None = None) -> None:
        """Raises:
        ValueError: there is no setting, or it does not hold classifier and widths.
        TrialFailed: the student has no such map, or the classifier is not as wide as the embedding.
        """
        super().__init__(config, setting)
        self.classifier = FrozenClassifier(self.setting, "srd")
        width = width_of(self.setting.teacher_shapes, "the teacher")
        if width != self.classifier.width:
            raise TrialFailed(
                f"the teacher's embedding has {width} numbers, its classifier takes {self.classifier.width}; "
                "srd needs a teacher whose last linear layer takes its embedding"
            )
        shapes = self.setting.student_shapes
        has_map = LAST_MAP in shapes if config.level is SrdSource.AUTO else config.level is SrdSource.MAP
        self.feature = LAST_MAP if has_map else EMBEDDING
        activation = nn.ReLU() if config.activation is Activation.RELU else nn.Identity()
        self.head = semantic_head(shapes.get(self.feature), width, activation, on_map=has_map)

    def forward(self, signals: Signals) -> Losses:
        """The losses of one step; only `total` carries gradient.

        Raises:
            ValueError: the signals lack a feature.
        """
        config = self.config.at(signals.epoch, signals.epochs)
        taught_BD = teacher_feature(signals, "weak", EMBEDDING)
        seen_BD = pooled(head_output(self.head, student_feature(signals, "weak", self.feature)))
        of_logits = squared_distance(self.classifier(seen_BD), signals.teacher["weak"].logits_BC)
        of_embedding = squared_distance(seen_BD, taught_BD)
        own = {
            "srd_logits": (config.alpha, of_logits),
            "srd_embedding": (config.beta, of_embedding),
        }
        return beside_kd(signals, config, own)


def semantic_head(
    shape: tuple[int, ...] | None, width: int, activation: nn.Module, *, on_map: bool
) -> nn.Sequential:
    """From a sample's feature of that shape to maps, or an embedding, as wide as the teacher's embedding.

    Of a map (channels, height, width) a 1x1 convolution without bias, of an embedding a linear layer without
    bias, then batch norm and the activation.

    Raises:
        ValueError: there is no shape.
        TrialFailed: the feature is no map, or no embedding.
    """
    if shape is None:
        raise ValueError(
            "the setting has no shape of the student's feature; give it those that are asked for"
        )
    if on_map:
        if len(shape) != 3:
            raise TrialFailed(
                f"the student's last feature has the shape {shape}, not channels, height and width; "
                "set objective srd's `level: embedding`"
            )
        first: nn.Module = nn.Conv2d(shape[0], width, 1, bias=False)
    else:
        if len(shape) != 1:
            raise TrialFailed(
                f"the student's embedding has the shape {shape} for a sample; srd takes one vector: give "
                "the student a last linear layer on a pooled embedding, or set `level: map`"
            )
        first = nn.Linear(shape[0], width, bias=False)
    return nn.Sequential(first, BatchNorm(width), activation)


def pooled(feature: Tensor) -> Tensor:
    """BxD: the mean over the positions of maps BxDxHxW; an embedding BxD as it is."""
    return feature.flatten(2).mean(dim=-1) if feature.dim() > 2 else feature
