"""What can be told before anything is trained: whether data, networks, record and disk are as they must be.

The checks are the functions that the stages call later. All of them are tried, so that a person hears of all
problems at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from cluster.doctor import Check, disk
from cluster.errors import ClusterError
from orchestrator.config.asked_features import batch_contrasters, student_askers, untaught_comparisons
from orchestrator.config.budget_problems import batch_notes, smallest_share
from orchestrator.config.paths import tracking_uri
from orchestrator.config.peers import every_peer, peers_as_known
from orchestrator.config.turned_images import what_turns
from orchestrator.pipeline.basis.data_stage import look_at_images
from orchestrator.pipeline.basis.unlabelled_stage import keyed_data
from orchestrator.pipeline.cache_stage import require_cache_room
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.finished import file_stamp, teacher_stamp
from orchestrator.pipeline.preflight_networks import NetworkChecks, bounds_on_params
from orchestrator.pipeline.teacher_stage import known_teacher
from orchestrator.pipeline.teachers.ensemble import each_run, named
from orchestrator.pipeline.teachers.imported import read_imported
from orchestrator.terminal.console import Progress
from orchestrator.tracking.faults.access import tracking_check
from trainables.checkpoint_header import known_by
from trainables.config import ModelConfig, digest_of
from trainables.data import TrainingData
from trainables.data.inspection import inspect_data
from trainables.errors import ConfigError, StillhouseError
from trainables.factories import load_factory

STAGE: Final = "preflight"
T = TypeVar("T")


@dataclass
class Findings:
    """What was found, a line each: problems, which stop a run, and notes, which do not."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    leaks: tuple[str, ...] = ()
    """Which splits share images; they are among the notes too."""
    data_digest: str | None = None
    """Of the training split, where it could be loaded."""

    def attempt(self, check: Callable[[], T]) -> T | None:
        """What the check gives; its error is a problem, told once."""
        try:
            return check()
        except (StillhouseError, ClusterError) as error:
            self.add(error)
            return None

    def add(self, error: Exception) -> None:
        """An error as a problem."""
        text = " ".join(str(error).split())
        if text not in self.problems:
            self.problems.append(text)


def preflight_stage(run: Run) -> None:
    """Stop a run that would fail later; what an earlier start of it looked at is not looked at again.

    Raises:
        ConfigError: the problem; where there are several, each was told.
    """
    surroundings = Findings()
    _look_around(run, surroundings)

    def look() -> dict[str, Any]:
        found = Findings(list(surroundings.problems), list(surroundings.notes))
        _look_inside(run, found)
        _tell(run, found)
        # Of named data and files a worker finds the same, or says itself what is wrong.
        digest = {"data_digest": found.data_digest} if run.experiment.data.factory else {}
        return {"notes": found.notes, "leaks": list(found.leaks), **digest}

    key = preflight_key(run)
    if not run.stages.is_finished(STAGE, key):
        run.stages.run(STAGE, key, look)
    else:
        _tell(run, surroundings)


def leaks_found(run: Run) -> tuple[str, ...]:
    """Which splits share images, as the stage found; none where an earlier version did not look."""
    done = run.ledger.finished(STAGE, preflight_key(run))
    return () if done is None else tuple(done.found.get("leaks", ()))


def preflight(run: Run) -> Findings:
    """The same for `stillhouse validate --deep`: whatever ran before, and nothing of it is kept."""
    found = Findings()
    _look_around(run, found)
    _look_inside(run, found)
    return found


def preflight_key(run: Run) -> str:
    """Fingerprint of what data and networks are made of; the code of factories counts, file by file."""
    experiment = run.experiment
    uri, start = experiment.cache.uri, run.start_file
    cache = experiment.cache.plain()
    teachers = [_keyed_teacher(each) for each in each_run(run)] if experiment.has_teacher else [(None, [])]
    shares = [list(run.shares), experiment.combine.value]
    cache["uri"] = uri and run.key_path(uri)
    return digest_of(
        {
            "data": keyed_data(run, experiment.data),
            "teacher": teachers[0][0] if len(teachers) == 1 else [shares, *teachers],
            "checkpoint": teachers[0][1],
            "students": [known_by(experiment.student.network), run.space.student.plain()],
            **({"rank_by": by.value} if (by := run.space.search.rank_by).is_of_features else {}),
            **({"features": _asked(run)} if student_askers(run.space) else {}),
            **({"peers": _peers(run)} if experiment.peers else {}),
            **({"made": made} if (made := [name for name, _ in untaught_comparisons(run.space)]) else {}),
            **({"start": [run.key_path(start), file_stamp(start)]} if start else {}),
            **({"batches": _batches(run)} if batch_contrasters(run.space) else {}),
            "views": experiment.views.plain(),
            "cache": cache,
            "banks": run.teacher_banks,
            **({"turned": list(turned)} if (turned := what_turns(experiment, run.space)) else {}),
            **({"params": list(map(str, bounds))} if (bounds := bounds_on_params(run)) else {}),
            "factories": {path: sources.digest for path, sources in run.loaded.code.items()},
        }
    )


def _asked(run: Run) -> list[list[str]]:
    return sorted(map(list, {config.student_features for _, config in student_askers(run.space)}))


def _peers(run: Run) -> list[Any]:
    """The networks, and which objectives train which of them."""
    peers = run.experiment.peers
    askers = [[role, *objectives] for role, _, objectives in every_peer(peers, run.space)]
    return [peers_as_known(peers), askers]


def _batches(run: Run) -> list[Any]:
    return [run.experiment.training.sampling.value, smallest_share(run.experiment, run.space)]


def _keyed_teacher(run: Run) -> tuple[dict[str, Any] | None, list[Any]]:
    """What is said of a teacher, and the stamp of its checkpoint, as fingerprints hold them.

    One that nobody hears is not brought from elsewhere for that.
    """
    config = run.experiment.teacher
    is_to_be_brought = run.hears_teacher and not config.imported
    checkpoint = run.teacher_source.checkpoint if is_to_be_brought else config.checkpoint
    teacher = config.plain()
    teacher["model"] = config.model and known_by(config.model)
    teacher["checkpoint"] = checkpoint and run.key_path(checkpoint)
    return teacher, teacher_stamp(checkpoint, config.model)


def _tell(run: Run, found: Findings) -> None:
    """Say it all.

    Raises:
        ConfigError: there are problems.
    """
    for note in found.notes:
        run.console.info(note)
    if len(found.problems) == 1:
        raise ConfigError(found.problems[0])
    for problem in found.problems:
        run.console.info(f"problem: {problem}")
    if found.problems:
        raise ConfigError(
            f"{len(found.problems)} problems, told above, one a line; nothing was trained: mend them and run "
            "again"
        )


def _look_around(run: Run, found: Findings) -> None:
    """What may have changed since the last run: record and disk."""
    record = tracking_check(tracking_uri(run.loaded))
    if not record.ok and run.ledger.trials():
        # A run that goes on needs no server: what the record lacks is written when it is back.
        found.notes.append(f"{_in_a_line(record)}; what it lacks is written when it is back")
    elif not record.ok:
        found.problems.append(_in_a_line(record))
    room = disk(str(run.out))
    if not room.ok:
        found.notes.append(_in_a_line(room))


def _in_a_line(check: Check) -> str:
    return f"{check.name}: {check.detail}; {check.next_step}"


def _look_inside(run: Run, found: Findings) -> None:
    """Factories, data, networks, and the cache's room."""
    experiment, heard = run.experiment, run.hears_teacher
    for path in experiment.factories if heard else experiment.factories_without_teacher:
        found.attempt(lambda path=path: load_factory(path))  # type: ignore[misc]
    data = _inspected(run, found)
    if heard and experiment.teacher.imported:
        found.attempt(lambda: read_imported(run.loaded))
    if data is None:
        return
    found.attempt(lambda: _require_square(run, data))
    found.notes += batch_notes(experiment, run.space, data.train.labels.bincount().tolist())
    networks = NetworkChecks(run, data)
    before = len(found.problems)
    for each in each_run(run) if heard and not experiment.teacher.imported else ():
        found.notes += found.attempt(lambda each=each: _teacher(each, data)) or []  # type: ignore[misc]
    teacher_is_well = len(found.problems) == before
    _look_at_students(networks, found)
    found.attempt(networks.require_small_enough)
    if heard and teacher_is_well:
        found.attempt(lambda: require_cache_room(run, known_teacher(run, data), data))


def _look_at_students(networks: NetworkChecks, found: Findings) -> None:
    """Students, the networks that are trained beside them, and what is made of both."""
    run, well = networks.run, list[ModelConfig]()
    for student in networks.students():
        before = len(found.problems)
        notes = found.attempt(lambda student=student: networks.student(student))  # type: ignore[misc]
        found.notes += [note for note in notes or [] if note not in found.notes]
        if len(found.problems) == before:  # one that cannot answer cannot be exported either
            well.append(student)
            found.attempt(lambda student=student: networks.export(student))  # type: ignore[misc]
    before = len(found.problems)
    for each in every_peer(run.experiment.peers, run.space):
        found.notes += found.attempt(lambda each=each: networks.peer(*each)) or []  # type: ignore[misc]
    for student in well if len(found.problems) == before else ():
        found.attempt(lambda student=student: networks.together(student))  # type: ignore[misc]


def _require_square(run: Run, data: TrainingData) -> None:
    """Refuse images that a quarter turn would bring to another size, where something turns them.

    Raises:
        ConfigError: naming all that does.
    """
    height, width = data.train.images.shape[-2:]
    if height != width and (turned := what_turns(run.experiment, run.space)):
        raise ConfigError(
            f"quarter turns need square images, and these have {height} x {width} pixels; what turns them: "
            f"{'; '.join(turned)}; set data.image_size, or leave these out"
        )


def _teacher(run: Run, data: TrainingData) -> list[str]:
    """Notes about one teacher, with its number where there are several."""
    try:
        notes = NetworkChecks(run, data).teacher()
    except StillhouseError as error:
        raise named(run, error) from error
    return notes if run.member is None else [f"number {run.member}, {note}" for note in notes]


def _inspected(run: Run, found: Findings) -> TrainingData | None:
    config = run.experiment.data
    with ExitStack() as stack:
        progress: Progress | None = None

        def told(done: int, count: int) -> None:
            nonlocal progress
            progress = progress or stack.enter_context(run.console.progress("test images looked at", count))
            progress.update(done)

        found.attempt(lambda: look_at_images(config, run.console))
        inspection = inspect_data(config, told)
    for error in inspection.problems:
        found.add(error)
    found.notes += inspection.notes
    found.notes += [f"warning: {leak}" for leak in inspection.leaks]
    found.leaks = inspection.leaks
    found.data_digest = inspection.data.digest if inspection.data else None
    return inspection.data
