"""Several teachers: each made by the stage of one, then looked at together; the cache holds their mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from orchestrator.pipeline.context import Run
from orchestrator.records.teacher_checks import chance_in_words
from orchestrator.terminal.formatting import percent
from trainables.config import KeptEnsemble, digest_of
from trainables.errors import ConfigError, StillhouseError
from trainables.teacher.loading import ensemble_fingerprint
from trainables.training.measure_ensemble import EnsembleRequest
from trainables.training.train_teacher import TeacherFacts

STAGE: Final = "teachers"


def each_run(run: Run) -> Iterator[Run]:
    """The run as if each of its teachers were its only one; the run itself where it has one."""
    if not run.experiment.teachers:
        yield run
    for number in range(1, len(run.experiment.teachers) + 1):
        yield run.with_teacher(number)


def named(run: Run, error: StillhouseError) -> StillhouseError:
    """The error, with the teacher that it is about where there are several."""
    if run.member is None:
        return error
    where = f"teachers, number {run.member}"
    if isinstance(error, ConfigError):
        return ConfigError(*(f"{where}: {problem}" for problem in error.problems))
    return type(error)(f"{where}: {error}")


def ensemble_stage(run: Run, one: Callable[[Run], TeacherFacts]) -> TeacherFacts:
    """All teachers made by the stage of one, and how good they are together.

    Raises:
        StillhouseError: one cannot be made; it says which.
    """
    members = []
    for member in each_run(run):
        try:
            members.append(one(member))
        except StillhouseError as error:
            raise named(member, error) from error
    kept = run.kept(_together(run, members))
    if not isinstance(kept, KeptEnsemble):
        raise ConfigError("`teachers` needs two teachers or more")
    request = EnsembleRequest(
        network=kept,
        data=run.experiment.data.labelled,
        batch_size=run.experiment.training.eval_batch_size,
        threads=run.experiment.cluster.cpus_per_worker,
        folder=str(run.out / "teacher"),
    )
    found = run.stages.run(STAGE, _key(run, members), lambda: run.workers.ensemble(request).plain())
    facts = TeacherFacts.from_plain(found).with_overrides(members=members)
    best = max(member.selection_accuracy or 0.0 for member in members)
    run.console.info(
        f"teachers together {facts.fingerprint[:8]}, by their {run.experiment.combine.value}: "
        f"{facts.params or 0:,} parameters, selection {percent(facts.selection_accuracy)} %, "
        f"the best of them alone {percent(best)} %"
    )
    if facts.chance is not None and facts.chance.is_suspicious:
        run.console.info(f"warning: together, {chance_in_words(facts.chance)}")
    return facts


def recorded_ensemble(run: Run, one: Callable[[Run], TeacherFacts | None]) -> TeacherFacts | None:
    """What the ledger tells of all of them, found for each by `one`; none where one is not made yet."""
    members = [one(member) for member in each_run(run)]
    known = [member for member in members if member is not None]
    if len(known) < len(members):
        return None
    done = run.ledger.finished(STAGE, _key(run, known))
    if done is None:
        return _together(run, known)
    return TeacherFacts.from_plain(done.found).with_overrides(members=known, split=known[0].split.plain())


def _together(run: Run, members: list[TeacherFacts]) -> TeacherFacts:
    """What is known of them before anybody looked at them together."""
    return TeacherFacts(
        weights=None,
        fingerprint=_fingerprint(run, members),
        params=sum(member.params or 0 for member in members),
        selection_accuracy=None,
        split=members[0].split,
        members=tuple(members),
    )


def _fingerprint(run: Run, members: list[TeacherFacts]) -> str:
    known_by = [member.fingerprint for member in members]
    return ensemble_fingerprint(known_by, run.shares, run.experiment.combine)


def _key(run: Run, members: list[TeacherFacts]) -> str:
    split: dict[str, Any] = members[0].split.plain()
    return digest_of([_fingerprint(run, members), split["data_digest"], split["ids_digest"]])
