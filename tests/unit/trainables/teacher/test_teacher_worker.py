from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch

from trainables.cache.format.planning import claim_folder, plan_shards
from trainables.cache.format.records import Shard, ShardRecord
from trainables.cache.format.storage import Place, open_place
from trainables.config import (
    CacheConfig,
    DataConfig,
    DataName,
    KeptNetwork,
    ModelConfig,
    ModelName,
    ViewsConfig,
)
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.errors import CacheError
from trainables.models import build_model
from trainables.models.weights import save_weights
from trainables.teacher.cache_build import build_cache
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.feature_shapes import feature_shapes, missing_shapes
from trainables.teacher.loading import teacher_fingerprint
from trainables.teacher.shard_worker import TeacherWorker

SHARD = Shard(bank="weak", view=0, index=0, first=0, rows=20)


@pytest.fixture
def request_of_one_view(tmp_path: Path) -> CacheRequest:
    config, model = DataConfig(name=DataName.DIGITS, train_limit=20), ModelConfig(name=ModelName.MLP, width=8)
    with torch.random.fork_rng():
        teacher = build_model(model, n_classes=10, in_channels=1)
    save_weights(teacher, tmp_path / "teacher.safetensors", {})
    return CacheRequest(
        data=config,
        facts=split_facts(load_training(config)),
        teacher=KeptNetwork(model=model, weights=str(tmp_path / "teacher.safetensors")),
        teacher_digest=teacher_fingerprint(model, teacher),
        views=ViewsConfig(),
        banks=("weak",),
        view_seed=3,
        cache=CacheConfig(),
        folder=str(tmp_path / "caches"),
    )


def answer_of(request: CacheRequest) -> dict[str, object]:
    claim_folder(open_place(request.uri), request.origin)
    worker = TeacherWorker(request.plain(), request.uri, request.origin.plain())
    (answer,) = worker({"shards": [json.dumps([SHARD.plain()])]})["answer"]
    told = json.loads(answer)
    fields: dict[str, object] = told[0] if isinstance(told, list) else told
    return fields


def test_a_worker_writes_the_shard_and_answers_with_its_commit_record(
    request_of_one_view: CacheRequest,
) -> None:
    record = ShardRecord.from_plain(answer_of(request_of_one_view))
    plan = plan_shards(
        open_place(request_of_one_view.uri), request_of_one_view.origin, {"weak": ViewsConfig().weak}
    )
    assert plan.committed == {SHARD: record}
    assert plan.missing == ()


def test_a_cache_that_lacks_nothing_is_published_without_progress(request_of_one_view: CacheRequest) -> None:
    answer_of(request_of_one_view)
    calls: list[int] = []
    # No cluster could place this actor: that the call returns shows that none was asked for.
    request = request_of_one_view.with_overrides(gpus_per_actor=64.0)
    summary = build_cache(request, progress=lambda done, total, seconds: calls.append(done))
    assert (summary.computed, summary.reused, summary.rows, calls) == (0, 1, 20, [])
    assert summary.identity == request.identity


def test_a_build_that_has_no_room_is_refused_before_anything_runs(
    request_of_one_view: CacheRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "free_bytes", lambda _: 3_000)
    with pytest.raises(CacheError, match=r"needs \d\.\d kB more for 1 files, and .* has 3\.0 kB free"):
        build_cache(request_of_one_view, progress=lambda *_: None)
    assert not list(Path(request_of_one_view.folder).rglob("*.parquet"))


def test_answers_of_a_teacher_without_a_network_cannot_be_computed(request_of_one_view: CacheRequest) -> None:
    request = request_of_one_view.with_overrides(teacher=None)
    with pytest.raises(
        CacheError, match=r"its logits were imported; .*stillhouse cache import FILE EXPERIMENT"
    ):
        build_cache(request, progress=lambda *_: None)


def test_the_width_of_embeddings_is_known_before_any_is_computed(request_of_one_view: CacheRequest) -> None:
    request = request_of_one_view.with_overrides(cache=CacheConfig(embedding=True))
    plan = plan_shards(open_place(request.uri), request.origin, {"weak": request.views.weak})
    assert missing_shapes(request, plan) == {"embedding": (8,)}
    without = plan_shards(open_place(request.uri), request_of_one_view.origin, {"weak": request.views.weak})
    assert missing_shapes(request, without) == {}


def test_a_build_waits_for_another_one_in_the_same_folder(request_of_one_view: CacheRequest) -> None:
    answer_of(request_of_one_view)
    finished: list[int] = []

    def build() -> None:
        finished.append(build_cache(request_of_one_view, progress=lambda *_: None).reused)

    with open_place(request_of_one_view.uri).exclusive():
        other = threading.Thread(target=build)
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
    other.join(timeout=60)
    assert finished == [1]


def test_weights_that_are_not_the_announced_teacher_are_refused(request_of_one_view: CacheRequest) -> None:
    request = request_of_one_view.with_overrides(teacher_digest="f" * 64)
    assert "cache was written by teacher ffffffff…, this experiment uses" in str(answer_of(request)["error"])


def test_other_data_than_announced_are_refused(request_of_one_view: CacheRequest) -> None:
    data = request_of_one_view.data.with_overrides(train_limit=21)
    answer = answer_of(request_of_one_view.with_overrides(data=data))
    assert "cache was made from data" in str(answer["error"])


def test_a_missing_checkpoint_is_an_answer_and_not_an_exception(request_of_one_view: CacheRequest) -> None:
    teacher = request_of_one_view.network.with_overrides(weights="/nowhere/teacher.safetensors")
    request = request_of_one_view.with_overrides(teacher=teacher)
    assert "no checkpoint /nowhere/teacher.safetensors" in str(answer_of(request)["error"])


def test_an_exception_of_the_network_is_an_answer_with_its_type(request_of_one_view: CacheRequest) -> None:
    model = ModelConfig(factory="json:loads", arguments={})
    teacher = request_of_one_view.network.with_overrides(model=model)
    answer = answer_of(request_of_one_view.with_overrides(teacher=teacher))
    assert "TypeError" in str(answer["error"]) or "json:loads" in str(answer["error"])


def test_the_folder_is_named_by_what_the_answers_depend_on(request_of_one_view: CacheRequest) -> None:
    views = ViewsConfig.from_plain({"strong": {"recipe": [{"op": "cutout"}], "views": 4}})
    names = {
        request_of_one_view.uri,
        request_of_one_view.with_overrides(view_seed=4).uri,
        request_of_one_view.with_overrides(views=views).uri,
    }
    more = views.with_overrides(strong=views.strong.with_overrides(views=9))
    assert len(names) == 3
    assert request_of_one_view.with_overrides(views=more, banks=("weak", "strong")).uri in names


def test_a_given_uri_stands(request_of_one_view: CacheRequest) -> None:
    assert request_of_one_view.with_overrides(cache=CacheConfig(uri="s3://b/c")).uri == "s3://b/c"


def test_a_cosine_classifier_has_no_weights_that_make_logits_of_an_embedding(
    request_of_one_view: CacheRequest,
) -> None:
    model = ModelConfig(name=ModelName.MLP, width=8, cosine_head=8)
    teacher = KeptNetwork(model=model, weights="nowhere")
    request = request_of_one_view.with_overrides(teacher=teacher, asks_classifier=True)
    assert feature_shapes(request_of_one_view, ["classifier"]) == {"classifier": (9,)}
    with pytest.raises(CacheError, match="last layer is a cosine classifier"):
        feature_shapes(request, ["classifier"])


def test_the_shapes_of_what_a_teacher_is_not_prepared_with_yet_are_known(
    request_of_one_view: CacheRequest,
) -> None:
    unmade = ModelConfig(name=ModelName.CONVNET, width=8)
    request = request_of_one_view.with_overrides(teacher=None, unmade=unmade)
    shapes = feature_shapes(request, ["ss_head", "branch1", "embedding", "energy.stage2"])
    assert shapes["ss_head"] == shapes["embedding"]
    assert shapes["branch1"] == (40,)
    assert len(shapes["energy.stage2"]) == 2
