"""A teacher is prepared by a stage of its own: once, and as part of what caches and searches hang on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from orchestrator.config.loading import load_experiment
from orchestrator.pipeline import cache_stage
from orchestrator.pipeline.cache_stage import cache_request
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.teacher_stage import (
    known_teacher,
    recorded_teacher,
    teacher_request,
    teacher_stage,
)
from orchestrator.pipeline.teachers.preparation import preparation_request, preparation_stages
from orchestrator.pipeline.workers import Workers
from orchestrator.records.events import StageEpoch, TeacherPrepared
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from trainables.cache.format.manifest import Manifest, read_manifest
from trainables.cache.format.planning import claim_folder, together
from trainables.cache.format.records import Origin, Shard, ShardRecord
from trainables.cache.format.storage import Place, open_place
from trainables.config import KeptNetwork, WorkbenchSpec
from trainables.config.objective_base import Preparation
from trainables.config.representation.preparation import PreparedPart
from trainables.data import load_training
from trainables.errors import ConfigError
from trainables.slots.warm_state import WarmState
from trainables.teacher import cache_build
from trainables.teacher.cache_build import CacheSummary
from trainables.teacher.cache_request import CacheRequest
from trainables.teacher.feature_shapes import feature_shapes
from trainables.teacher.loading import prepared_teacher
from trainables.teacher.prepared import part_digest
from trainables.teacher.shard_worker import TeacherWorker
from trainables.training.prepare_teacher import PreparationRequest, prepare_teacher
from trainables.training.train_teacher import TeacherFacts, make_teacher

EXPERIMENT = """\
name: prepared
data: {name: digits, train_limit: 60}
teacher:
  model: {name: resnet8, width: 4}
  training: {epochs: 1, batch_size: 20}
  preparation: {epochs: EPOCHS, batch_size: 20, lr: 0.1}
student: {name: resnet8, width: 4}
views: {weak: {views: 1, recipe: []}}
space: space.yaml
"""
SPACE = """\
name: rotations
objectives: {NAMES}
search: {algorithm: random}
scheduler: {name: fifo}
"""

Written = Callable[..., Path]
OnEpoch = Callable[[int, dict[str, float]], None]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def at(names: str = "sskd: {ss_weight: {uniform: [5, 20]}}", epochs: int = 1) -> Path:
        path = tmp_path / "prepared.yaml"
        path.write_text(EXPERIMENT.replace("EPOCHS", str(epochs)))
        (tmp_path / "space.yaml").write_text(SPACE.replace("NAMES", names))
        return path

    return at


@pytest.fixture(autouse=True)
def _made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, without Ray."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(Workers, "teacher", lambda _, request, tell: make_teacher(request, tell))
    monkeypatch.setattr(Workers, "prepare", lambda _, *asked, heard: prepare_teacher(*asked, heard=heard))
    monkeypatch.setattr(Workers, "start_slots_early", lambda _: None)
    torch.set_num_threads(threads)


def run_of(path: Path, out: io.StringIO | None = None) -> Run:
    loaded, folder = load_experiment(str(path)), path.parent / "out"
    ledger, console = Ledger(folder), Console(out=out or io.StringIO())
    return Run(
        loaded, folder, ledger, Stages(ledger, console), Workers(loaded.config, folder, console), console
    )


def prepared(run: Run) -> TeacherFacts:
    return preparation_stages(run, teacher_stage(run))


def test_what_an_objective_asks_for_is_prepared_and_told(written: Written) -> None:
    out = io.StringIO()
    facts = prepared(run_of(written("sskd: {}, hsakd: {}"), out))
    assert [part.kind for part in facts.prepared] == list(Preparation)
    assert all(Path(part.weights).is_file() for part in facts.prepared)
    assert "preparation ss_head" in out.getvalue()
    assert "loss" in out.getvalue()
    assert list(facts.hashes) == ["teacher", "teacher.ss_head", "teacher.branches"]


def test_where_no_objective_asks_nothing_is_prepared(written: Written) -> None:
    run = run_of(written("kd: {temperature: {uniform: [1, 4]}}"))
    facts = teacher_stage(run)
    assert preparation_stages(run, facts) is facts


def test_what_was_prepared_is_known_again_and_not_made_again(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written()
    facts = prepared(run_of(path))
    monkeypatch.setattr(Workers, "prepare", lambda *_, **__: pytest.fail("made again"))
    again = run_of(path)
    assert prepared(again) == facts
    assert recorded_teacher(again) == facts
    assert known_teacher(again) == facts


@pytest.mark.parametrize("prepared_by", ["", "  prepared: joint_branches\n"])
def test_branches_learn_on_images_of_one_sample_where_students_are_shown_mixed_ones(
    written: Written, prepared_by: str
) -> None:
    """Their labels are of a class and a turn, and mixed images have several."""
    path = written("hsakd: {branch_weight: {uniform: [0.5, 2]}}")
    mixing = "recipe: [{op: crop_flip, padding: 1}, {op: mixup}]"
    text = (
        path.read_text()
        .replace("recipe: []", mixing)
        .replace("  preparation:", f"{prepared_by}  preparation:")
    )
    path.write_text(text)
    run = run_of(path)
    assert run.experiment.views.weak.mixes == "mixup"
    if prepared_by:
        views = teacher_request(run)[0].views
    else:
        views = preparation_request(run, teacher_stage(run), Preparation.BRANCHES)[0].views
    assert [step.op for step in views.weak.recipe] == ["crop_flip"]


def test_another_recipe_prepares_anew_and_leaves_the_teacher(written: Written) -> None:
    first = prepared(run_of(written()))
    second = prepared(run_of(written(epochs=2)))
    assert first.fingerprint == second.fingerprint
    assert first.prepared[0].sha256 != second.prepared[0].sha256


def test_the_first_recipe_finds_what_it_had_made_when_it_comes_back(written: Written) -> None:
    first = prepared(run_of(written()))
    prepared(run_of(written(epochs=2)))
    assert prepared(run_of(written())) == first
    (part,) = first.prepared
    assert Path(part.weights).is_file()
    again = known_teacher(run_of(written()))
    assert again is not None
    run = run_of(written())
    loaded = prepared_teacher(run.kept(again), load_training(run.experiment.data))  # type: ignore[arg-type]
    assert part_digest(loaded.get_submodule("parts.ss_head"), part.kind) == part.sha256


def epochs_told(run: Run) -> list[int]:
    return [event.epoch for event in run.ledger.events_of(StageEpoch)]


def test_the_ledger_tells_each_epoch_the_digest_and_the_recipe(written: Written) -> None:
    run = run_of(written(epochs=3))
    (part,) = prepared(run).prepared
    assert epochs_told(run) == [1, 2, 3]
    losses = [event.metrics["train/loss"] for event in run.ledger.events_of(StageEpoch)]
    assert losses[-1] < losses[0]
    (noted,) = run.ledger.events_of(TeacherPrepared)
    assert (noted.part, noted.sha256) == ("ss_head", part.sha256)
    assert (noted.recipe["epochs"], noted.recipe["lr"]) == (3, 0.1)


def test_what_it_is_prepared_with_is_noted_again_where_it_changed_and_not_otherwise(written: Written) -> None:
    for epochs in (1, 1, 2, 1):
        run = run_of(written(epochs=epochs))
        prepared(run)
        run.ledger.close()
    notes = run.ledger.events_of(TeacherPrepared)
    assert [event.recipe["epochs"] for event in notes] == [1, 2, 1]
    assert epochs_told(run) == [1, 1, 2]


def test_a_run_of_an_earlier_version_is_told_of_what_it_was_prepared_with(written: Written) -> None:
    path = written()
    first = run_of(path)
    facts = prepared(first)
    first.ledger.close()
    first.ledger.path.unlink()
    older = Ledger(first.out)
    for event in first.ledger.events():
        if not isinstance(event, StageEpoch | TeacherPrepared):
            older.append(event)
    older.close()
    again = run_of(path)
    assert epochs_told(again) == []
    assert prepared(again) == facts
    (noted,) = again.ledger.events_of(TeacherPrepared)
    assert noted.sha256 == facts.prepared[0].sha256


def test_an_epoch_that_was_kept_but_not_heard_is_told_by_the_run_that_goes_on(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(epochs=4)
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.1, checkpoint_every: 1"))

    def killed(_: Workers, request: PreparationRequest, tell: OnEpoch, *, heard: int) -> PreparedPart:
        """Of three epochs that were kept the last did not come to the driver."""

        def until_three(epoch: int, metrics: dict[str, float]) -> None:
            if epoch < 3:
                tell(epoch, metrics)
            if epoch == 4:
                raise ConnectionError

        return prepare_teacher(request, until_three, heard=heard)

    first = run_of(path)
    with monkeypatch.context() as once:
        once.setattr(Workers, "prepare", killed)
        with pytest.raises(ConnectionError):
            prepared(first)
    first.ledger.close()
    again = run_of(path)
    prepared(again)
    assert epochs_told(again) == [1, 2, 3, 4]


def test_weights_that_are_gone_are_made_again(written: Written) -> None:
    path = written()
    facts = prepared(run_of(path))
    Path(facts.prepared[0].weights).unlink()
    known = known_teacher(run_of(path))
    assert known is not None
    assert known.prepared == ()
    again = run_of(path)
    assert prepared(again) == facts
    assert Path(facts.prepared[0].weights).is_file()
    assert epochs_told(again) == [1, 1]


def test_a_cache_and_a_search_hang_on_what_the_teacher_was_prepared_with(written: Written) -> None:
    first, second = run_of(written()), None
    one = prepared(first)
    asked = cache_request(first, one)
    second = run_of(written(epochs=2))
    other = prepared(second)
    asks = cache_request(second, other)
    assert asked.identity == asks.identity  # its logits are the same
    assert asked.uri == asks.uri
    shards = {
        part: Shard(bank="weak", view=0, index=0, first=0, rows=48, part=part)
        for part in ("logits", "ss_head")
    }
    fingerprints = [{part: r.origin.fingerprint_of(s) for part, s in shards.items()} for r in (asked, asks)]
    assert fingerprints[0]["logits"] == fingerprints[1]["logits"]
    assert fingerprints[0]["ss_head"] != fingerprints[1]["ss_head"]
    place = open_place(asked.uri)
    claim_folder(place, asked.origin)
    claimed = claim_folder(place, asks.origin)  # what was prepared anew takes the place of the first
    assert claimed.fingerprint_of(shards["ss_head"]) == fingerprints[1]["ss_head"]
    first_key = first.search_key(one.split, one, asked.identity)
    assert first_key != second.search_key(other.split, other, asks.identity)


def test_a_caches_workers_ask_the_prepared_teacher(written: Written) -> None:
    run = run_of(written("sskd: {}, hsakd: {}"))
    facts = prepared(run)
    asked = cache_request(run, facts)
    assert asked.features["weak90"] == ("ss_head", "branch1", "branch2", "branch3")
    claim_folder(open_place(asked.uri), asked.origin)
    worker = TeacherWorker(asked.plain(), asked.uri, asked.origin.plain())
    rows = asked.facts.n_rows
    shards = [
        Shard(bank="weak90", view=0, index=0, first=0, rows=rows, part=part)
        for part in ("logits", "ss_head", "branch3")
    ]
    (answer,) = worker({"shards": [json.dumps([shard.plain() for shard in shards])]})["answer"]
    assert "error" not in json.loads(answer), answer
    assert [ShardRecord.from_plain(record).shard for record in json.loads(answer)] == shards
    assert feature_shapes(asked, ["ss_head", "branch1"]) == {"ss_head": (16,), "branch1": (40,)}


def test_the_size_of_what_will_be_prepared_is_known_before(written: Written) -> None:
    run = run_of(written("sskd: {}, hsakd: {}"))
    asked = cache_request(run, teacher_stage(run))
    assert isinstance(asked.teacher, KeptNetwork)
    assert asked.teacher.prepared == ()
    assert feature_shapes(asked, ["branch2", "ss_head"]) == {"ss_head": (16,), "branch2": (40,)}


def test_a_teacher_that_is_no_network_of_pytorch_is_not_prepared(written: Written) -> None:
    path = written()
    path.write_text(path.read_text().replace("model: {name: resnet8, width: 4}", "imported: true"))
    with pytest.raises(ConfigError, match=r"`preparation` is of a network of PyTorch"):
        load_experiment(str(path))


def with_teacher(path: Path, line: str) -> Path:
    """The experiment with a line more below `teacher`."""
    path.write_text(path.read_text().replace("  preparation:", f"  {line}\n  preparation:"))
    return path


def test_a_teacher_that_was_trained_with_its_branches_is_not_prepared_with_others(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_teacher(written("hsakd: {branch_weight: {uniform: [0.5, 2]}}"), "prepared: joint_branches")
    monkeypatch.setattr(Workers, "prepare", lambda *_, **__: pytest.fail("it has its branches"))
    run = run_of(path)
    facts = prepared(run)
    assert [part.kind for part in facts.prepared] == [Preparation.BRANCHES]
    assert recorded_teacher(run) == known_teacher(run) == facts
    (noted,) = run.ledger.events_of(TeacherPrepared)
    assert (noted.part, noted.sha256) == ("branches", facts.prepared[0].sha256)
    assert noted.recipe == run.experiment.teacher.training.plain()
    asked = cache_request(run, facts)
    assert feature_shapes(asked, ["branch1"]) == {"branch1": (40,)}
    assert facts.fingerprint != prepared(run_of(written("kd: {temperature: {uniform: [1, 4]}}"))).fingerprint


def test_a_teacher_with_the_students_classifier_is_trained_after_the_student(written: Written) -> None:
    out = io.StringIO()
    path = with_teacher(written("kd: {temperature: {uniform: [1, 4]}}"), "prepared: student_classifier")
    path.write_text(path.read_text() + "training: {epochs: 2, batch_size: 20}\n")
    run = run_of(path, out)
    request, _ = teacher_request(run)
    assert request.student == run.student
    facts = teacher_stage(run)
    assert "teacher: 3/3" in out.getvalue()  # two epochs of the student, one of the teacher
    assert recorded_teacher(run) == facts
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 3"))
    assert recorded_teacher(run_of(path)) is None  # another student is another teacher


def test_a_loaded_teacher_is_not_trained_anew(written: Written, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"")
    path = with_teacher(written(), "checkpoint: a.safetensors\n  prepared: joint_branches")
    with pytest.raises(ConfigError, match=r"`prepared: joint_branches` says how the teacher is trained here"):
        load_experiment(str(path))


@pytest.fixture
def cached_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches are computed in this process too."""

    def records(
        request: CacheRequest, place: Place, origin: Origin, missing: tuple[Shard, ...]
    ) -> Iterator[list[ShardRecord]]:
        worker = TeacherWorker(request.plain(), place.uri, origin.plain())
        for group in together(missing):
            (answer,) = worker({"shards": [json.dumps([shard.plain() for shard in group])]})["answer"]
            assert "error" not in json.loads(answer), answer
            yield [ShardRecord.from_plain(record) for record in json.loads(answer)]

    monkeypatch.setattr(cache_build, "computed_by_ray_data", records)
    monkeypatch.setattr(cache_stage, "_actors", lambda *_: 1)
    monkeypatch.setattr(Workers, "stage_resources", lambda _: (0.0, 0.0))


def cached(run: Run) -> tuple[CacheSummary, Manifest]:
    """The cache of a run, computed and proved."""
    summary = cache_stage.complete_cache(run, prepared(run))
    run.ledger.close()
    return summary, read_manifest(open_place(summary.uri))[0]


@pytest.mark.usefixtures("cached_here")
def test_another_space_runs_in_the_folder_of_one_that_had_the_teacher_prepared(
    written: Written,
) -> None:
    first, manifest = cached(run_of(written("sskd: {}, hsakd: {}")))
    assert manifest.features["weak"] == ("ss_head", "branch1", "branch2", "branch3")
    second, grown = cached(run_of(written("rkd: {distance_weight: {uniform: [1, 50]}}")))
    assert second.uri == first.uri
    assert second.computed == 1
    assert grown.features["weak"] == ("ss_head", "branch1", "branch2", "branch3", "embedding")
    assert grown.made_by == manifest.made_by


@pytest.mark.usefixtures("cached_here")
def test_more_views_of_another_space_leave_what_the_teacher_was_prepared_with_to_who_asks_for_it(
    written: Written,
) -> None:
    _, manifest = cached(run_of(written()))
    path = written("rkd: {distance_weight: {uniform: [1, 50]}}")
    path.write_text(path.read_text().replace("views: 1", "views: 2"))
    summary, grown = cached(run_of(path))
    assert summary.computed == 1 + 2  # logits of a view, and embeddings of both
    assert grown.features["weak"] == ("embedding",)
    assert grown.features["weak90"] == ("ss_head",)
    assert grown.banks["weak"].views == 2
    again, whole = cached(run_of(written()))
    assert again.computed == 0
    assert whole.banks["weak"].views == 1
    assert whole.features["weak"] == ("ss_head", "embedding")
    assert whole.made_by == manifest.made_by
    path.write_text(path.read_text().replace("views: 1", "views: 2"))
    more, both = cached(run_of(path))
    assert more.computed == 4 + 3  # of the second view: ss_head, and logits of the turned ones
    assert both.banks["weak90"].views == 2
    assert both.features["weak"] == ("ss_head", "embedding")


@pytest.mark.usefixtures("cached_here")
def test_students_are_served_the_features_that_their_run_keeps(written: Written) -> None:
    maps = "fitnet: {hint_weight: {uniform: [1, 200]}}"
    path = written(maps)
    path.write_text(path.read_text() + "cache: {features: [stage2]}\n")
    keeps = run_of(path)
    summary, manifest = cached(keeps)
    assert manifest.features == {"weak": ("stage2",)}
    assert keeps.workbench(summary, teacher=prepared(keeps)).kept == {"weak": ("stage2",)}
    asks = run_of(written(maps))
    summary, manifest = cached(asks)
    assert manifest.features == {"weak": ("stage2",)}
    spec = asks.workbench(summary, teacher=prepared(asks))
    assert spec.kept == {}
    assert spec.beside is not None
    assert WorkbenchSpec.from_plain(spec.plain()) == spec
    assert "kept" not in asks.workbench(None).plain()
    rows, shown = torch.arange(8), WarmState(torch.device("cpu"))
    features = [
        shown.workbench(one).teacher("weak", 1, rows, ("stage2",)).features["stage2"]
        for one in (spec, spec.with_overrides(kept=None))
    ]
    assert torch.equal(features[1], features[1].half().float())
    assert not torch.equal(features[0], features[1])
    assert torch.allclose(features[0], features[1], rtol=2e-3, atol=1e-3)


def test_the_weights_of_the_teachers_last_layer_are_among_what_a_run_keeps(written: Written) -> None:
    run = run_of(written("srd: {alpha: {uniform: [0.5, 2]}}"))
    assert run.kept_features["teacher"] == ("classifier",)
    assert run.kept_features == cache_request(run, teacher_stage(run)).features
