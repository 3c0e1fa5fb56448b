"""The workbench: what stays loaded in a worker between trials, so that a trial costs its training only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from trainables.cache.format.identity import make_identity, require_identity
from trainables.cache.node.reader import CacheReader
from trainables.config import ViewsConfig
from trainables.config.metrics import RankBy
from trainables.config.views import base_of
from trainables.data import ImageSplit, TrainingData
from trainables.data.splits import by_part, rows_of_parts, split_facts
from trainables.evaluation.beside_teacher import BesideTeacher
from trainables.evaluation.confusion import Answers, labelled_answers
from trainables.evaluation.features_worth import Shown, feature_figures
from trainables.evaluation.metrics import answers, evaluate
from trainables.evaluation.together import accuracies
from trainables.signals import Mixing, TeacherSignal
from trainables.tensors import to_device
from trainables.training.capture.recorders import Recorder, recorder_for
from trainables.training.loaded.shown_images import Room, ShownImages
from trainables.training.loaded.teacher_answers import Source, TeacherAnswers, cache_of
from trainables.views.normalise import normalise
from trainables.views.rotation import quarter_turned, require_square

RENDER_BUDGET_BYTES = 1 << 30
COMPARED_BYTES = 256 << 20
"""So much of a device goes to the teacher's logits of the selection split."""
GPU_SHARE = 8
"""One part in so many of a GPU's free memory goes to views, and as much to signals: slots may share it."""

# M = training samples and unlabelled ones, B = samples in the batch, C = channels, H, W = height and width


@dataclass(frozen=True)
class _Batch:
    """What a bank showed of some rows."""

    bank: str
    view: int
    rows_B: Tensor
    images_BCHW: Tensor


class Workbench:
    """Training data, views and teacher signals on one device, indexed by row.

    Rows count through the training split, and through unlabelled images behind it. Rendered views (see
    `ShownImages`), and as much again of teacher signals, are kept as long as they fit in
    `render_budget_bytes`; beyond that a batch is rendered, or gathered from the cache's files, when it is
    needed.
    """

    def __init__(
        self,
        data: TrainingData,
        views: ViewsConfig,
        *,
        view_seed: int,
        device: torch.device,
        cache: Source | None = None,
        render_budget_bytes: int = RENDER_BUDGET_BYTES,
    ) -> None:
        """Put the data on the device; views and signals follow when they are first asked for.

        An online teacher stands in for the cache, and is asked anew each time.

        Raises:
            CacheError: the cache was made for other data or other views, so its rows are other images.
        """
        if (reader := cache_of(cache)) is not None:
            _refuse_foreign(reader, data, view_seed)
        self.data = data
        self.views = views
        self.device = device
        self.labels_N = data.labels_M.to(device)
        room = Room(render_budget_bytes, render_budget_bytes)
        self._parts = tuple(
            ShownImages(part, views, view_seed=view_seed, device=device, room=room) for part in data.parts
        )
        self._last: _Batch | None = None
        self._mixings: dict[tuple[str, int], Mixing] = {}
        self.said = TeacherAnswers(cache, views, device, budget_bytes=render_budget_bytes)
        self._compared_NC: Tensor | None = None
        self.recorder: Callable[[], Recorder] = partial(recorder_for, device)

    def compare_with(self, teacher_NC: Tensor) -> None:
        """Have students compared from now on with what the teacher says of the selection split, as logits.

        They lie on the device while they take little of it; else batches of them are brought there.
        """
        fits = teacher_NC.nbytes <= COMPARED_BYTES
        self._compared_NC = teacher_NC.to(self.device) if fits else teacher_NC

    @property
    def n_train(self) -> int:
        """Number of training samples; rows from there on are unlabelled images."""
        return len(self.data.train.ids)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of an image."""
        return self.data.train.image_shape

    @property
    def held_bytes(self) -> int:
        """What this workbench holds in memory: images, rendered views and signals."""
        images = sum(shown.held_bytes for shown in self._parts)
        compared = 0 if self._compared_NC is None else self._compared_NC.nbytes
        return images + compared + self.said.held_bytes

    def view_of(self, bank: str, epoch: int) -> int:
        """The view on which an epoch (counted from 1) trains: (epoch - 1) mod the bank's views."""
        return (epoch - 1) % self.views.bank(base_of(bank)[0]).views

    def keeps(self, bank: str, epoch: int, *, seen: bool, heard: bool) -> bool:
        """Whether the epoch's whole view of a bank lies on the device, images and logits: then rows may too.

        A view that was not asked for yet is not kept yet.
        """
        base, view = base_of(bank)[0], self.view_of(bank, epoch)
        if len(self._parts) > 1 or (seen and not self._parts[0].is_kept(base, view)):
            return False
        return not heard or self.said.keeps(bank, view)

    def images(self, bank: str, epoch: int, rows_B: Tensor) -> Tensor:
        """Normalised float32 BCHW images of these rows, as the epoch's view of the bank shows them.

        Rows on the CPU are best: then nothing that lies there waits for a GPU. A bank that shows another one
        turned is turned from what that one shows, which is rendered, decoded and kept once.

        Raises:
            DataError: the bank is turned, and the images are not square.
        """
        base, turns = base_of(bank)
        batch = self._upright(base, epoch, rows_B)
        if turns:
            require_square(*batch.shape[2:], asks=f"the bank {bank}, which shows {base} turned,")
            batch = quarter_turned(batch, turns)
        return normalise(batch, self.data.mean, self.data.std)

    def expect(self, banks: Iterable[str], epoch: int, rows_B: Tensor) -> None:
        """Say which rows (on the CPU) are asked for next: images that lie in files are decoded meanwhile."""
        bases = dict.fromkeys(base_of(bank)[0] for bank in banks)
        planes = [(bank, self.view_of(bank, epoch)) for bank in bases]
        for shown, rows in zip(self._parts, rows_of_parts(self.data.parts, rows_B), strict=True):
            shown.expect(planes, rows)

    def teacher(
        self,
        bank: str,
        epoch: int,
        rows_B: Tensor,
        features: tuple[str, ...] = (),
        images_BCHW: Tensor | None = None,
    ) -> TeacherSignal:
        """What the teacher said about these rows as the epoch's view shows them; see `TeacherAnswers`.

        Raises:
            CacheError: the workbench has no cache, or one without these views; or nobody has the features.
        """
        return self.said.answers(bank, self.view_of(bank, epoch), rows_B, features, images_BCHW)

    def mixing(self, bank: str, epoch: int, rows_B: Tensor) -> Mixing | None:
        """Of which samples the epoch's view of these rows, of the training split, is made.

        None where a bank mixes none. Unlabelled images have no labels that could be mixed.
        """
        bank, _ = base_of(bank)  # what is turned shows the same samples
        if self.views.bank(bank).mixes is None:
            return None
        view = self.view_of(bank, epoch)
        if not self._parts[0].is_kept(bank, view):
            return self._mixing_of(bank, view, rows_B)
        whole = self._mixings.get((bank, view))
        if whole is None:
            whole = self._mixings[bank, view] = self._mixing_of(bank, view, torch.arange(self.n_train))
        rows_B = to_device(rows_B, self.device)
        return Mixing(whole.labels_BK[rows_B], whole.shares_BK[rows_B])

    def labels(self, rows_B: Tensor) -> Tensor:
        """int64 class indices of these rows; `NO_LABEL` of unlabelled ones."""
        return self.labels_N[to_device(rows_B, self.device)]

    def evaluate(self, model: nn.Module, split: ImageSplit, *, batch_size: int) -> dict[str, float]:
        """Accuracy and other figures of a model on clean images of a split."""
        return evaluate(
            model,
            split,
            mean=self.data.mean,
            std=self.data.std,
            batch_size=batch_size,
            device=self.device,
        )

    def judge(self, student: nn.Module, *, batch_size: int) -> dict[str, float]:
        """Figures of a student on the selection split; beside the teacher, where it is known what that says.

        See `evaluation.evaluate` and `evaluation.BesideTeacher`.

        Raises:
            TrialFailed: a logit of the student is not finite.
        """
        split = self.data.selection
        if self._compared_NC is None:
            return self.evaluate(student, split, batch_size=batch_size)
        beside = BesideTeacher(student, self._compared_NC)
        return self.evaluate(beside, split, batch_size=batch_size) | beside.figures()

    @property
    def compared_NC(self) -> Tensor | None:
        """The teacher's logits of the selection split, where students are compared with them."""
        return self._compared_NC

    def evaluate_together(
        self, models: Sequence[nn.Module], split: ImageSplit, *, batch_size: int
    ) -> tuple[list[float], float]:
        """Accuracy of each model, and of all as one; see `evaluation.together`."""
        levels = {"mean": self.data.mean, "std": self.data.std}
        return accuracies(models, split, **levels, batch_size=batch_size, device=self.device)

    def classes(self, model: nn.Module, split: ImageSplit, *, batch_size: int) -> Tensor:
        """The class that a model gives each clean image of a split; see `evaluation.answers`."""
        data = self.data
        return answers(model, split, mean=data.mean, std=data.std, batch_size=batch_size, device=self.device)

    def answers(self, model: nn.Module, split: ImageSplit, *, batch_size: int) -> Answers:
        """What a model says of each clean image of a split, with how sure it is."""
        data = self.data
        return labelled_answers(
            model, split, mean=data.mean, std=data.std, batch_size=batch_size, device=self.device
        )

    def features_worth(
        self,
        model: nn.Module,
        by: RankBy,
        split: ImageSplit,
        *,
        batch_size: int,
        stated: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, float]:
        """The figure that ranks students where it judges features; see `evaluation.feature_figures`.

        The reference are the labelled training images; `stated` is what the experiment file says of the
        network's features.
        """
        data = self.data
        return feature_figures(
            model,
            by,
            reference=data.train,
            judged=split,
            n_classes=len(data.classes),
            shown=Shown(data.mean, data.std, batch_size, self.device, stated),
        )

    def _upright(self, bank: str, epoch: int, rows_B: Tensor) -> Tensor:
        """uint8 BCHW: what the epoch's view of a bank that is not turned shows.

        The last batch is held, since its turns are asked for next: by the same tensor of rows.
        """
        view, last = self.view_of(bank, epoch), self._last
        if last is None or (last.bank, last.view) != (bank, view) or last.rows_B is not rows_B:
            images_BCHW = by_part(
                self.data.parts, rows_B, lambda part, rows: self._parts[part].images(bank, view, rows)
            )
            last = self._last = _Batch(bank, view, rows_B, images_BCHW)
        return last.images_BCHW

    def _mixing_of(self, bank: str, view: int, rows_B: Tensor) -> Mixing:
        sources_BK, shares_BK = self._parts[0].sources(bank, view, rows_B)
        return Mixing(self.labels_N[sources_BK], shares_BK)


def render_budget(device: torch.device) -> int:
    """Bytes of rendered views that a workbench may keep on a device: 1 GiB, or more on a large GPU."""
    if device.type != "cuda":
        return RENDER_BUDGET_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return max(RENDER_BUDGET_BYTES, free // GPU_SHARE)


def _refuse_foreign(cache: CacheReader, data: TrainingData, view_seed: int) -> None:
    own = cache.identity
    mine = make_identity(own.teacher, split_facts(data), seed=view_seed, precision=own.dtype, top_k=own.top_k)
    require_identity(cache.uri, own, mine)
