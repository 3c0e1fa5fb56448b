"""The teacher's answers in a worker: kept in memory, read from the cache's files, or asked of the teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.cache.node.reader import CacheReader
from trainables.config import ViewsConfig
from trainables.errors import CacheError, TrialFailed
from trainables.signals import TeacherClassifier, TeacherSignal
from trainables.teacher.online import OnlineTeacher
from trainables.tensors import to_device

# B = samples in the batch, C = channels, H, W = height and width


@dataclass(frozen=True)
class CacheBesideTeacher:
    """A cache, and a teacher that runs beside the student for the features that it does not keep."""

    cache: CacheReader
    teacher: Callable[[], OnlineTeacher]
    """Loaded when it is first asked for: not every trial asks."""


Source = CacheReader | OnlineTeacher | CacheBesideTeacher
"""Where answers come from. An online teacher stands in for a cache, and is asked anew each time."""


class TeacherAnswers:
    """Logits and features of the teacher by bank, view and row, on one device.

    Whole views are kept in memory as long as they fit into `budget_bytes`; beyond that a batch is gathered
    from the cache's files when it is needed. Features that the cache does not keep are asked of the teacher
    beside the student.
    """

    def __init__(
        self, source: Source | None, views: ViewsConfig, device: torch.device, *, budget_bytes: int
    ) -> None:
        """Nothing is read yet."""
        self._online = source if isinstance(source, OnlineTeacher) else None
        self._cache = cache_of(source)
        self._beside = source.teacher if isinstance(source, CacheBesideTeacher) else None
        self._views, self._device = views, device
        self._signals: dict[tuple[str, int], TeacherSignal] = {}
        self._features: dict[tuple[str, int, str], Tensor] = {}
        self._free_bytes = budget_bytes
        self._live_s = 0.0
        self._asking: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def held_bytes(self) -> int:
        """What is held in memory."""
        features = sum(feature.nbytes for feature in self._features.values())
        return features + sum(signal.nbytes for signal in self._signals.values())

    def keeps(self, bank: str, view: int) -> bool:
        """Whether the logits of a whole view lie on the device, since they were asked for and fit."""
        return (bank, view) in self._signals

    def is_cached(self, bank: str, features: tuple[str, ...]) -> bool:
        """Whether a cache has all that is asked of a bank, so that no teacher runs beside the student."""
        kept = () if self._cache is None else self._cache.features(bank)
        return self._cache is not None and all(name in kept for name in features)

    def answers(
        self,
        bank: str,
        view: int,
        rows_B: Tensor,
        features: tuple[str, ...] = (),
        images_BCHW: Tensor | None = None,
    ) -> TeacherSignal:
        """What the teacher said about exactly these views: its logits, and the features that are asked for.

        Features that the cache does not keep are asked of the teacher beside the student: about the images
        where they are given, normalised and on this device.

        Raises:
            CacheError: the workbench has no cache, or one without these views; or nobody has the features.
        """
        if self._online is not None:
            with self._asking():
                return self._here(self._online.signal(bank, view, rows_B, features))
        if self._cache is None:
            raise CacheError("this objective needs the teacher's logits, but the workbench has no cache")
        kept = self._cache.features(bank)
        signal = self._kept(self._cache, bank, view, rows_B, tuple(name for name in features if name in kept))
        missing = tuple(name for name in features if name not in kept)
        if not missing:
            return signal
        beside, began = self._require_beside(missing), time.perf_counter()
        with self._asking():
            if images_BCHW is None:
                live = beside.signal(bank, view, rows_B, missing)
            else:
                live = beside.signal_about(images_BCHW, rows_B, missing)
        self._live_s += time.perf_counter() - began
        return replace(signal, features={**signal.features, **self._here(live).features})

    def take_live_s(self) -> float:
        """Seconds that the teacher beside the student took since this was last asked; 0 where it was not."""
        taken, self._live_s = self._live_s, 0.0
        return taken

    def shapes(self, bank: str, features: tuple[str, ...]) -> Mapping[str, tuple[int, ...]]:
        """By name, the shape of one sample's feature of the teacher.

        Raises:
            CacheError: neither cache nor a teacher beside the student has it.
        """
        known = {} if self._cache is None else self._cache.feature_shapes(bank)
        missing = tuple(name for name in features if name not in known)
        live = self._require_beside(missing).feature_shapes(missing) if missing else {}
        return {name: known[name] if name in known else live[name] for name in features}

    def classifier(self) -> TeacherClassifier:
        """The teacher's last linear layer.

        Raises:
            CacheError: neither cache nor a teacher beside the student has it.
        """
        kept = None if self._cache is None else self._cache.classifier()
        return kept or self._require_beside(("classifier",)).classifier()

    def require_live_teacher(self) -> OnlineTeacher:
        """The teacher that runs beside the students, in the place of a cache.

        Raises:
            TrialFailed: there is a cache, or no teacher at all.
        """
        if self._online is None:
            raise TrialFailed(
                "this objective asks the teacher about adversarial images, which no cache holds; let the "
                "teacher run beside the student (cache: {online: true}), or set teacher_input to view"
            )
        return self._online

    def about(self, images_BCHW: Tensor, rows_B: Tensor, features: tuple[str, ...] = ()) -> TeacherSignal:
        """What the live teacher says about images that were made of these rows, without gradient.

        The images are normalised, as `images` gives them, and on this device.

        Raises:
            TrialFailed: there is a cache, or no teacher at all.
            CacheError: the teacher's output is not one logit per class, or not finite.
        """
        with self._asking():
            return self._here(self.require_live_teacher().signal_about(images_BCHW, rows_B, features))

    @contextmanager
    def asked_within(self, context: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Meanwhile, each pass of a teacher that runs here is made within a context of its own."""
        self._asking = context
        try:
            yield
        finally:
            self._asking = nullcontext

    def _require_beside(self, missing: tuple[str, ...]) -> OnlineTeacher:
        if self._online is not None:
            return self._online
        if self._beside is None:
            raise CacheError(
                f"the cache does not keep {', '.join(missing)} of the teacher, and none runs beside the "
                "student; name it in cache.features and run the cache stage again"
            )
        return self._beside()

    def _kept(
        self, cache: CacheReader, bank: str, view: int, rows_B: Tensor, features: tuple[str, ...]
    ) -> TeacherSignal:
        """From memory where the whole view, or feature, fits there; else from the cache's files."""
        here_B = to_device(rows_B, self._device)
        signal = self._whole_signal(cache, bank, view)
        whole = {name: self._whole_feature(cache, bank, view, name) for name in features}
        rest = tuple(name for name, feature in whole.items() if feature is None)
        if signal is None or rest:
            read = self._here(cache.signal(bank, view, rows_B, rest))
        found = {name: part[here_B].float() for name, part in whole.items() if part is not None}
        if signal is None:
            return replace(read, features={**found, **read.features})
        own = signal.each(lambda part: part[here_B].float())
        return replace(own, features={**found, **read.features} if rest else found)

    def _whole_signal(self, cache: CacheReader, bank: str, view: int) -> TeacherSignal | None:
        signal = self._signals.get((bank, view))
        if signal is not None:
            return signal
        kept = cache.banks.get(bank)
        if kept is not None and kept.recipe != self._views.bank(bank).recipe:
            raise CacheError(
                f"{cache.uri} shows bank {bank} by another recipe than this run; run the cache stage again"
            )
        if not self._takes(cache.view_bytes(bank, view)):
            return None
        signal = cache.whole_view(bank, view).each(lambda part: part.to(self._device))
        self._signals[bank, view] = signal
        return signal

    def _whole_feature(self, cache: CacheReader, bank: str, view: int, name: str) -> Tensor | None:
        feature = self._features.get((bank, view, name))
        if feature is None and self._takes(cache.view_bytes(bank, view, name)):
            feature = cache.whole_feature(bank, view, name).to(self._device)
            self._features[bank, view, name] = feature
        return feature

    def _takes(self, size: int) -> bool:
        """Whether there is room in memory for so many bytes of signals, which are then taken."""
        if size > self._free_bytes:
            return False
        self._free_bytes -= size
        return True

    def _here(self, signal: TeacherSignal) -> TeacherSignal:
        return signal.each(lambda part: to_device(part, self._device))


def cache_of(source: Source | None) -> CacheReader | None:
    """The cache among the sources of answers, if there is one."""
    if isinstance(source, CacheBesideTeacher):
        return source.cache
    return source if isinstance(source, CacheReader) else None
