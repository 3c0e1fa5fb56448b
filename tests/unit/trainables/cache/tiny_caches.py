"""A tiny teacher on random images, and caches built from them without Ray."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from trainables.cache.format.identity import make_identity
from trainables.cache.format.planning import claim_folder, plan_shards, publish, together
from trainables.cache.format.records import Origin, Shard
from trainables.cache.format.storage import open_place
from trainables.cache.node.reader import CacheReader, open_cache
from trainables.config import BankConfig, CropFlipStep, Precision, RandAugmentStep, ViewsConfig
from trainables.config.cache import FeaturePrecision
from trainables.config.data import SplitFacts
from trainables.data import ImageSplit, TrainingData
from trainables.teacher.cache_request import stated_parts
from trainables.teacher.live import LiveTeacher
from trainables.teacher.shard_producer import ShardProducer

CLASSES = ("ant", "bee", "cat", "dog", "eel")
CPU = torch.device("cpu")


def random_data(n_train: int = 40) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n_train, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, len(CLASSES), (n_train,), generator=generator)
    split = ImageSplit(images, labels, 3 * torch.arange(n_train) + 1)
    return TrainingData(split, split, CLASSES, (0.5,), (0.25,), "d" * 64)


def tiny_teacher(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        conv = nn.Conv2d(1, 8, 3)
        return nn.Sequential(
            conv, nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(288, 5)
        )


EMBEDDED: dict[str, tuple[str, ...]] = {"weak": ("embedding",), "strong": ("embedding",)}
"""The embedding of both banks."""
JUDGED: dict[str, tuple[str, ...]] = {**EMBEDDED, "teacher": ("classifier",)}
"""And the teacher's last linear layer."""

VIEWS = ViewsConfig(
    weak=BankConfig(recipe=(CropFlipStep(op="crop_flip", padding=1),), views=2),
    strong=BankConfig(
        recipe=(CropFlipStep(op="crop_flip", padding=1), RandAugmentStep(op="randaugment")), views=1
    ),
)


@dataclass(frozen=True)
class TinyCache:
    """Data, teacher and views; `build` computes what a folder lacks, and `replace` puts a fault in."""

    folder: Path
    data: TrainingData
    teacher: nn.Module
    facts: SplitFacts
    views: ViewsConfig = VIEWS
    seed: int = 7
    precision: Precision = Precision.FP16
    teacher_digest: str = "a" * 64
    rows_per_shard: int = 16
    at: str | None = None
    top_k: int = 2
    features: dict[str, tuple[str, ...]] = field(default_factory=dict)
    feature_precision: FeaturePrecision = FeaturePrecision.FP16
    rows_per_map: int = 2048
    stated: dict[str, str] = field(default_factory=dict)
    prepared: dict[str, str] = field(default_factory=dict)
    batch_size: int = 7
    device: torch.device = CPU

    @property
    def uri(self) -> str:
        return self.at or str(self.folder / "cache")

    def origin(self, banks: tuple[str, ...]) -> Origin:
        identity = make_identity(
            self.teacher_digest, self.facts, seed=self.seed, precision=self.precision, top_k=self.top_k
        )
        return Origin(
            identity=identity,
            n_rows=self.facts.n_rows,
            classes=self.facts.classes,
            rows_per_shard=self.rows_per_shard,
            recipes={bank: self.views.bank(bank).recipe for bank in banks},
            features=self.features,
            feature_precision=self.feature_precision,
            rows_per_map=self.rows_per_map,
            made_by=stated_parts(self.stated, self.features) | self.prepared,
        )

    def build(self, banks: tuple[str, ...] = ("weak", "strong"), *, stop_after: int = 10_000) -> list[Shard]:
        """Compute and commit the missing shards, and publish when none is missing; gives those computed."""
        place = open_place(self.uri)
        origin = claim_folder(place, self.origin(banks))
        wanted = {bank: self.views.bank(bank) for bank in banks}
        producer = ShardProducer(place, origin, self.live(), self.data)
        computed = list(plan_shards(place, origin, wanted).missing)[:stop_after]
        for group in together(computed):
            producer.produce_together(group)
        plan = plan_shards(place, origin, wanted)
        if not plan.missing:
            publish(place, plan, {"stillhouse": "test"})
        return computed

    def live(self) -> LiveTeacher:
        """The teacher as the cache asks it."""
        return LiveTeacher(
            self.teacher,
            self.data,
            seed=self.seed,
            batch_size=self.batch_size,
            device=self.device,
            stated=self.stated,
        )

    def copied(self, folder: Path) -> TinyCache:
        """The same, with a copy of what was built, to be damaged or grown."""
        shutil.copytree(self.uri, folder / "cache")
        return self.but(folder=folder)

    def named(self) -> TinyCache:
        """With a teacher whose parts have names, one of which is said to be a stage."""
        names = ("conv", "norm", "stage1", "drop", "flat", "head")
        teacher = nn.Sequential(OrderedDict(zip(names, self.teacher.children(), strict=True)))
        return self.but(teacher=teacher, stated={"stage1": "stage1"})

    def open(
        self, name: str = "scratch", *, kept: Mapping[str, tuple[str, ...]] | None = None
    ) -> CacheReader:
        return open_cache(self.uri, scratch=self.folder / name, kept=kept)

    def but(self, **changes: object) -> TinyCache:
        return replace(self, **changes)  # type: ignore[arg-type]
