"""The teacher itself, which answers for rows of a view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from trainables.config import Recipe
from trainables.data import TrainingData
from trainables.errors import CacheError
from trainables.signals import TeacherClassifier
from trainables.teacher.features import TeacherFeatures, teacher_classifier
from trainables.views.normalise import normalise
from trainables.views.showing import show_any


@dataclass(frozen=True)
class Answers:
    """What the teacher says about rows of a view, on the CPU."""

    logits_BC: Tensor
    """fp32."""
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """fp32, a row for each image, by name: those that were asked for."""


class LiveTeacher:
    """A teacher in evaluation mode that answers for views of training split and unlabelled images."""

    def __init__(
        self,
        module: nn.Module,
        data: TrainingData,
        *,
        seed: int,
        batch_size: int,
        device: torch.device,
        stated: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Move the module to the device and put it in evaluation mode.

        `seed` is that of the views; `stated` is what the experiment file says of features, module paths by
        name.
        """
        self._module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._module.eval()
        self._data = data
        self._seed = seed
        self._batch_size = batch_size
        self._device = device
        self._stated = stated
        self._taps: dict[tuple[str, ...], TeacherFeatures] = {}

    def classifier(self) -> TeacherClassifier:
        """The weights of the teacher's last linear layer, on the CPU.

        Raises:
            CacheError: it has none with an output for each class.
        """
        return teacher_classifier(self._module, len(self._data.classes))

    def feature_shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The shape of one row of each of these features, for images of the data's size.

        Raises:
            CacheError: the teacher has no such feature.
        """
        return dict(self._tap(tuple(names)).shapes)

    def logits(self, recipe: Recipe, view: int, rows_B: Tensor) -> Tensor:
        """BxC float32 logits, on the CPU, of these rows as the view shows them.

        Rows count through the training split, and through unlabelled images behind it.

        Raises:
            CacheError: the teacher's output is not one logit per class.
        """
        return self.answers(recipe, view, rows_B).logits_BC

    def answers(self, recipe: Recipe, view: int, rows_B: Tensor, features: Sequence[str] = ()) -> Answers:
        """Logits, and the features that are asked for by name, of the same pass.

        Raises:
            CacheError: the teacher's output is not one logit per class, or it has no such feature.
        """
        mean, std = self._data.mean, self._data.std
        shown = (normalise(images, mean, std) for images in self._shown(recipe, view, rows_B))
        return self._answers(shown, len(rows_B), tuple(features))

    def answers_about(self, images_BCHW: Tensor, features: Sequence[str] = ()) -> Answers:
        """The same about images that are normalised already, on the teacher's device.

        Raises:
            CacheError: as for `answers`.
        """
        chunks = torch.split(images_BCHW, self._batch_size)
        return self._answers(iter(chunks), len(images_BCHW), tuple(features))

    def _answers(self, batches: Iterator[Tensor], n_images: int, names: tuple[str, ...]) -> Answers:
        tap = self._tap(names) if names else None
        # Filled in place: a list of chunks would be joined at twice the memory.
        logits_BC = torch.empty(n_images, len(self._data.classes))
        shapes = tap.shapes if tap is not None else {}
        features = {name: torch.empty(n_images, *shape) for name, shape in shapes.items()}
        # TF32 rounds every factor to eleven bits; over a deep network that costs more than fp16 in the cache.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for first, images in zip(range(0, n_images, self._batch_size), batches, strict=True):
                part = slice(first, first + self._batch_size)
                if tap is None:
                    logits_BC[part] = self._forward(images)
                    continue
                logits_BC[part], found = tap.during(partial(self._forward, images))
                for name, given in found.items():
                    features[name][part] = given
        return Answers(logits_BC, features)

    def _tap(self, names: tuple[str, ...]) -> TeacherFeatures:
        if names not in self._taps:
            self._taps[names] = TeacherFeatures(
                self._module,
                names,
                n_classes=len(self._data.classes),
                input_shape=self._data.train.image_shape,
                device=self._device,
                stated=self._stated,
            )
        return self._taps[names]

    def _shown(self, recipe: Recipe, view: int, rows_B: Tensor) -> Iterator[Tensor]:
        """The view's images, batch by batch."""
        parts = self._data.parts

        def shown(chunk_B: Tensor) -> Tensor:
            return show_any(parts, chunk_B, recipe, seed=self._seed, view=view, device=self._device)

        return self._data.each(shown, torch.split(rows_B, self._batch_size))

    def _forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BC: Tensor = self._module(images_BCHW.contiguous(memory_format=torch.channels_last))
        wanted = (len(images_BCHW), len(self._data.classes))
        if logits_BC.shape != wanted:
            raise CacheError(
                f"the teacher gives an output of shape {tuple(logits_BC.shape)} for {wanted[0]} images; "
                f"logits of shape {wanted} are needed, one per class of the data set"
            )
        return logits_BC.float().cpu()
