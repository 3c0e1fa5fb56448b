"""Students learn from unlabelled images by the teacher alone, and just so whether it is cached or online."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.data.image_folders import config_of, picture, write_folder
from tests.unit.trainables.objective_variants import (
    TAUGHT_BANKS,
    VARIANTS,
    peers_for,
    student_for,
    taught_features,
    variants_teacher,
)
from tests.unit.trainables.training.small_courses import (
    CPU,
    SHORT,
    VIEWS,
    same_weights,
    separable_data,
    separable_split,
    small_course,
    small_student,
    small_workbench,
    untimed,
    weights_of,
)
from tests.unit.trainables.unlabelled_splits import noise, with_unlabelled
from trainables.config import (
    BankConfig,
    CeConfig,
    DkdConfig,
    KdConfig,
    Need,
    ObjectiveBase,
    Precision,
    TrainingConfig,
    TrainingPrecision,
    ViewsConfig,
)
from trainables.config.cache import FeaturePrecision
from trainables.config.data import UnlabelledConfig
from trainables.config.views import MixupStep
from trainables.data import TrainingData, load_training
from trainables.data.splits import split_facts
from trainables.errors import TrialFailed
from trainables.objectives import build_objective
from trainables.objectives.terms.divergences import kd_divergence_B
from trainables.teacher.live import LiveTeacher
from trainables.teacher.online import OnlineTeacher
from trainables.training.batches import Batch, shared
from trainables.training.course import Course
from trainables.training.learners.answers import Asked
from trainables.training.loop import train
from trainables.training.progress.checkpoints import CheckpointFolder
from trainables.training.ranks import SOLO
from trainables.training.step_inputs import StepInputs
from trainables.training.workbench import Workbench

N_TRAIN, N_OWN = 20, 16
BRIEF = SHORT.with_overrides(epochs=2, checkpoint_every=1)
SERVED = [
    name
    for name, objective in VARIANTS.items()
    if objective.teacher_banks and objective.uses_label.value == "none"
]
TARGETED = [name for name, objective in VARIANTS.items() if objective.uses_label.value == "target_class"]


def beside(data: TrainingData | None = None, **config: Any) -> TrainingData:
    images = separable_split(N_OWN, seed=5).images
    assert isinstance(images, Tensor)
    return with_unlabelled(data or separable_data(N_TRAIN), images, **config)


def cache_of(folder: Path, data: TrainingData, views: ViewsConfig = VIEWS) -> TinyCache:
    """Asked about one sample at a time, so that no batch can make the teacher's sums differ."""
    tiny = TinyCache(
        folder, data, variants_teacher(), split_facts(data), views=views, precision=Precision.FP32
    )
    banks = TAUGHT_BANKS if views is VIEWS else ("weak",)
    features = {bank: names for bank, names in taught_features().items() if bank in (*banks, "teacher")}
    tiny = tiny.but(batch_size=1, features=features, feature_precision=FeaturePrecision.FP32)
    tiny.build(banks)
    return tiny


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    return cache_of(tmp_path_factory.mktemp("lab"), beside())


def online(tiny: TinyCache) -> OnlineTeacher:
    live = LiveTeacher(tiny.teacher, tiny.data, seed=7, batch_size=1, device=CPU)
    return OnlineTeacher(live, tiny.views)


def bench(tiny: TinyCache, **options: Any) -> Workbench:
    settings: dict[str, Any] = {"view_seed": 7, "device": CPU, "cache": tiny.open()} | options
    return Workbench(settings.pop("data", tiny.data), tiny.views, **settings)


def trained(
    workbench: Workbench, objective: ObjectiveBase, training: TrainingConfig = BRIEF, **options: Any
) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    course = Course(student_for(objective), objective, training, 3, peers=peers_for(objective))
    told: list[dict[str, float]] = []
    train(course, workbench, on_epoch=lambda _, metrics: told.append(untimed(metrics)), **options)
    return weights_of(course.model), told


@pytest.mark.parametrize("name", [name for name in SERVED if name != "cbd"])
def test_cached_training_is_online_training_bit_for_bit(cached: TinyCache, name: str) -> None:
    from_cache = trained(bench(cached), VARIANTS[name])
    from_teacher = trained(bench(cached, cache=online(cached)), VARIANTS[name])
    assert same_weights(from_cache[0], from_teacher[0])
    assert from_cache[1] == from_teacher[1]


def test_pairs_of_a_class_train_beside_unlabelled_images(cached: TinyCache) -> None:
    pairs = BRIEF.with_overrides(sampling="pairs")
    from_cache = trained(bench(cached), KdConfig(), pairs)
    assert same_weights(from_cache[0], trained(bench(cached, cache=online(cached)), KdConfig(), pairs)[0])
    assert not same_weights(from_cache[0], trained(bench(cached), KdConfig())[0])


def test_the_teacher_makes_a_difference(cached: TinyCache) -> None:
    """Without this, the tests above could pass with a teacher that nobody hears."""
    other = cached.but(teacher=variants_teacher(seed=10))
    heard = trained(bench(cached), KdConfig())[0]
    assert not same_weights(heard, trained(bench(other, cache=online(other)), KdConfig())[0])


def test_features_of_unlabelled_images_are_served_as_the_teacher_says_them(cached: TinyCache) -> None:
    rows, asked = torch.tensor([30, 3, 35]), ("embedding", "energy.stage2", "stage2")
    kept = bench(cached).teacher("weak", 1, rows, asked).features
    said = bench(cached, cache=online(cached)).teacher("weak", 1, rows, asked).features
    assert kept.keys() == said.keys() == {*asked}
    assert all(torch.equal(kept[name], said[name]) for name in asked)
    _, told = trained(bench(cached), VARIANTS["cbd"])
    assert all(metrics["train/embedding"] > 0 for metrics in told)


def test_another_budget_for_views_and_answers_changes_nothing(cached: TinyCache) -> None:
    kept = trained(bench(cached), VARIANTS["crld"])
    assert same_weights(kept[0], trained(bench(cached, render_budget_bytes=0), VARIANTS["crld"])[0])


def test_the_loss_is_labels_of_the_labelled_and_the_teacher_of_all(cached: TinyCache) -> None:
    workbench, student = bench(cached), small_student()
    rows = torch.tensor([30, 3, 24, 17, 35, 19])
    inputs = StepInputs(KdConfig(), workbench, student)
    share = shared(SOLO, Batch(rows, 3), n_train=N_TRAIN)
    torch.manual_seed(0)
    signals = inputs.signals(Asked(student, torch.contiguous_format, TrainingPrecision.FP32), 2, share)
    losses = build_objective(KdConfig())(signals)
    ordered = torch.tensor([3, 17, 19, 30, 24, 35])
    torch.manual_seed(0)
    student_BC = student(workbench.images("weak", 2, ordered))
    teacher_BC = workbench.teacher("weak", 2, ordered).logits_BC
    ce = F.cross_entropy(student_BC[:3], workbench.data.train.labels[ordered[:3]])
    kd = kd_divergence_B(student_BC, teacher_BC, temperature=4.0).mean()
    torch.testing.assert_close(losses.terms["ce"], ce)
    torch.testing.assert_close(losses.total, 0.1 * ce + 0.9 * kd)


def test_an_interrupted_course_goes_on_to_the_same_bits(cached: TinyCache, tmp_path: Path) -> None:
    whole = trained(bench(cached), KdConfig())
    calls = 0

    def stops_in_epoch_two() -> bool:
        nonlocal calls
        calls += 1
        return calls > N_TRAIN // 4 + 2

    files = CheckpointFolder(tmp_path, spec_digest="x")
    trained(bench(cached), KdConfig(), files=files, should_stop=stops_in_epoch_two)
    again = trained(bench(cached), KdConfig(), files=files)
    assert same_weights(whole[0], again[0])


def test_the_control_is_the_student_that_it_is_without_unlabelled_images(cached: TinyCache) -> None:
    alone = trained(small_workbench(separable_data(N_TRAIN)), CeConfig())
    assert same_weights(trained(bench(cached), CeConfig())[0], alone[0])
    assert trained(bench(cached), CeConfig())[1] == alone[1]


def test_in_the_place_of_labelled_images_no_label_is_looked_at(tmp_path: Path) -> None:
    tiny = cache_of(tmp_path, beside(share=1.0))
    labels = tiny.data.train.labels
    wrong = replace(tiny.data, train=replace(tiny.data.train, labels=(labels + 1) % 3))
    one = trained(bench(tiny), KdConfig())
    other = trained(bench(tiny, data=wrong), KdConfig())
    assert same_weights(one[0], other[0])
    assert {metrics["train/ce"] for metrics in one[1]} == {0.0}
    assert all("selection/accuracy" in metrics for metrics in one[1])


def test_labels_are_looked_at_beside_unlabelled_images(cached: TinyCache) -> None:
    labels = cached.data.train.labels
    wrong = replace(cached.data, train=replace(cached.data.train, labels=(labels + 1) % 3))
    assert not same_weights(
        trained(bench(cached), KdConfig())[0], trained(bench(cached, data=wrong), KdConfig())[0]
    )


def test_mixed_recipes_mix_each_kind_with_its_own(tmp_path: Path) -> None:
    views = ViewsConfig(weak=BankConfig(recipe=(MixupStep(op="mixup"),), views=2))
    tiny = cache_of(tmp_path, beside(), views)
    workbench = bench(tiny)
    student = small_student()
    inputs = StepInputs(KdConfig(), workbench, student)
    share = shared(SOLO, Batch(torch.tensor([30, 3, 24, 17]), 2), n_train=N_TRAIN)
    signals = inputs.signals(Asked(student, torch.contiguous_format, TrainingPrecision.FP32), 1, share)
    mixing = signals.mixed["weak"]
    assert mixing.labels_BK.shape == (2, 2)
    assert (mixing.labels_BK >= 0).all()
    ended = trained(workbench, KdConfig())
    assert same_weights(ended[0], trained(bench(tiny, cache=online(tiny)), KdConfig())[0])


@pytest.mark.parametrize("name", TARGETED)
def test_what_is_about_the_labels_class_is_refused_or_takes_the_teachers(
    cached: TinyCache, name: str
) -> None:
    with pytest.raises(TrialFailed, match=r"about the label's class.*top_class_as_target: true"):
        trained(bench(cached), VARIANTS[name])
    allowed = bench(cached, data=beside(top_class_as_target=True))
    weights, told = trained(allowed, VARIANTS[name])
    again = trained(
        bench(cached, data=beside(top_class_as_target=True), cache=online(cached)), VARIANTS[name]
    )
    assert same_weights(weights, again[0])
    assert len(told) == BRIEF.epochs


def test_the_teachers_class_is_no_label_of_the_cross_entropy(cached: TinyCache) -> None:
    workbench, student = bench(cached, data=beside(top_class_as_target=True)), small_student()
    inputs = StepInputs(DkdConfig(), workbench, student)
    share = shared(SOLO, Batch(torch.tensor([30, 31, 3, 4]), 2), n_train=N_TRAIN)
    signals = inputs.signals(Asked(student, torch.contiguous_format, TrainingPrecision.FP32), 1, share)
    labels = workbench.data.train.labels
    top_class = workbench.teacher("weak", 1, share.rows_B).logits_BC.argmax(dim=1)
    assert signals.labels_B.tolist() == [*labels[[3, 4]].tolist(), *top_class[2:].tolist()]
    losses = build_objective(DkdConfig())(signals)
    expected = F.cross_entropy(signals.student["weak"][:2], labels[[3, 4]])
    torch.testing.assert_close(losses.terms["ce"], expected.detach())


def test_an_attack_away_from_labels_is_refused(cached: TinyCache) -> None:
    with pytest.raises(TrialFailed, match="attacks each image away from its label, and these have none"):
        trained(bench(cached, data=beside(top_class_as_target=True)), VARIANTS["akd"])


def test_every_objective_is_served_or_refused_or_sees_labelled_images_alone() -> None:
    without = {name for name, objective in VARIANTS.items() if not objective.teacher_banks}
    assert {"ce", "ls", "zipf", "pskd", "dml", "mcl", "mfef", "mixskd"} <= without
    assert set(TARGETED) == {"dkd", "aekt", "crld dkd", "ctkd dkd", "mlkd"}
    assert {*SERVED, *TARGETED, *without, "akd"} == VARIANTS.keys()


@pytest.mark.parametrize("name", ["ls", "zipf", "pskd"])
def test_objectives_without_a_teacher_train_as_they_do_alone(cached: TinyCache, name: str) -> None:
    objective = VARIANTS[name]
    assert Need.ONLINE_TEACHER not in objective.needed
    alone = trained(small_workbench(separable_data(N_TRAIN)), objective)
    assert same_weights(trained(bench(cached), objective)[0], alone[0])


def test_students_hear_of_images_that_only_the_teacher_knows(tmp_path: Path) -> None:
    """Few labels and a good teacher: what it says of other images is worth something."""
    few = separable_data(9)
    teacher = small_student(seed=9)
    train(
        Course(teacher, CeConfig(), SHORT.with_overrides(epochs=6), 1),
        small_workbench(separable_data(200)),
        on_epoch=lambda *_: None,
    )
    images = separable_split(120, seed=5).images[:]
    data = with_unlabelled(few, images, share=0.9)
    tiny = TinyCache(tmp_path, data, teacher, split_facts(data), views=VIEWS, precision=Precision.FP32)
    tiny.build()
    course = small_course(SHORT.with_overrides(epochs=10, batch_size=16), objective=KdConfig())
    told: list[float] = []
    train(course, bench(tiny), on_epoch=lambda _, metrics: told.append(metrics["selection/accuracy"]))
    alone = small_course(SHORT.with_overrides(epochs=10, batch_size=16), objective=CeConfig())
    control: list[float] = []
    train(
        alone, small_workbench(few), on_epoch=lambda _, metrics: control.append(metrics["selection/accuracy"])
    )
    assert max(told) > max(control)


def test_noise_as_unlabelled_images_is_shown_as_its_views_show_it(cached: TinyCache) -> None:
    data = with_unlabelled(separable_data(N_TRAIN), noise(N_OWN))
    workbench = small_workbench(data)
    kept = workbench.images("strong", 2, torch.tensor([N_TRAIN, 0, N_TRAIN + 5]))
    plain = small_workbench(data, render_budget_bytes=0)
    assert torch.equal(kept, plain.images("strong", 2, torch.tensor([N_TRAIN, 0, N_TRAIN + 5])))
    assert workbench.labels(torch.tensor([0, N_TRAIN])).tolist() == [int(data.train.labels[0]), -1]


def test_images_in_files_are_learned_from_as_images_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root, pool = write_folder(tmp_path / "data", suffix="png"), tmp_path / "pool"
    pool.mkdir()
    for number in range(40):
        picture(1000 + number, 9, 8).save(pool / f"{number:02d}.png")
    ended = []
    for limit, in_files in (
        (4.0, [False, False]),
        (30 * 3 * 8 * 8 / 1e9, [False, True]),
        (0.0, [True, True]),
    ):
        config = config_of(root, memory_gb=limit, unlabelled=UnlabelledConfig(root=str(pool)))
        data = load_training(config.with_overrides(mean=[0.5] * 3, std=[0.25] * 3))
        assert [part.files is not None for part in data.parts] == in_files
        teacher, student = (nn.Sequential(nn.Flatten(), linear(192, 2, seed)) for seed in (1, 2))
        live = LiveTeacher(teacher, data, seed=7, batch_size=1, device=CPU)
        workbench = Workbench(data, VIEWS, view_seed=7, device=CPU, cache=OnlineTeacher(live, VIEWS))
        train(Course(student, KdConfig(), BRIEF, 3), workbench, on_epoch=lambda *_: None)
        ended.append(weights_of(student))
    assert same_weights(ended[0], ended[1])
    assert same_weights(ended[0], ended[2])


def linear(n_in: int, n_out: int, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(n_in, n_out)
