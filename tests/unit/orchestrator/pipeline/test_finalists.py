"""The last stages on a ledger that holds their work already: nothing is trained, measured or tested again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.config.loading import load_experiment
from orchestrator.config.overrides import Overrides
from orchestrator.config.schema import EqualCompute
from orchestrator.pipeline import finalists  # as a module: pytest would take test_stage for a test
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.controls.planned import Start
from orchestrator.pipeline.stages import Stages
from orchestrator.pipeline.workers import Workers
from orchestrator.records.costs import StudentCosts
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.ledger_writer import Bookkeeper
from orchestrator.records.relations import control_of, controls_of_equal_compute, repeated_trial
from orchestrator.search.trial_specs import Composer, control_spec, repeat_jobs
from orchestrator.terminal.console import Console
from trainables.config import Role, TrialSpec, WorkbenchSpec, digest_of
from trainables.config.data import SplitFacts
from trainables.config.metrics import COMPUTE_OVER_CE, RankBy
from trainables.errors import StillhouseError
from trainables.slots.messages import End, Message, TrainJob
from trainables.training.train_teacher import TeacherFacts

SEARCH = "s" * 64
DML = {"dml": {"temperature": {"uniform": [1, 4]}}}
FIGURES = {"params": 610.0, "size_bytes": 4000.0, "latency_ms": 0.1}
COSTS = StudentCosts(params=610.0, size_bytes=4000.0, latency_ms=0.1)
TEACHER = TeacherFacts(
    weights="teacher.safetensors",
    fingerprint="f" * 64,
    params=9,
    selection_accuracy=0.9,
    split=SplitFacts(
        data_digest="d",
        ids_digest="i",
        n_train=9,
        classes=("a", "b"),
        mean=(0.5,),
        std=(0.5,),
        input_shape=(1, 8, 8),
    ),
)


@dataclass(frozen=True)
class Scene:
    """A run with its workbench, and the searched students of its ledger."""

    run: Run
    workbench: WorkbenchSpec
    composer: Composer
    books: Bookkeeper
    printed: io.StringIO

    def trained(
        self,
        job: TrainJob,
        accuracy: float,
        *,
        repeats: str | None = None,
        parameters: Mapping[str, object] | None = None,
        failure: str | None = None,
        counted: bool = True,
    ) -> TrialRecord:
        beta = {"beta": job.trial.objective.plain().get("beta")}
        self.books.started(job, parameters=parameters or beta, repeats=repeats)
        if failure is not None:
            self.books.failed(job.job_id, failure)
        ratio = float(job.trial.objective.n_networks)
        best = {"selection/accuracy": accuracy, "selection/nll": 0.1}
        best |= {COMPUTE_OVER_CE: ratio} if counted else {}
        end = Message(
            epoch=1, metrics=best, end=End.COMPLETED, best_epoch=1, best=best, checkpoint=f"{job.job_id}.st"
        )
        self.books.reported(job.job_id, end)
        record = self.run.ledger.trial(job.job_id)
        assert record is not None
        return record

    def searched(self, beta: float, accuracy: float) -> TrialRecord:
        sampled = {"objective": "dkd", "dkd": {"temperature": 2.0, "alpha": 1.0, "beta": beta}}
        return self.trained(self.composer(sampled).job, accuracy)

    def of_width(self, width: int, *, lr: float, beta: float = 2.0) -> TrialRecord:
        composer = replace(self.composer, space=self.run.space)
        values = {"dkd": {"temperature": 2.0, "alpha": 1.0, "beta": beta}, "student": {"width": width}}
        proposal = composer({"objective": "dkd", **values, "training": {"lr": lr}})
        return self.trained(proposal.job, 0.9, parameters=proposal.parameters)

    def of_two_networks(self) -> TrialRecord:
        """A trial of which an epoch computes as much as two of cross-entropy."""
        composer = replace(self.composer, space=over(self.run, objectives=DML).space)
        return self.trained(composer({"objective": "dml", "dml": {"temperature": 2.0}}).job, 0.9)

    def repeated(self, spec: TrialSpec, accuracy: float, *, counted: bool = True) -> list[TrialRecord]:
        jobs = repeat_jobs(spec, experiment=self.run.experiment, workbench=self.workbench)
        return [self.trained(job, accuracy, counted=counted) for job in jobs]

    def finish(self, stage: str, key: str, result: Mapping[str, object]) -> None:
        self.run.ledger.append(
            StageEvent(stage=stage, key=key, status="finished", seconds=1.0, result=result)
        )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    loaded = load_experiment("digits", overrides=Overrides(space="digits"))
    config = loaded.config.with_overrides(
        budget=loaded.config.budget.with_overrides(finalists=1, seeds=2),
        pick=loaded.config.pick.with_overrides(where="params <= 700 and latency_ms < 1"),
    )
    printed = io.StringIO()
    loaded, ledger, console = replace(loaded, config=config), Ledger(tmp_path), Console(out=printed)
    run = Run(loaded, tmp_path, ledger, Stages(ledger, console), Workers(config, tmp_path, console), console)
    workbench = run.workbench(None)
    composer = Composer(config, loaded.space, workbench, SEARCH)
    return Scene(run, workbench, composer, Bookkeeper(ledger, search=SEARCH), printed)


def over(run: Run, **sections: object) -> Run:
    """The run with more that varies."""
    return replace(run, loaded=replace(run.loaded, space=run.space.with_overrides(**sections)))


def control_of_file(scene: Scene) -> TrialSpec:
    """The control of a search that varies objectives alone."""
    return control_spec(SEARCH, scene.run.experiment.student, scene.run.experiment.training)


@pytest.fixture(autouse=True)
def _nobody_works() -> Iterator[None]:
    yield
    assert not ray.is_initialized()


def test_constraints_come_from_the_experiment(scene: Scene) -> None:
    assert [str(c) for c in finalists.constraints_of(scene.run)] == ["params <= 700", "latency_ms < 1"]


def test_the_best_within_the_constraints_go_on(scene: Scene) -> None:
    best, good, bad = scene.searched(2.0, 0.9), scene.searched(3.0, 0.8), scene.searched(4.0, 0.7)
    large = COSTS.with_overrides(params=800.0)
    costs = {best.trial: large, good.trial: COSTS, bad.trial: COSTS}
    assert finalists.chosen_finalists(scene.run, [bad, best, good], costs) == [good]


def test_students_of_one_architecture_share_their_figures(scene: Scene) -> None:
    records = [scene.searched(2.0, 0.9), scene.searched(3.0, 0.8)]
    digest = scene.run.experiment.student.digest()
    scene.finish("profile", digest_of([SEARCH, [digest]]), {digest: FIGURES})
    figures = finalists.profile_stage(scene.run, scene.workbench, SEARCH, records)
    assert figures == dict.fromkeys([records[0].trial, records[1].trial], COSTS)


def test_a_profile_keeps_the_percentile_and_the_device_of_its_latency(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {**FIGURES, "latency_p95_ms": 0.2}
    end = Message(metrics=figures, device="Intel Xeon", end=End.COMPLETED)
    monkeypatch.setattr(finalists, "run_jobs", lambda _, jobs: {job.job_id: end for job in jobs})
    monkeypatch.setattr(Workers, "start_slots", lambda _: None)
    monkeypatch.setattr(Workers, "broker", None)
    record = scene.searched(2.0, 0.9)
    costs = finalists.profile_stage(scene.run, scene.workbench, SEARCH, [record])[record.trial]
    assert costs.plain() == {**figures, "latency_device": "Intel Xeon"}
    done = scene.run.ledger.events_of(StageEvent)[-1]
    assert list(done.found.values()) == [costs.plain()] * 2
    assert list(done.found)[-1] == "teacher"


def test_the_teacher_is_measured_beside_the_students_and_what_an_earlier_version_measured_stays(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[Any] = []

    def measured(_broker: Any, jobs: list[Any]) -> dict[str, Message]:
        networks.extend(job.student for job in jobs)
        return {
            job.job_id: Message(metrics={**FIGURES, "latency_p95_ms": 0.2}, device="x", end=End.COMPLETED)
            for job in jobs
        }

    monkeypatch.setattr(finalists, "run_jobs", measured)
    monkeypatch.setattr(Workers, "start_slots", lambda _: None)
    monkeypatch.setattr(Workers, "broker", None)
    record = scene.searched(2.0, 0.9)
    costs = finalists.profile_stage(scene.run, scene.workbench, SEARCH, [record])
    assert networks[-1] == scene.run.experiment.teacher.network
    assert set(costs) == {record.trial, "teacher"}
    (done,) = [e for e in scene.run.ledger.events_of(StageEvent) if e.status == "finished"]
    older = {digest: found for digest, found in done.found.items() if digest != "teacher"}
    scene.run.ledger.append(done.model_copy(update={"result": older}))
    again = finalists.profile_stage(scene.run, scene.workbench, SEARCH, [record])
    assert set(again) == {record.trial}
    assert len(networks) == 2


def test_without_a_teacher_students_alone_are_measured_and_tested(scene: Scene) -> None:
    record = scene.searched(2.0, 0.9)
    labels = load_experiment("digits", overrides=Overrides(space="ls"))
    run = replace(scene.run, loaded=replace(scene.run.loaded, space=labels.space))
    assert run.experiment.has_teacher
    assert finalists._teachers(run, None) == {}
    assert finalists._teachers(run, TEACHER) == {"teacher": run.experiment.teacher.network}
    jobs = finalists._test_jobs(run, scene.workbench, None, [record])
    assert [(trial, job.teacher) for trial, job in jobs.items()] == [(record.trial, None)]
    key = digest_of([[f"test-{record.trial}", run.key_path(str(record.checkpoint)), None]])
    scene.finish("test", key, {record.trial: {"accuracy": 0.7}})
    assert finalists.test_stage(run, scene.workbench, None, [record]) == {record.trial: {"accuracy": 0.7}}


def test_a_teacher_of_more_classes_is_measured_as_it_was_kept(scene: Scene) -> None:
    model = scene.run.experiment.teacher.network
    assert finalists._teachers(scene.run, TEACHER) == {"teacher": model}
    of_more = TEACHER.with_overrides(classes={"n_outputs": 12, "rows": [3, 7]})
    assert finalists._teachers(scene.run, of_more) == {"teacher": scene.run.kept(of_more)}


def test_figures_of_one_of_several_teachers_are_its_own_whatever_their_order(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def several(*names: str) -> TeacherFacts:
        for number, name in enumerate(names, start=1):
            scene.finish(f"teacher {number}", name, {"fingerprint": name})
        return TEACHER.with_overrides(members=[TEACHER.with_overrides(fingerprint=name) for name in names])

    def evaluated(_broker: Any, jobs: list[Any]) -> dict[str, Message]:
        asked.append([job.job_id for job in jobs])
        return {job.job_id: Message(metrics={"test/accuracy": 0.5}, end=End.COMPLETED) for job in jobs}

    def jobs_of(*_: Any) -> dict[str, Any]:
        assert kept is not None
        job = finalists._evaluation("teacher", kept, scene.workbench, RankBy.ACCURACY)
        names = [record.trial, "teacher", "teacher 1", "teacher 2"]
        return {name: job.with_overrides(job_id=name) for name in names}

    asked: list[list[str]] = []
    record, kept = scene.searched(2.0, 0.9), scene.run.kept(TEACHER)
    monkeypatch.setattr(finalists, "_test_jobs", jobs_of)
    monkeypatch.setattr(finalists, "run_jobs", evaluated)
    monkeypatch.setattr(Workers, "start_slots", lambda _: None)
    monkeypatch.setattr(Workers, "broker", None)
    for names in ("ab", "ba", "ba"):
        finalists.test_stage(scene.run, scene.workbench, several(*names), [record])
    assert asked == [[record.trial, "teacher", "teacher 1", "teacher 2"], ["teacher 1", "teacher 2"]]


def trains(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    *,
    failing: Callable[[TrainJob], str | None] = lambda _: None,
) -> tuple[list[TrainJob], dict[str, Start]]:
    """What the stage would train, in its order, and with what it would be noted; all reach 80 %, or fail."""
    jobs: list[TrainJob] = []
    noted: dict[str, Start] = {}

    def train(_run: Run, _search: str, given: Sequence[TrainJob], starts: Mapping[str, Start]) -> None:
        jobs.extend(given)
        noted.update(starts)
        for job in given:
            scene.trained(job, 0.8, repeats=starts[job.job_id].repeats, failure=failing(job))

    monkeypatch.setattr(finalists, "_train", train)
    return jobs, noted


def test_groups_are_trained_seed_by_seed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, _ = trains(scene, monkeypatch)
    chosen = [scene.searched(2.0, 0.9), scene.searched(3.0, 0.8)]
    finalists.finalists_stage(scene.run, scene.workbench, SEARCH, chosen)
    assert [job.job_id[-1] for job in jobs] == list("000111")
    assert len({job.trial.seed for job in jobs[:3]}) == 1
    assert [job.trial.role.value for job in jobs] == ["baseline", "finalist", "finalist"] * 2


def test_each_finalist_of_a_search_over_width_has_a_control_of_its_own(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = replace(
        scene,
        run=over(scene.run, student={"width": {"choice": [16, 64]}}, training={"lr": {"choice": [0.1]}}),
    )
    jobs, noted = trains(wide, monkeypatch)
    chosen = [wide.of_width(width, lr=0.1) for width in (64, 16, 64)]
    found, controls = finalists.finalists_stage(wide.run, wide.workbench, SEARCH, chosen[:2])
    file_lr = wide.run.experiment.training.lr
    trained = [(job.trial.role.value, job.trial.student.width, job.trial.training.lr) for job in jobs]
    of_a_seed = [("baseline", 64, file_lr), ("baseline", 64, 0.1), ("baseline", 16, file_lr)]
    of_a_seed += [("baseline", 16, 0.1), ("finalist", 64, 0.1), ("finalist", 16, 0.1)]
    assert trained == of_a_seed * 2
    assert noted[jobs[1].job_id].parameters == {"student.width": 64, "training.lr": 0.1}
    for finalist in found:
        control = control_of(finalist, controls).records[0]
        assert control.spec["student"] == finalist.spec["student"]
        assert control.spec["objective"] == {"name": "ce"}
    # Finalists of one architecture and recipe share their controls.
    jobs.clear()
    finalists.finalists_stage(
        wide.run, wide.workbench, SEARCH, [chosen[0], wide.of_width(64, lr=0.1, beta=3.0)]
    )
    assert [job.trial.role.value for job in jobs] == [*["baseline"] * 2, *["finalist"] * 2] * 2


def test_where_it_is_asked_for_each_recipe_of_the_control_is_trained_with_label_smoothing_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = scene.run.experiment.budget.with_overrides(smoothed_control=True)
    config = scene.run.experiment.with_overrides(budget=asked)
    scene = replace(scene, run=replace(scene.run, loaded=replace(scene.run.loaded, config=config)))
    jobs, _ = trains(scene, monkeypatch)
    found, controls = finalists.finalists_stage(
        scene.run, scene.workbench, SEARCH, [scene.searched(2.0, 0.9)]
    )
    trained = [(job.trial.objective.name, job.trial.training.epochs) for job in jobs]
    epochs = scene.run.experiment.training.epochs
    assert trained == [("ce", epochs), ("ls", epochs), (found[0].objective, epochs)] * 2
    smoothed = [job.trial.objective for job in jobs if job.trial.objective.name == "ls"]
    assert {objective.plain()["smoothing"] for objective in smoothed} == {0.1}
    assert {record.objective for record in control_of(found[0], controls).records} == {"ce"}


def test_each_start_names_what_the_student_repeats(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    _, noted = trains(scene, monkeypatch)
    chosen = [scene.searched(2.0, 0.9), scene.searched(3.0, 0.8)]
    found, controls = finalists.finalists_stage(scene.run, scene.workbench, SEARCH, chosen)
    spec = control_of_file(scene)
    assert [noted[record.trial].repeats for record in controls] == [spec.trial_id] * 2
    assert {noted[record.trial].repeats for record in found} == {record.trial for record in chosen}
    # Without these notes, as in a ledger of an earlier version, the specifications tell the same.
    for record in found:
        assert repeated_trial(record, chosen).trial == noted[record.trial].repeats


def test_finalists_and_control_that_are_trained_already_are_only_found(scene: Scene) -> None:
    chosen = scene.searched(2.0, 0.9)
    repeated = scene.repeated(TrialSpec.from_plain(chosen.spec), 0.85)
    control = scene.repeated(control_of_file(scene), 0.8)
    found = finalists.finalists_stage(scene.run, scene.workbench, SEARCH, [chosen])
    assert found == (repeated, control)
    assert [len(group) for group in found] == [2, 2]
    assert [r.spec["seed"] for r in found[0]] == [r.spec["seed"] for r in found[1]]
    assert found[0][0].spec["seed"] != chosen.spec["seed"]


def test_a_finalist_whose_compute_was_not_counted_is_told_on_the_console(scene: Scene) -> None:
    for mode, told in (
        (EqualCompute.AUTO, False),
        (EqualCompute.ALWAYS, True),
    ):  # its objective has a teacher
        out, config = io.StringIO(), scene.run.experiment
        asked = config.with_overrides(budget=config.budget.with_overrides(equal_compute=mode))
        run = replace(scene.run, loaded=replace(scene.run.loaded, config=asked), console=Console(out=out))
        chosen = scene.searched(2.0, 0.9)
        scene.repeated(TrialSpec.from_plain(chosen.spec), 0.85, counted=False)
        scene.repeated(control_of_file(scene), 0.8)
        finalists.finalists_stage(run, scene.workbench, SEARCH, [chosen])
        said = " ".join(out.getvalue().split())
        assert (f"{chosen.trial}-seed0 has no control of equal compute: what its training" in said) is told
        assert said.count("no control of equal compute") == told


def test_a_finalist_whose_controls_all_failed_stops_the_run_with_the_reason(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_control(job: TrainJob) -> str | None:
        return "the loss is nan" if job.trial.role is Role.BASELINE else None

    trains(scene, monkeypatch, failing=of_control)
    with pytest.raises(
        StillhouseError, match=r"the controls of finalist dkd-\w+-seed0 failed with every seed: the"
    ):
        finalists.finalists_stage(scene.run, scene.workbench, SEARCH, [scene.searched(2.0, 0.9)])


def is_longer(scene: Scene, job: TrainJob) -> bool:
    return job.trial.training.epochs == 2 * scene.run.experiment.training.epochs


def test_after_finalists_come_their_controls_of_equal_compute(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, noted = trains(scene, monkeypatch)
    found, controls = finalists.finalists_stage(scene.run, scene.workbench, SEARCH, [scene.of_two_networks()])
    assert [is_longer(scene, job) for job in jobs] == [False] * 4 + [True] * 2
    (longer,) = controls_of_equal_compute(found[0], controls)
    assert [record.trial for record in longer.records] == [job.job_id for job in jobs[4:]]
    assert noted[jobs[4].job_id].parameters["training.epochs"] == jobs[4].trial.training.epochs
    assert [r.spec["seed"] for r in longer.records] == [r.spec["seed"] for r in found]


def test_controls_of_equal_compute_that_all_failed_are_told_and_not_trained_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_longer(job: TrainJob) -> str | None:
        return "the loss is nan" if is_longer(scene, job) else None

    jobs, _ = trains(scene, monkeypatch, failing=of_longer)
    chosen = [scene.of_two_networks()]
    found, controls = finalists.finalists_stage(scene.run, scene.workbench, SEARCH, chosen)
    failed = [job.job_id for job in jobs if is_longer(scene, job)]
    assert len(failed) == 2
    assert [record.status for record in (*found, *controls)] == ["completed"] * 4
    assert controls_of_equal_compute(found[0], [*controls, *found]) == []
    for trial in failed:
        assert f"{trial} has no part in what follows; it failed: the loss is nan" in scene.printed.getvalue()
    jobs.clear()
    again = finalists.finalists_stage(scene.run, scene.workbench, SEARCH, chosen)
    assert again == (found, controls)
    assert jobs == []


def test_a_run_that_ended_among_controls_of_equal_compute_goes_on_with_these_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(job: TrainJob) -> str | None:
        if is_longer(scene, job):
            raise KeyboardInterrupt
        return None

    trains(scene, monkeypatch, failing=interrupted)
    chosen = [scene.of_two_networks()]
    with pytest.raises(KeyboardInterrupt):
        finalists.finalists_stage(scene.run, scene.workbench, SEARCH, chosen)
    jobs, _ = trains(scene, monkeypatch)
    finalists.finalists_stage(scene.run, scene.workbench, SEARCH, chosen)
    assert [is_longer(scene, job) for job in jobs] == [True, True]


def test_the_test_split_is_read_once(scene: Scene) -> None:
    record = scene.searched(2.0, 0.9)
    weights = TEACHER.weights
    checkpoint = scene.run.key_path(str(record.checkpoint))
    jobs = [[f"test-{record.trial}", checkpoint, weights], ["test-teacher", weights, None]]
    found = {record.trial: {"accuracy": 0.7, "agreement": 0.9}, "teacher": {"accuracy": 0.8}}
    scene.finish("test", digest_of(jobs), found)
    assert finalists.test_stage(scene.run, scene.workbench, TEACHER, [record]) == found


def test_answers_are_kept_of_each_student_and_of_the_teacher_beside_it(scene: Scene) -> None:
    record = scene.searched(2.0, 0.9)
    jobs = finalists._test_jobs(scene.run, scene.workbench, TEACHER, [record])
    file = str(scene.run.out / "answers" / f"{record.trial}.npz")
    assert {trial: job.answers for trial, job in jobs.items()} == {record.trial: file, "teacher": None}


def test_what_an_earlier_pick_tested_is_not_tested_again(scene: Scene) -> None:
    first, second = scene.searched(2.0, 0.9), scene.searched(3.0, 0.8)
    found = {first.trial: {"accuracy": 0.7}, second.trial: {"accuracy": 0.6}, "teacher": {"accuracy": 0.8}}
    scene.finish("test", "of both", found)
    tested = finalists.test_stage(scene.run, scene.workbench, TEACHER, [second])
    assert tested == {name: found[name] for name in (second.trial, "teacher")}
