from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from onnx import numpy_helper

from tests.unit.trainables.models.onnx_files import write
from trainables.cache.node.reader import open_cache
from trainables.config import (
    BankConfig,
    CacheConfig,
    CropFlipStep,
    DataConfig,
    DataName,
    KeptNetwork,
    ModelConfig,
    ModelName,
    TrainingConfig,
    ViewsConfig,
)
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.errors import CacheError
from trainables.models import build_model
from trainables.models.weights import save_weights
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.cache_build import build_cache
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.loading import load_teacher, teacher_fingerprint
from trainables.training.train_teacher import TeacherRequest, make_teacher

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DATA = DataConfig(name=DataName.DIGITS, train_limit=50)
TEACHER = ModelConfig(name=ModelName.CONVNET, width=8)
WEAK = BankConfig(recipe=(CropFlipStep(op="crop_flip", padding=1),), views=2)


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def request_of_two_views(tmp_path_factory: pytest.TempPathFactory) -> CacheRequest:
    folder = tmp_path_factory.mktemp("teacher_pass")
    data = load_training(DATA)
    torch.manual_seed(0)
    teacher = build_model(TEACHER, n_classes=10, in_channels=1)
    save_weights(teacher, folder / "teacher.safetensors", {})
    return CacheRequest(
        data=DATA,
        facts=split_facts(data),
        teacher=KeptNetwork(model=TEACHER, weights=str(folder / "teacher.safetensors")),
        teacher_digest=teacher_fingerprint(TEACHER, teacher),
        views=ViewsConfig(weak=WEAK),
        banks=("weak",),
        view_seed=3,
        cache=CacheConfig(rows_per_shard=20, batch_size=16),
        folder=str(folder / "caches"),
    )


def test_a_cache_is_built_beside_busy_cpus_extended_and_left_alone(
    session: None, request_of_two_views: CacheRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int, float]] = []

    def note(done: int, total: int, seconds: float) -> None:
        seen.append((done, total, seconds))

    @ray.remote(num_cpus=2)
    class Slot:
        def hold(self) -> bool:
            return True

    slot: Any = Slot.remote()  # type: ignore[attr-defined]
    assert ray.get(slot.hold.remote())
    first = build_cache(request_of_two_views, progress=note)
    ray.kill(slot)
    assert (first.computed, first.reused, first.rows) == (6, 0, 100)
    assert [(done, total) for done, total, _ in seen][::6] == [(0, 100), (100, 100)]
    assert "Progress bars disabled" not in capfd.readouterr().err

    views = ViewsConfig(weak=WEAK.with_overrides(views=3))
    more = request_of_two_views.with_overrides(views=views, cpus_per_actor=1.0)
    second = build_cache(more, progress=note)
    assert (second.computed, second.reused, second.uri) == (3, 6, first.uri)

    seen.clear()
    # No cluster here could place this actor: that the call returns shows that none was asked for.
    third = build_cache(more.with_overrides(gpus_per_actor=64.0), progress=note)
    assert (third.computed, third.manifest, seen) == (0, second.manifest, [])

    reader = open_cache(third.uri, manifest_sha=third.manifest, scratch=Path(more.folder) / "scratch")
    data = load_training(DATA)
    summary = prove_alignment(reader, data, load_teacher(more.network, data), views, 3, banks=["weak"])
    assert summary.pairs == 64

    seen.clear()
    grown = more.with_overrides(
        cache=more.cache.with_overrides(features=["last"], rows_per_map=16),
        asked={"weak": ["embedding", "energy.last"]},
        asks_classifier=True,
    )
    fourth = build_cache(grown, progress=note)
    # In each of three views: two features in three files, the map in five; and the classifier in one.
    assert (fourth.computed, fourth.reused, fourth.rows) == (3 * (2 * 3 + 5) + 1, 9, 150)
    assert (fourth.uri, fourth.identity) == (first.uri, first.identity)
    assert [(done, total) for done, total, _ in (seen[0], seen[-1])] == [(0, 150), (150, 150)]
    reader = open_cache(fourth.uri, manifest_sha=fourth.manifest, scratch=Path(more.folder) / "grown")
    assert set(reader.features("weak")) == {"last", "embedding", "energy.last"}
    assert reader.classifier() is not None
    prove_alignment(reader, data, load_teacher(more.network, data), views, 3, banks=["weak"])


def doubled(model: Any) -> None:
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))


def test_a_teacher_in_an_onnx_file_is_asked_by_the_actors_and_its_cache_is_no_other_teachers(
    session: None, request_of_two_views: CacheRequest, tmp_path: Path
) -> None:
    said = TeacherRequest.from_plain(
        {
            "data": DATA.plain(),
            "model": None,
            "checkpoint": str(write(tmp_path / "given.onnx", last="Softmax", axis=1)),
            "normalisation": "data",
            "training": TrainingConfig().plain(),
            "views": ViewsConfig().plain(),
            "seed": 1,
            "folder": str(tmp_path / "teacher"),
        }
    )
    facts = make_teacher(said, lambda *_: None)
    kept, data, views = facts.kept(said), load_training(DATA), request_of_two_views.views
    assert kept is not None
    asked = request_of_two_views.with_overrides(teacher=kept, teacher_digest=facts.fingerprint)
    summary = build_cache(asked, progress=lambda *_: None)
    reader = open_cache(summary.uri, manifest_sha=summary.manifest, scratch=tmp_path / "scratch")
    assert prove_alignment(reader, data, load_teacher(kept, data), views, 3, banks=["weak"]).pairs == 64
    other = kept.with_overrides(weights=str(write(tmp_path / "other.onnx", change=doubled)))
    with pytest.raises(CacheError, match="are not what the live teacher says"):
        prove_alignment(reader, data, load_teacher(other, data), views, 3, banks=["weak"])
