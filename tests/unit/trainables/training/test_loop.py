from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import (
    SHORT,
    VIEWS,
    same_weights,
    separable_data,
    small_course,
    small_student,
    small_workbench,
    untimed,
    weights_of,
)
from trainables.config import (
    CeConfig,
    CrldConfig,
    DkdConfig,
    KdConfig,
    LsConfig,
    ObjectiveBase,
    OptimizerName,
    TrainingConfig,
)
from trainables.data.splits import split_facts
from trainables.errors import TrialFailed
from trainables.training.course import Course, TrainingResult
from trainables.training.loop import train
from trainables.training.progress.checkpoint_paths import kept_state
from trainables.training.progress.checkpoints import CheckpointFolder

pytestmark = pytest.mark.usefixtures("one_thread")

ADAMW = SHORT.with_overrides(optimizer=OptimizerName.ADAMW, lr=0.01)
MEAN = SHORT.with_overrides(ema=0.9, clip_norm=0.5)
RECIPES = {"sgd": SHORT, "adamw": ADAMW, "mean of weights": MEAN}
BATCHES = 44 // SHORT.batch_size

Told = list[tuple[int, dict[str, float]]]


class Lost(Exception):
    """A worker that dies."""


def listener(told: Told, *, dies_in: int | None = None) -> Callable[[int, dict[str, float]], None]:
    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == dies_in:
            raise Lost
        told.append((epoch, metrics))

    return on_epoch


def run(course: Course, files: CheckpointFolder | None = None) -> tuple[TrainingResult, Told]:
    told: Told = []
    return train(course, small_workbench(), on_epoch=listener(told), files=files), told


def batches_of(model: nn.Module) -> list[int]:
    """Sizes of the batches that the model is trained on from now on."""
    sizes: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            sizes.append(len(inputs[0]))

    model.register_forward_pre_hook(note)
    return sizes


def end_of(course: Course, outcome: TrainingResult, told: Told) -> tuple[dict[str, Tensor], object]:
    metrics = {epoch: untimed(figures) for epoch, figures in told}
    return weights_of(course.model), (outcome.best_epoch, untimed(outcome.best), outcome.epochs, metrics)


def is_same(one: tuple[dict[str, Tensor], object], other: tuple[dict[str, Tensor], object]) -> bool:
    return same_weights(one[0], other[0]) and one[1] == other[1]


@pytest.mark.parametrize("training", RECIPES.values(), ids=RECIPES)
def test_the_same_course_and_seed_give_the_same_weights_and_metrics(training: TrainingConfig) -> None:
    ends = []
    for noise in (1, 2):
        torch.manual_seed(noise)  # the state that others leave behind must not matter
        course = small_course(training)
        ends.append(end_of(course, *run(course)))
    assert is_same(*ends)


def test_another_seed_gives_other_weights() -> None:
    one, other = small_course(seed=3), small_course(seed=4)
    run(one)
    run(other)
    assert not same_weights(weights_of(one.model), weights_of(other.model))


@pytest.mark.parametrize("training", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("dies_in", [1, 2, 3, 4, 5])
def test_a_killed_course_goes_on_to_the_same_end(
    tmp_path: Path, training: TrainingConfig, dies_in: int
) -> None:
    whole = small_course(training)
    expected = end_of(whole, *run(whole))
    files, told = CheckpointFolder(tmp_path, spec_digest="a"), Told()
    with pytest.raises(Lost):
        train(
            small_course(training), small_workbench(), on_epoch=listener(told, dies_in=dies_in), files=files
        )
    course = small_course(training)
    outcome = train(course, small_workbench(), on_epoch=listener(told), files=files)
    assert is_same(end_of(course, outcome, told), expected)
    # The state is one of epoch 2 or 4; what came after it is trained and told again.
    kept = (dies_in - 1) // 2 * 2
    assert [epoch for epoch, _ in told] == [*range(1, dies_in), *range(kept + 1, 6)]


@pytest.mark.parametrize("training", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("steps", [0, 1, BATCHES, 2 * BATCHES + 1, 5 * BATCHES - 1])
def test_a_stopped_course_goes_on_to_the_same_end(
    tmp_path: Path, training: TrainingConfig, steps: int
) -> None:
    whole = small_course(training)
    expected = end_of(whole, *run(whole))
    files, told = CheckpointFolder(tmp_path, spec_digest="a"), Told()
    asked = itertools.count()
    stopped = train(
        small_course(training),
        small_workbench(),
        on_epoch=listener(told),
        should_stop=lambda: next(asked) >= steps,
        files=files,
    )
    assert (stopped.stopped, stopped.epochs) == (True, steps // BATCHES)
    course = small_course(training)
    outcome = train(course, small_workbench(), on_epoch=listener(told), files=files)
    assert is_same(end_of(course, outcome, told), expected)


def test_epochs_are_told_once_when_nothing_was_lost(tmp_path: Path) -> None:
    training = SHORT.with_overrides(checkpoint_every=1)
    files, told = CheckpointFolder(tmp_path, spec_digest="a"), Told()
    for steps in (2 * BATCHES, 1 * BATCHES, 0, 100 * BATCHES):
        asked = itertools.count()
        train(
            small_course(training),
            small_workbench(),
            on_epoch=listener(told),
            should_stop=lambda asked=asked, steps=steps: next(asked) >= steps,  # type: ignore[misc]
            files=files,
        )
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4, 5]


def test_a_listener_that_missed_epochs_is_told_them_from_the_state(tmp_path: Path) -> None:
    whole = small_course()
    _, expected = run(whole)
    files = CheckpointFolder(tmp_path, spec_digest="a")
    with pytest.raises(Lost):
        train(small_course(), small_workbench(), on_epoch=listener([], dies_in=5), files=files)
    told = Told()
    train(small_course(), small_workbench(), on_epoch=listener(told), files=files, heard=1)
    assert [epoch for epoch, _ in told] == [2, 3, 4, 5]
    assert [untimed(metrics) for _, metrics in told] == [untimed(metrics) for _, metrics in expected[1:]]


@pytest.mark.parametrize("steps", [0, 1, BATCHES + 2])
def test_a_stop_is_obeyed_before_the_next_batch(steps: int) -> None:
    course, asked = small_course(), itertools.count()
    sizes = batches_of(course.model)
    train(course, small_workbench(), on_epoch=lambda *_: None, should_stop=lambda: next(asked) >= steps)
    assert len(sizes) == steps


def test_the_weights_kept_are_those_of_the_best_selection_epoch() -> None:
    """The selection labels are wrong ones, so that the accuracy falls while the student learns."""
    course, kept, told = small_course(), {}, Told()

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        told.append((epoch, metrics))
        kept[epoch] = weights_of(course.model)

    outcome = train(course, small_workbench(separable_data(shift=1)), on_epoch=on_epoch)
    accuracies = {epoch: metrics["selection/accuracy"] for epoch, metrics in told}
    assert outcome.best_epoch == max(accuracies, key=lambda epoch: (accuracies[epoch], -epoch))
    assert outcome.best_epoch < SHORT.epochs
    assert outcome.best["selection/accuracy"] == max(accuracies.values())
    assert same_weights(weights_of(course.model), kept[outcome.best_epoch])
    assert not same_weights(kept[outcome.best_epoch], kept[SHORT.epochs])


def weights_after_each_step(course: Course) -> list[dict[str, Tensor]]:
    """The course is trained."""
    steps: list[dict[str, Tensor]] = []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(weights_of(course.model)))
    try:
        run(course)
    finally:
        hook.remove()
    return steps


def test_with_a_mean_of_the_weights_the_mean_is_what_is_evaluated_selected_and_kept() -> None:
    """The mean is made again here from the weights after each step of the same course without it."""
    mean = weights_of(small_course().model)
    steps = weights_after_each_step(small_course())
    means = []
    for step, weights in enumerate(steps):
        decay = min(0.9, (1 + step) / (10 + step))
        mean = {
            name: decay * value + (1 - decay) * weights[name] if value.is_floating_point() else weights[name]
            for name, value in mean.items()
        }
        means.append(mean)
    course = small_course(SHORT.with_overrides(ema=0.9))
    outcome, _ = run(course)
    expected = means[outcome.best_epoch * BATCHES - 1]
    for name, value in weights_of(course.model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    workbench = small_workbench()
    figures = workbench.evaluate(course.model, workbench.data.selection, batch_size=30)
    assert {name: outcome.best[f"selection/{name}"] for name in figures} == figures
    assert not same_weights(weights_of(course.model), steps[outcome.best_epoch * BATCHES - 1])


def test_a_course_that_goes_on_from_one_without_a_mean_starts_it_there(tmp_path: Path) -> None:
    origin, forked = CheckpointFolder(tmp_path / "a", spec_digest="a", keep_all=True), tmp_path / "b"
    run(small_course(SHORT.with_overrides(epochs=3)), origin)
    state = kept_state(origin.folder, 2)
    course = small_course(SHORT.with_overrides(ema=0.5, epochs=3, lr=1e-9, momentum=0.0, weight_decay=0.0))
    run(course, CheckpointFolder(forked, spec_digest="b", origin=state))
    begun = torch.load(state, weights_only=True)["model"]
    for name, parameter in course.model.named_parameters():
        torch.testing.assert_close(parameter, begun[name], rtol=1e-5, atol=1e-5)


def test_a_gradient_that_is_clipped_moves_the_weights_less_and_its_norm_is_told() -> None:
    plain, clipped = (
        small_course(SHORT.with_overrides(epochs=1, momentum=0.0, weight_decay=0.0, clip_norm=norm))
        for norm in (None, 1e-3)
    )
    before = weights_of(plain.model)
    run(plain)
    _, ((_, metrics),) = run(clipped)
    assert metrics["train/gradient_norm"] > 0.1
    moved = {
        name: float((value.detach() - before[name]).norm())
        for name, value in clipped.model.named_parameters()
    }
    # Each step moves all weights together by lr times the norm at most.
    assert 0 < max(moved.values()) <= BATCHES * SHORT.lr * 1e-3 * 1.001
    assert not same_weights(weights_of(plain.model), weights_of(clipped.model))


def test_the_recipes_label_smoothing_is_that_of_the_objective_of_that_name() -> None:
    by_recipe = small_course(SHORT.with_overrides(epochs=1, label_smoothing=0.2))
    by_objective = small_course(SHORT.with_overrides(epochs=1), objective=LsConfig(smoothing=0.2))
    (_, ((_, one),)), (_, ((_, other),)) = run(by_recipe), run(by_objective)
    assert one["train/loss"] == other["train/loss"]
    assert same_weights(weights_of(by_recipe.model), weights_of(by_objective.model))


def test_a_student_learns_what_there_is_to_learn() -> None:
    outcome, told = run(small_course(SHORT.with_overrides(epochs=12)))
    assert outcome.best["selection/accuracy"] > 0.8
    assert told[-1][1]["train/loss"] < 0.5 * told[0][1]["train/loss"]


@pytest.mark.parametrize("kind", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_fails_the_trial(kind: float) -> None:
    course = small_course()
    with torch.no_grad():
        next(iter(course.model.children())).weight[0, 0, 0, 0] = kind  # type: ignore[operator]
    with pytest.raises(TrialFailed, match=r"the loss is nan in epoch 1; a lower lr or weight may help"):
        run(course)


def test_a_rate_far_too_high_fails_the_trial() -> None:
    with pytest.raises(TrialFailed, match=r"in epoch \d|not finite"):
        run(small_course(SHORT.with_overrides(lr=100.0, momentum=0.99, weight_decay=10.0, epochs=50)))


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    data = separable_data()
    folder = tmp_path_factory.mktemp("lab")
    tiny = TinyCache(folder, data, small_student(seed=9), split_facts(data), views=VIEWS)
    tiny.build()
    return tiny


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        (CeConfig(), {"ce"}),
        (KdConfig(), {"ce", "kd"}),
        (DkdConfig(), {"ce", "tckd", "nckd"}),
        (CrldConfig(), {"ce_weak", "ce_strong", "within", "cross", "kept_weak", "kept_strong"}),
    ],
    ids=["ce", "kd", "dkd", "crld"],
)
def test_every_term_of_the_loss_is_among_the_metrics(
    kitchen: TinyCache, objective: ObjectiveBase, terms: set[str]
) -> None:
    told = Told()
    workbench = small_workbench(kitchen.data, cache=kitchen.open())
    train(
        small_course(SHORT.with_overrides(epochs=1), objective=objective), workbench, on_epoch=listener(told)
    )
    ((_, metrics),) = told
    assert {f"train/{term}" for term in terms} < set(metrics)
    assert {"train/loss", "selection/accuracy", "selection/nll", "selection/ece", "seconds"} < set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_loss_told_is_the_weighted_sum_of_its_terms(kitchen: TinyCache) -> None:
    told = Told()
    workbench = small_workbench(kitchen.data, cache=kitchen.open())
    objective = KdConfig(ce_weight=0.25, kd_weight=2.0)
    train(small_course(objective=objective), workbench, on_epoch=listener(told))
    for _, metrics in told:
        weighted = 0.25 * metrics["train/ce"] + 2.0 * metrics["train/kd"]
        assert metrics["train/loss"] == pytest.approx(weighted, rel=1e-5)


def test_a_training_split_smaller_than_a_batch_is_one_batch() -> None:
    told = Told()
    train(small_course(), small_workbench(separable_data(5)), on_epoch=listener(told))
    assert len(told) == SHORT.epochs


def test_a_short_last_batch_is_left_out() -> None:
    course = small_course(SHORT.with_overrides(epochs=1))
    sizes = batches_of(course.model)
    train(course, small_workbench(separable_data(44)), on_epoch=lambda *_: None)
    assert sizes == [8] * 5
