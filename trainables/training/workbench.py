"""The workbench: what stays loaded in a worker between trials, so that a trial costs its training only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainables.cache.format.identity import make_identity, require_identity
from trainables.cache.node.reader import CacheReader
from trainables.config import ViewsConfig
from trainables.data import ImageSplit, TrainingData
from trainables.data.splits import split_facts
from trainables.errors import CacheError, TrialFailed
from trainables.evaluation.metrics import answers, evaluate
from trainables.signals import Mixing, TeacherSignal
from trainables.teacher.online import OnlineTeacher
from trainables.tensors import to_device
from trainables.training.file_views import FileViews
from trainables.views.normalise import normalise
from trainables.views.showing import SplitViews

RENDER_CHUNK = 2048
RENDER_BUDGET_BYTES = 1 << 30
GPU_SHARE = 8
"""One part in so many of a GPU's free memory goes to views, and as much to signals: slots may share it."""

# N = training samples, B = samples in the batch, C = channels, H, W = height and width


class Workbench:
    """Training data, views and teacher signals on one device, indexed by row of the training split.

    Rendered views (uint8), and as much again of teacher signals, are kept as long as they fit in
    `render_budget_bytes`, since every trial of a search trains on the same views; beyond that a batch is
    rendered, or gathered from the cache's files, when it is needed. Images that are larger than that budget
    themselves stay in the host's memory when the device is a GPU. Images that lie in files stay there: their
    views are decoded and rendered for each batch.
    """

    def __init__(
        self,
        data: TrainingData,
        views: ViewsConfig,
        *,
        view_seed: int,
        device: torch.device,
        cache: CacheReader | OnlineTeacher | None = None,
        render_budget_bytes: int = RENDER_BUDGET_BYTES,
    ) -> None:
        """Put the data on the device; views and signals follow when they are first asked for.

        An online teacher stands in for the cache, and is asked anew each time.

        Raises:
            CacheError: the cache was made for other data or other views, so its rows are other images.
        """
        online = cache if isinstance(cache, OnlineTeacher) else None
        cache = None if isinstance(cache, OnlineTeacher) else cache
        if cache is not None:
            _refuse_foreign(cache, data, view_seed)
        self.data = data
        self.views = views
        self.device = device
        self.labels_N = data.train.labels.to(device)
        self._cache = cache
        self._online = online
        self._split_views = SplitViews(
            _brought_to(device, data.train, render_budget_bytes), views, view_seed, device
        )
        self._files = FileViews(self._split_views) if data.train.files is not None else None
        self._rendered: dict[tuple[str, int], Tensor] = {}
        self._mixings: dict[tuple[str, int], Mixing] = {}
        self._signals: dict[tuple[str, int], TeacherSignal] = {}
        self._free_bytes = render_budget_bytes
        self._free_signal_bytes = render_budget_bytes

    @property
    def n_train(self) -> int:
        """Number of training samples."""
        return int(self.labels_N.shape[0])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of an image."""
        channels, height, width = self._split_views.split.images.shape[1:]
        return int(channels), int(height), int(width)

    @property
    def held_bytes(self) -> int:
        """What this workbench holds in memory: images, rendered views and signals."""
        images = 0 if self._files is not None else self._split_views.split.images.nbytes
        rendered = sum(view_NCHW.nbytes for view_NCHW in self._rendered.values())
        return images + rendered + sum(signal.nbytes for signal in self._signals.values())

    def view_of(self, bank: str, epoch: int) -> int:
        """The view on which an epoch (counted from 1) trains: (epoch - 1) mod the bank's views."""
        return (epoch - 1) % self.views.bank(bank).views

    def images(self, bank: str, epoch: int, rows_B: Tensor) -> Tensor:
        """Normalised float32 BCHW images of these rows, as the epoch's view of the bank shows them.

        Rows on the CPU are best: then nothing that lies there waits for a GPU.
        """
        view = self.view_of(bank, epoch)
        if self._files is not None:
            return normalise(self._files.images(bank, view, rows_B), self.data.mean, self.data.std)
        rendered = self._rendered_view(bank, view)
        if rendered is None:
            batch = self._split_views.viewer(bank, view).images(rows_B)
        else:
            batch = rendered[to_device(rows_B, self.device)]
        return normalise(batch, self.data.mean, self.data.std)

    def expect(self, banks: Iterable[str], epoch: int, rows_B: Tensor) -> None:
        """Say which rows (on the CPU) are asked for next: images that lie in files are decoded meanwhile."""
        if self._files is not None:
            self._files.expect([(bank, self.view_of(bank, epoch)) for bank in banks], rows_B)

    def teacher(self, bank: str, epoch: int, rows_B: Tensor) -> TeacherSignal:
        """What the teacher said about exactly these views.

        Raises:
            CacheError: the workbench has no cache, or one without these views.
        """
        view = self.view_of(bank, epoch)
        if self._online is not None:
            return self._here(self._online.signal(bank, view, rows_B))
        if self._cache is None:
            raise CacheError("this objective needs the teacher's logits, but the workbench has no cache")
        whole = self._whole_signal(self._cache, bank, view)
        if whole is None:
            return self._here(self._cache.signal(bank, view, rows_B))
        rows_B = to_device(rows_B, self.device)
        return whole.each(lambda part: part[rows_B].float())

    def require_live_teacher(self) -> OnlineTeacher:
        """The teacher that runs beside the students.

        Raises:
            TrialFailed: this workbench has a cache, or no teacher at all.
        """
        if self._online is None:
            raise TrialFailed(
                "this objective asks the teacher about adversarial images, which no cache holds; let the "
                "teacher run beside the student (cache: {online: true}), or set teacher_input to view"
            )
        return self._online

    def teacher_about(self, images_BCHW: Tensor, rows_B: Tensor) -> TeacherSignal:
        """What the live teacher says about images that were made of these rows, without gradient.

        The images are normalised, as `images` gives them, and on the workbench's device.

        Raises:
            TrialFailed: this workbench has a cache, or no teacher at all.
            CacheError: the teacher's output is not one logit per class, or not finite.
        """
        return self._here(self.require_live_teacher().signal_about(images_BCHW, rows_B))

    def mixing(self, bank: str, epoch: int, rows_B: Tensor) -> Mixing | None:
        """Of which samples the epoch's view of these rows is made; None where a bank mixes none."""
        if self.views.bank(bank).mixes is None:
            return None
        view = self.view_of(bank, epoch)
        if (bank, view) not in self._rendered:
            return self._mixing_of(bank, view, rows_B)
        whole = self._mixings.get((bank, view))
        if whole is None:
            whole = self._mixings[bank, view] = self._mixing_of(bank, view, torch.arange(self.n_train))
        rows_B = to_device(rows_B, self.device)
        return Mixing(whole.labels_BK[rows_B], whole.shares_BK[rows_B])

    def labels(self, rows_B: Tensor) -> Tensor:
        """int64 class indices of these rows."""
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

    def classes(self, model: nn.Module, split: ImageSplit, *, batch_size: int) -> Tensor:
        """The class that a model gives each clean image of a split; see `evaluation.answers`."""
        data = self.data
        return answers(model, split, mean=data.mean, std=data.std, batch_size=batch_size, device=self.device)

    def _here(self, signal: TeacherSignal) -> TeacherSignal:
        return signal.each(lambda part: to_device(part, self.device))

    def _whole_signal(self, cache: CacheReader, bank: str, view: int) -> TeacherSignal | None:
        signal = self._signals.get((bank, view))
        if signal is not None:
            return signal
        kept = cache.banks.get(bank)
        if kept is not None and kept.recipe != self.views.bank(bank).recipe:
            raise CacheError(
                f"{cache.uri} shows bank {bank} by another recipe than this run; run the cache stage again"
            )
        size = cache.view_bytes(bank, view)
        if size > self._free_signal_bytes:
            return None
        signal = cache.whole_view(bank, view).each(lambda part: part.to(self.device))
        self._signals[bank, view] = signal
        self._free_signal_bytes -= size
        return signal

    def _mixing_of(self, bank: str, view: int, rows_B: Tensor) -> Mixing:
        sources_BK, shares_BK = self._split_views.viewer(bank, view).sources(rows_B)
        return Mixing(self.labels_N[sources_BK], shares_BK)

    def _rendered_view(self, bank: str, view: int) -> Tensor | None:
        rendered = self._rendered.get((bank, view))
        size = self._split_views.split.images.nbytes  # a view has as many bytes as the images
        if rendered is not None or size > self._free_bytes:
            return rendered
        viewer = self._split_views.viewer(bank, view)
        chunks = torch.split(torch.arange(self.n_train), RENDER_CHUNK)
        rendered = torch.cat([viewer.images(rows) for rows in chunks])
        self._rendered[bank, view] = rendered
        self._free_bytes -= size
        return rendered


def render_budget(device: torch.device) -> int:
    """Bytes of rendered views that a workbench may keep on a device: 1 GiB, or more on a large GPU."""
    if device.type != "cuda":
        return RENDER_BUDGET_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return max(RENDER_BUDGET_BYTES, free // GPU_SHARE)


def _brought_to(device: torch.device, split: ImageSplit, budget_bytes: int) -> ImageSplit:
    """The split with its images on the device where they fit into the budget there; files stay files."""
    images = split.images
    if not isinstance(images, Tensor) or (device.type != "cpu" and images.nbytes > budget_bytes):
        return split
    return replace(split, images=images.to(device))


def _refuse_foreign(cache: CacheReader, data: TrainingData, view_seed: int) -> None:
    own = cache.identity
    mine = make_identity(own.teacher, split_facts(data), seed=view_seed, precision=own.dtype, top_k=own.top_k)
    require_identity(cache.uri, own, mine)
