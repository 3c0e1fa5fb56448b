"""The stages before a search, for spaces with a teacher and without; by what they give searches are known."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.pipeline.basis.compared_teacher import made_before
from orchestrator.pipeline.basis.data_stage import data_stage, recorded_data
from orchestrator.pipeline.cache_stage import cache_identity
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.teacher_stage import is_still_there, recorded_teacher, teacher_stage
from orchestrator.pipeline.teachers.preparation import preparation_stages
from trainables.config.data import SplitFacts
from trainables.training.train_teacher import TeacherFacts


@dataclass(frozen=True)
class Basis:
    """What students are trained on and compared with."""

    split: SplitFacts
    teacher: TeacherFacts | None = None
    """Whose figures stand beside those of students, and with whom they may agree. Where no objective hears
    one it is the file's, if an earlier run made it."""
    known_by: TeacherFacts | None = None
    """The teacher that keys of searches, registry and model card name: the one that students hear. An earlier
    version made one for every space, and a search of its goes on under the key that it has."""

    def search(self, run: Run) -> str:
        """The fingerprint of the search."""
        return run.search_key(self.split, self.known_by, cache_identity(run, self.known_by))


def heard(teacher: TeacherFacts) -> Basis:
    """The basis of students that hear this teacher."""
    return Basis(teacher.split, teacher, teacher)


def basis_stages(run: Run) -> Basis:
    """The teacher, prepared, where an objective of the space hears one; else the facts of the data.

    Raises:
        StillhouseError: a stage failed.
    """
    if run.hears_teacher:
        return heard(preparation_stages(run, teacher_stage(run)))
    known = made_before(run)
    teacher = known if known is not None and is_still_there(run, known) else None
    if run.experiment.has_teacher:
        beside = "" if teacher is None else "; the one that an earlier run made is compared with"
        run.console.info(
            f"no objective of space {run.space.name} hears a teacher: that of the file is not made{beside}"
        )
    if known is not None and _is_of_an_earlier_version(run, known):
        return Basis(known.split, teacher, known)
    return Basis(data_stage(run), teacher)


def recorded_basis(run: Run) -> Basis | None:
    """The same as the ledger tells; none where no run has got so far.

    Raises:
        ConfigError: the teacher's logits are still to be imported.
    """
    if run.hears_teacher:
        teacher = recorded_teacher(run)
        return None if teacher is None else heard(teacher)
    known = made_before(run)
    if known is not None and _is_of_an_earlier_version(run, known):
        return Basis(known.split, known, known)
    split = recorded_data(run)
    return None if split is None else Basis(split)


def _is_of_an_earlier_version(run: Run, known: TeacherFacts) -> bool:
    """Whether the ledger has trials of this space under a key that names a teacher, though none is heard."""
    return bool(run.ledger.trials(search=run.search_key(known.split, known, None)))
