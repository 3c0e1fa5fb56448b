"""What is taken from within a teacher's network: features by name, and the weights of its last layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from trainables.config.objective_base import EMBEDDING
from trainables.errors import CacheError
from trainables.models.cosine import CosineClassifier
from trainables.models.embedding import classifier_of
from trainables.models.features import FeatureTap
from trainables.models.foreign.aligned import Aligned, n_outputs_of
from trainables.signals import TeacherClassifier
from trainables.teacher.autocast import AutocastTeacher

# B = images, C = classes, D = numbers in an embedding, O = outputs of the network


class TeacherFeatures:
    """Reads named features off each call of a teacher: `trainables.models.features` says which there are."""

    shapes: Mapping[str, tuple[int, ...]]
    """By name, of one image."""

    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        *,
        n_classes: int,
        input_shape: tuple[int, int, int],
        device: torch.device,
        stated: Mapping[str, str],
    ) -> None:
        """`n_classes` are those of the data, `stated` module paths by name from the experiment file.

        Raises:
            CacheError: the network has no such feature; it says which it has.
        """
        network = module.network if isinstance(module, AutocastTeacher) else module
        try:
            self._tap = FeatureTap(
                network,
                names,
                n_classes=n_classes,
                input_shape=input_shape,
                device=device,
                stated=stated,
                error=CacheError,
            )
        except CacheError as error:
            raise CacheError(f"the teacher: {error}") from error
        self.shapes = self._tap.shapes
        self._classifier = None
        if EMBEDDING in names and EMBEDDING not in stated:
            self._classifier = classifier_of(network, n_outputs_of(network, n_classes))

    def during(self, call: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """What a call gives, and the features of its images by name, in fp32 on the network's device.

        Raises:
            CacheError: the network gave a feature other than once, or not one row for each image.
        """
        given: list[tuple[int, ...]] = []
        handle = None
        if self._classifier is not None:
            handle = self._classifier.register_forward_pre_hook(
                lambda _part, args: given.append(tuple(args[0].shape))
            )
        try:
            logits_BC, tapped = self._tap.during(call)
        finally:
            if handle is not None:
                handle.remove()
        if len(given) > 1:
            raise CacheError(
                f"the teacher's classifier was given inputs of shapes {given} for {len(logits_BC)} images, "
                "not one vector for each; name the part that gives the embedding, beside the name of the "
                "teacher's model, as `features: {embedding: PATH}`, or do without it"
            )
        for name, feature in tapped.items():
            if feature.shape != (len(logits_BC), *self.shapes[name]):
                raise CacheError(
                    f"the teacher gives {name} of shape {tuple(feature.shape)} for {len(logits_BC)} images "
                    f"instead of {self.shapes[name]} for each; do without it"
                )
        return logits_BC, {name: feature.float() for name, feature in tapped.items()}


def teacher_classifier(module: nn.Module, n_classes: int) -> TeacherClassifier:
    """Weights and bias of the layer that gives the logits of the data's classes, on the CPU.

    Raises:
        CacheError: the network has no linear layer with an output for each of its classes.
    """
    layer = classifier_of(module, n_outputs_of(module, n_classes))
    if isinstance(layer, CosineClassifier):
        raise CacheError(
            "the teacher's last layer is a cosine classifier, whose logits are no linear function of the "
            "embedding; an objective of the space needs the weights of a linear one"
        )
    weight_OD = layer.weight.detach().float().cpu()
    bias_O = torch.zeros(len(weight_OD)) if layer.bias is None else layer.bias.detach().float().cpu()
    order = next((part for part in module.modules() if isinstance(part, Aligned)), None)
    rows_C = torch.arange(len(weight_OD)) if order is None else torch.tensor(order.classes.rows)
    return TeacherClassifier(weight_OD[rows_C], bias_O[rows_C])
