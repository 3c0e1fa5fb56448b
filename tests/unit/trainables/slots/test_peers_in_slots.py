"""Networks beside a student as a slot builds them: with seeds of their own, compiled each for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from tests.unit.trainables.training.small_courses import CPU, same_weights, weights_of
from trainables.config import (
    Cost,
    ModelConfig,
    ModelName,
    Role,
    StartWeights,
    TrainingConfig,
    TrialSpec,
    WorkbenchSpec,
)
from trainables.config.objectives import CeConfig, DmlConfig, MfefConfig
from trainables.errors import TrialFailed
from trainables.local_files import file_sha256
from trainables.models.weights import count_parameters, save_weights
from trainables.slots import warm_state
from trainables.slots.compiled_students import MAX_COMPILED, CompiledStudents
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import End, Message, TrainJob
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState
from trainables.training.loop import train

STUDENT = ModelConfig(name=ModelName.MLP, width=8)
OTHER = ModelConfig(name=ModelName.CONVNET, width=4)


def trial(*peers: ModelConfig, seed: int = 3, **training: Any) -> TrialSpec:
    recipe = TrainingConfig(epochs=1, batch_size=20, precision="fp32").with_overrides(**training)
    return TrialSpec(
        trial_id="dml-1",
        role=Role.SEARCH,
        objective=DmlConfig(peers=len(peers) + 1),
        student=STUDENT,
        training=recipe,
        seed=seed,
        peers=peers,
    )


def listening(told: list[Message]) -> JobChannel:
    def send(message: Message) -> bool:
        told.append(message)
        return True

    return JobChannel(send, lambda: False)


def test_each_network_has_a_seed_of_its_own(spec: WorkbenchSpec) -> None:
    course = WarmState(CPU).course(trial(STUDENT, STUDENT, OTHER), spec)
    networks = [weights_of(course.model), *(weights_of(peer.model) for peer in course.peers)]
    assert not any(same_weights(networks[a], networks[b]) for a in range(4) for b in range(a))
    again = WarmState(CPU).course(trial(STUDENT, STUDENT, OTHER), spec)
    for one, other in zip(again.peers, course.peers, strict=True):
        assert same_weights(weights_of(one.model), weights_of(other.model))
    another = WarmState(CPU).course(trial(STUDENT, STUDENT, OTHER, seed=4), spec)
    assert not same_weights(weights_of(another.peers[0].model), networks[1])


def test_a_peer_more_changes_nothing_of_those_before(spec: WorkbenchSpec) -> None:
    few, many = (WarmState(CPU).course(trial(*[STUDENT] * count), spec) for count in (1, 3))
    assert same_weights(weights_of(few.model), weights_of(many.model))
    assert same_weights(weights_of(few.peers[0].model), weights_of(many.peers[0].model))


def test_a_student_that_starts_from_a_file_has_peers_with_random_weights(
    spec: WorkbenchSpec, tmp_path: Path
) -> None:
    """With equal weights and images they would have nothing to say to each other."""
    warm, file = WarmState(CPU), tmp_path / "start.safetensors"
    save_weights(warm.build(STUDENT, spec, seed=11), file, {})
    started = spec.with_overrides(start=StartWeights(path=str(file), sha256=file_sha256(file)))
    course = warm.course(trial(STUDENT), started)
    assert same_weights(weights_of(course.model), weights_of(warm.build(STUDENT, spec, seed=11)))
    assert not same_weights(weights_of(course.peers[0].model), weights_of(course.model))


def test_fresh_networks_hang_on_purpose_and_number(spec: WorkbenchSpec) -> None:
    course = WarmState(CPU).course(trial(OTHER), spec)
    assert course.fresh is not None
    made = {(purpose, number): course.fresh(purpose, number) for purpose in ("a", "b") for number in (0, 1)}
    assert weights_of(made["a", 0]).keys() == weights_of(course.model).keys()
    assert weights_of(made["a", 1]).keys() == weights_of(course.peers[0].model).keys()
    assert not same_weights(weights_of(made["a", 0]), weights_of(made["b", 0]))
    assert not same_weights(weights_of(made["a", 0]), weights_of(course.model))
    assert same_weights(weights_of(course.fresh("a", 0)), weights_of(made["a", 0]))


def test_compiled_networks_of_one_shape_are_several(spec: WorkbenchSpec) -> None:
    warm = WarmState(CPU)
    warm._students = CompiledStudents(backend="eager")
    told: list[dict[str, float]] = []
    plain: list[dict[str, float]] = []
    for seed in (3, 4):  # the second trial takes what was compiled for the first
        compiled = warm.course(trial(STUDENT, STUDENT, seed=seed, compile=True), spec)
        assert len({id(compiled.model), *(id(peer.model) for peer in compiled.peers)}) == 3
        train(compiled, warm.workbench(spec), on_epoch=lambda _, metrics: told.append(metrics))
        course = WarmState(CPU).course(trial(STUDENT, STUDENT, seed=seed), spec)
        train(course, warm.workbench(spec), on_epoch=lambda _, metrics: plain.append(metrics))
    for one, other in zip(told, plain, strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=1e-5)
        assert one["selection/ensemble_accuracy"] == other["selection/ensemble_accuracy"]


def test_a_compiled_peer_without_what_is_compared_is_told_by_its_number(spec: WorkbenchSpec) -> None:
    warm = WarmState(CPU)
    warm._students = CompiledStudents(backend="eager")
    job = trial(OTHER, STUDENT, compile=True).model_copy(
        update={"objective": MfefConfig(peers=3), "student": OTHER}
    )
    with pytest.raises(TrialFailed, match=r"^peer 2: Mlp has no feature 'last'"):
        warm.course(job, spec)


def test_a_trial_of_more_networks_than_are_kept_otherwise_compiles_them_once(spec: WorkbenchSpec) -> None:
    warm, many = WarmState(CPU), [STUDENT] * 8 + [OTHER] * 2
    warm._students = CompiledStudents(backend="eager")
    assert len(many) > MAX_COMPILED

    def taken(*peers: ModelConfig, seed: int = 3) -> list[object]:
        course = warm.course(trial(*peers, seed=seed, compile=True), spec)
        return [course.forward, *(peer.forward for peer in course.peers)]

    first = taken(*many)
    assert len(set(map(id, first))) == len(many) + 1
    assert all(one is other for one, other in zip(first, taken(*many, seed=4), strict=True))
    warm.course(trial(OTHER).with_overrides(student=OTHER), spec)  # another trial between two such
    assert all(one is other for one, other in zip(first, taken(*many), strict=True))


@pytest.mark.parametrize("objective", [CeConfig(), DmlConfig()])
def test_a_trial_has_peers_where_its_objective_has(objective: CeConfig | DmlConfig) -> None:
    peers = () if objective.with_peers else (STUDENT,)
    with pytest.raises(ValidationError, match=f"objective {objective.name} trains"):
        TrialSpec(
            trial_id="one-1",
            role=Role.SEARCH,
            objective=objective,
            student=STUDENT,
            training=TrainingConfig(),
            seed=1,
            peers=peers,
        )


def test_a_trial_tells_what_it_computes_and_its_costs_are_those_of_the_student_alone(
    spec: WorkbenchSpec,
) -> None:
    warm, told = WarmState(CPU), list[Message]()
    job = TrainJob(workbench=spec, trial=trial(STUDENT, STUDENT), costs=(Cost.PARAMS,))
    train_job(job, warm, listening(told))
    metrics = told[-1].metrics
    assert metrics["train/compute_over_ce"] == 3.0
    assert metrics["train/flops_per_image"] > 0
    assert metrics["student/params"] == count_parameters(warm.build(STUDENT, spec))
    assert told[-1].best["selection/peer2_accuracy"] >= 0
    kept = load_file(str(told[-1].checkpoint))
    assert kept.keys() == warm.build(STUDENT, spec).state_dict().keys()


def test_a_network_that_cannot_be_counted_is_trained_without_the_figure(
    spec: WorkbenchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such mode")

    monkeypatch.setattr(warm_state, "compute_of", refuse)
    told: list[Message] = []
    job = TrainJob(workbench=spec, trial=trial(STUDENT))
    train_job(job, WarmState(CPU), listening(told))
    assert told[-1].end is End.COMPLETED
    assert "train/compute_over_ce" not in told[-1].metrics
