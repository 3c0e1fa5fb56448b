"""After the search: costs, the best again with several seeds beside their controls, the test split once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ray

from orchestrator.config.constraints import Condition, parse_constraints
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.controls.completed import completed_of, finalists_and_controls
from orchestrator.pipeline.controls.equal_compute import uncounted
from orchestrator.pipeline.controls.planned import Start, longer_controls, to_repeat
from orchestrator.pipeline.slot_jobs import run_jobs
from orchestrator.records.costs import TEACHER, StudentCosts, member_name, numbers_of
from orchestrator.records.events import StageEvent
from orchestrator.records.kept_answers import answers_file
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.ledger_writer import Bookkeeper, agreements_in
from orchestrator.records.selection import choose_finalists
from orchestrator.search.trial_specs import repeat_jobs
from trainables.config import (
    KeptEnsemble,
    KeptNetwork,
    KeptTeacher,
    ModelConfig,
    OnlineSpec,
    Split,
    TrialSpec,
    WorkbenchSpec,
    digest_of,
)
from trainables.config.metrics import RankBy
from trainables.slots.messages import EvaluateJob, Job, Message, ProfileJob, TrainJob
from trainables.training.train_teacher import TeacherFacts

Figures = dict[str, dict[str, float]]
COSTS = ("params", "size_bytes", "latency_ms", "latency_p95_ms")
WHERE_KNOWN = ("latency_threads", "latency_64_ms", "latency_64_p95_ms")
"""Not where a batch of 64 does not fit the GPU."""


def constraints_of(run: Run) -> tuple[Condition, ...]:
    """What the champion must satisfy."""
    where = run.experiment.pick.where
    return parse_constraints(where) if where else ()


def profile_stage(
    run: Run,
    workbench: WorkbenchSpec,
    search: str,
    records: Sequence[TrialRecord],
    teacher: TeacherFacts | None = None,
) -> dict[str, StudentCosts]:
    """Parameters, size and latency of each completed student, once per architecture on an idle slot.

    By trial id; under `teacher` the teacher's, where it has a network that was measured beside them.
    """
    students, distinct, key = _architectures(search, records, teacher)
    networks: dict[str, ModelConfig | KeptTeacher] = {**distinct}
    networks |= _teachers(run, teacher)

    def measure() -> dict[str, Any]:
        run.workers.start_slots()
        jobs = [
            ProfileJob(job_id=f"profile-{d[:12]}", workbench=workbench, student=s)
            for d, s in networks.items()
        ]
        found: dict[str, Any] = {}
        # One after the other: two at once would measure each other.
        for digest, job in zip(networks, jobs, strict=True):
            end = run_jobs(run.workers.broker, [job])[job.job_id]
            known = [*COSTS, *(name for name in WHERE_KNOWN if name in end.metrics)]
            found[digest] = {name: end.metrics[name] for name in known} | {"latency_device": end.device}
        return found

    return _costs(students, run.stages.run("profile", key, measure))


def _teachers(run: Run, facts: TeacherFacts | None) -> dict[str, ModelConfig | KeptTeacher]:
    """What of the teacher is measured, and of several each: the architecture where that is enough."""
    model = run.experiment.teacher.model if facts is not None or run.hears_teacher else None
    if model is not None and (facts is None or facts.classes is None):  # else it is built for more classes
        return {TEACHER: model}
    kept = None if facts is None else run.kept(facts)
    members = kept.members if isinstance(kept, KeptEnsemble) else ()
    each: dict[str, ModelConfig | KeptTeacher] = {
        member_name(number): member for number, member in enumerate(members, start=1)
    }
    return each if kept is None else {**each, TEACHER: kept}


def known_costs(
    run: Run, search: str, records: Sequence[TrialRecord], teacher: TeacherFacts | None = None
) -> dict[str, StudentCosts] | None:
    """What `profile_stage` found in an earlier run; none when it is still to be measured."""
    students, _, key = _architectures(search, records, teacher)
    done = run.ledger.finished("profile", key)
    return None if done is None else _costs(students, done.found)


def finalists_stage(
    run: Run, workbench: WorkbenchSpec, search: str, chosen: Sequence[TrialRecord]
) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Finalists and their controls, all with the same seeds; the records of those that were completed.

    Controls of equal compute come last: they have the recipe of the best control. A student that fails takes
    no other with it: its group has a seed less.

    Raises:
        StillhouseError: all finalists failed, or all controls of one.
    """
    trained = _repeat(run, workbench, search, "finalists", to_repeat(run, search, chosen))
    finalists, controls = finalists_and_controls(run, trained)
    for sentence in uncounted(run.experiment.budget.equal_compute, finalists):
        run.console.info(sentence)
    if longer := longer_controls(run, search, finalists, controls):
        found = completed_of(run, _repeat(run, workbench, search, "equal compute", longer))
        controls += [record for record in found if record not in controls]
    return finalists, controls


def _repeat(
    run: Run, workbench: WorkbenchSpec, search: str, stage: str, wanted: Sequence[tuple[TrialSpec, Start]]
) -> list[TrialRecord]:
    """The records of these students, each trained with every seed, in a stage of its own."""
    starts: dict[str, Start] = {}
    groups: list[list[TrainJob]] = []
    for spec, start in wanted:
        groups.append(repeat_jobs(spec, experiment=run.experiment, workbench=workbench))
        starts |= dict.fromkeys([job.job_id for job in groups[-1]], start)
    # Seed by seed: what else a shared machine does meanwhile falls on the epochs of all groups alike.
    jobs = [job for of_a_seed in zip(*groups, strict=True) for job in of_a_seed]

    def train() -> dict[str, Any]:
        _train(run, search, jobs, starts)
        return {"students": [job.job_id for job in jobs]}

    run.stages.run(stage, digest_of([job.trial.plain() for job in jobs]), train)
    names = [job.job_id for group in groups for job in group]
    return [record for name in names if (record := run.ledger.trial(name))]


def test_stage(
    run: Run, workbench: WorkbenchSpec, teacher: TeacherFacts | None, records: Sequence[TrialRecord]
) -> Figures:
    """By trial id, `accuracy`, the figure that ranks, `nll`, `ece`, `agreement` with the teacher: on test.
    Finalists and control have them, and the teacher itself, where there is one with a network that could be
    asked about this split. No other stage reads it; afterwards `stillhouse evaluate` may, for the same
    students. A student that an earlier pick tested is not tested again. What each answered to each image, and
    the teacher beside it, is kept in a file of its own, see `records/kept_answers.py`.
    """
    jobs = _test_jobs(run, workbench, teacher, records)
    several = teacher.members if teacher else ()
    members = {member_name(number): facts.fingerprint for number, facts in enumerate(several, start=1)}

    def evaluate() -> dict[str, Any]:
        known = tested_before(run, {record.search for record in records}, members)
        left = [job for trial, job in jobs.items() if trial not in known]
        if left:
            run.workers.start_slots()
        ends = run_jobs(run.workers.broker, left) if left else {}
        found = {
            trial: {name.removeprefix("test/"): value for name, value in ends[job.job_id].metrics.items()}
            for trial, job in jobs.items()
            if trial not in known
        }
        return {trial: found.get(trial) or known[trial] for trial in jobs}

    inputs: list[Any] = [
        [job.job_id, _places(run, job.network), job.teacher and _places(run, job.teacher.network)]
        for job in jobs.values()
    ]
    return run.stages.run("test", digest_of([*inputs, *members.values()]), evaluate)


def _test_jobs(
    run: Run, workbench: WorkbenchSpec, teacher: TeacherFacts | None, records: Sequence[TrialRecord]
) -> dict[str, EvaluateJob]:
    """By trial, and that of the teacher."""
    by, jobs = records[0].rank_by, dict[str, EvaluateJob]()
    for record in records:
        student = TrialSpec.from_plain(record.spec).student
        network = KeptNetwork(model=student, weights=str(record.checkpoint or ""))
        job = _evaluation(record.trial, network, workbench, by)
        jobs[record.trial] = job.with_overrides(answers=str(answers_file(run.out, record.trial)))
    kept = None if teacher is None else run.kept(teacher)
    if kept is not None:
        beside = OnlineSpec(network=kept, batch_size=run.experiment.cache.batch_size)
        jobs = {trial: job.with_overrides(teacher=beside) for trial, job in jobs.items()}
        jobs[TEACHER] = _evaluation(TEACHER, kept, workbench, by)
    if isinstance(kept, KeptEnsemble):
        for number, member in enumerate(kept.members, start=1):
            jobs[member_name(number)] = _evaluation(f"{TEACHER}-{number}", member, workbench, by)
    return jobs


def _places(run: Run, network: KeptTeacher) -> str | list[str]:
    """Where a network's weights are, as fingerprints hold it."""
    places = [run.key_path(file) for file in network.files]
    return places if isinstance(network, KeptEnsemble) else places[0]


def chosen_finalists(
    run: Run, records: Sequence[TrialRecord], costs: Mapping[str, StudentCosts]
) -> list[TrialRecord]:
    """The best completed trials within the constraints."""
    each, k = run.space.search.each_objective, run.experiment.budget.finalists
    return choose_finalists(records, numbers_of(costs), constraints_of(run), k, each_objective=each)


def tested_before(run: Run, searches: Collection[str], members: Mapping[str, str]) -> Figures:
    """What the test split said of students of these searches, and of their teacher, when they were tested.

    Of several teachers only those that still have their numbers; `members` are fingerprints by name.
    """
    tested: Figures = {}
    then: dict[str, str] = {}
    for event in run.ledger.events_of(StageEvent):
        if event.status != "finished":
            continue
        if event.stage.startswith(f"{TEACHER} "):
            then[event.stage] = event.found["fingerprint"]
        known = [record for trial in event.found if (record := run.ledger.trial(trial))]
        if event.stage == "test" and any(record.search in searches for record in known):
            found = event.found.items()
            tested |= {name: figures for name, figures in found if then.get(name) == members.get(name)}
    return tested


def _architectures(
    search: str, records: Sequence[TrialRecord], teacher: TeacherFacts | None
) -> tuple[dict[str, ModelConfig], dict[str, ModelConfig], str]:
    """The student of each trial, each once by its digest, and the stage's key.

    Several teachers are in it in their order: they are measured under their numbers.
    """
    members = [member.fingerprint for member in teacher.members] if teacher else []
    students = {record.trial: TrialSpec.from_plain(record.spec).student for record in records}
    distinct = {student.digest(): student for student in students.values()}
    return students, distinct, digest_of([search, sorted(distinct), *members])


def _costs(students: Mapping[str, ModelConfig], measured: Mapping[str, Any]) -> dict[str, StudentCosts]:
    names = {trial: student.digest() for trial, student in students.items()}
    # An earlier version did not measure the teacher.
    names |= {name: name for name in measured if name == TEACHER or name.startswith(f"{TEACHER} ")}
    return {name: StudentCosts.from_plain(measured[digest]) for name, digest in names.items()}


def _train(run: Run, search: str, jobs: Sequence[TrainJob], starts: Mapping[str, Start]) -> None:
    """Train what the ledger does not have yet."""
    finished = {r.trial for r in run.ledger.trials(search=search) if r.status == "completed"}
    missing = [job for job in jobs if job.job_id not in finished]
    if not missing:
        return
    run.workers.start_slots()
    broker = run.workers.broker
    ray.get([broker.agree.remote(key, value) for key, value in agreements_in(run.ledger).items()])
    books = Bookkeeper(run.ledger, search=search, agreements=lambda: ray.get(broker.agreements.remote()))
    for job in missing:
        start = starts[job.job_id]
        books.started(job, parameters=start.parameters, repeats=start.repeats)
    with run.console.progress("finalists", len(jobs)) as progress:
        progress.update(len(finished & set(starts)))

        def on_message(job: Job, message: Message) -> None:
            books.reported(job.job_id, message)
            done = sum(r.status != "running" for r in map(run.ledger.trial, starts) if r)
            progress.update(done, job.job_id)

        run_jobs(broker, missing, on_message, each_may_fail=True)


def _evaluation(trial: str, network: KeptTeacher, bench: WorkbenchSpec, by: RankBy) -> EvaluateJob:
    return EvaluateJob(job_id=f"test-{trial}", workbench=bench, network=network, split=Split.TEST, rank_by=by)
