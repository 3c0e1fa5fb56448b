"""The stage `teacher`: trained, loaded, or known by its imported logits alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.pipeline.basis.data_stage import look_at_images, require_same_data, tell_left_out
from orchestrator.pipeline.basis.unlabelled_stage import (
    keyed_data,
    recorded_unlabelled,
    with_facts,
    with_known,
    with_unlabelled,
)
from orchestrator.pipeline.context import Run
from orchestrator.pipeline.teachers.ensemble import ensemble_stage, recorded_ensemble
from orchestrator.pipeline.teachers.imported import imported_facts, read_imported
from orchestrator.pipeline.teachers.preparation import recorded_preparations
from orchestrator.records.events import StageEvent
from orchestrator.records.teacher_checks import (
    chance_in_words,
    require_accuracy,
    require_better_than_chance,
)
from orchestrator.terminal.formatting import percent
from trainables.cache.tools.import_logits import ImportedTeacher
from trainables.checkpoint_header import digests_beside, known_by
from trainables.config import MAX_VIEWS, ClassRows, Normalisation, ViewsConfig, digest_of
from trainables.config.metrics import ACCURACY
from trainables.config.representation.preparation import PreparedTraining
from trainables.config.teacher import ONNX
from trainables.data import TrainingData, load_training
from trainables.local_files import file_sha256
from trainables.models.foreign.onnx_graph import onnx_files
from trainables.seeds import derive_seed
from trainables.training.train_teacher import NO_PART, TeacherFacts, TeacherRequest, checkpoint_facts


def teacher_stage(run: Run) -> TeacherFacts:
    """The teacher, or several: trained or loaded once, then known by the digest of its weights."""
    if run.experiment.teacher.imported:
        return _imported_stage(run)
    facts = ensemble_stage(run, _one_teacher) if run.experiment.teachers else _one_teacher(run)
    tell_left_out(run, facts.split)
    return with_unlabelled(run, facts)


def _one_teacher(run: Run) -> TeacherFacts:
    config = run.experiment.teacher
    name = _stage(run)
    request, key = teacher_request(run)

    def make() -> dict[str, Any]:
        look_at_images(request.data, run.console)
        run.workers.start_slots_early()
        first = request.student_training.epochs if request.student_training else 0
        epochs = None if request.is_loaded else first + config.training.epochs
        with run.console.progress(name, epochs) as progress:

            def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
                progress.update(epoch, f"selection {100 * metrics[ACCURACY]:.2f} %")

            facts = run.workers.teacher(request, on_epoch)
        require_same_data(run, facts.split, why="the teacher's answers are kept by index")
        return facts.plain()

    facts = TeacherFacts.from_plain(
        run.stages.run(name, key, make, still_valid=lambda found: _is_there(run, key, found))
    )
    run.console.info(
        f"{name} {facts.fingerprint[:8]}: {facts.params or 0:,} parameters, "
        f"selection {percent(facts.selection_accuracy)} %{_normalised(facts.normalisation)}"
        f"{_aligned(facts.classes)}{''.join(f'; {done}' for done in facts.adapted)}"
    )
    require_accuracy(config.expected_accuracy, facts.selection_accuracy)
    if facts.chance is not None and request.is_loaded:
        require_better_than_chance(facts.chance, expected=config.expected_accuracy)
    elif facts.chance is not None and facts.chance.is_suspicious:
        run.console.info(f"warning: {chance_in_words(facts.chance)}; train it longer, or look at its labels")
    return facts


def _stage(run: Run) -> str:
    return "teacher" if run.member is None else f"teacher {run.member}"


def _is_there(run: Run, key: str, found: Mapping[str, Any]) -> bool:
    """Whether a teacher's files are there, and still its own: the next teacher is kept in the same place."""
    weights = found["weights"]
    files = [weights, *(part["weights"] for part in found.get("prepared", ()))]
    written = [
        event.key
        for event in run.ledger.events_of(StageEvent)
        if (event.stage, event.status) == (_stage(run), "finished") and event.found.get("weights") == weights
    ]
    return all(Path(file).is_file() for file in files) and written[-1:] == [key]


def is_still_there(run: Run, facts: TeacherFacts) -> bool:
    """Whether the files of a recorded teacher are there and its own; imported logits need none."""
    if facts.members:
        return all(is_still_there(run, member) for member in facts.members)
    if facts.weights is None:
        return True
    finished = (event.found for event in run.ledger.events_of(StageEvent) if event.status == "finished")
    written = [found["fingerprint"] for found in finished if found.get("weights") == facts.weights]
    files = [facts.weights, *(part.weights for part in facts.prepared)]
    return all(Path(file).is_file() for file in files) and written[-1:] == [facts.fingerprint]


def teacher_request(run: Run) -> tuple[TeacherRequest, str]:
    """What the stage is asked for, and the key under which the ledger keeps its result."""
    experiment = run.experiment
    config = experiment.teacher
    # A new view each epoch: how many views are cached for students must not make another teacher.
    n_views = min(config.training.epochs, MAX_VIEWS)
    weak = experiment.views.weak
    if config.prepared is PreparedTraining.JOINT_BRANCHES:  # which take each image to show one sample
        weak = weak.unmixed
    request = TeacherRequest(
        data=experiment.data.labelled,
        **run.teacher_source.plain(),
        training=config.training,
        views=ViewsConfig(weak=weak.with_overrides(views=n_views)),
        seed=derive_seed(experiment.seed, "teacher", *([] if run.member is None else [run.member])),
        folder=str(run.out / "teacher" / ("" if run.member is None else str(run.member))),
        threads=experiment.cluster.cpus_per_worker,
        keeps_answers=run.member is None,  # students are compared with several as one
        prepared=config.prepared,
        **_student_of(run),
        code=run.edited(config.model.factory if config.model else None, experiment.data.factory),
    )
    inputs = request.model_dump(mode="json", exclude={*NO_PART, "checkpoint", "data"})
    inputs["data"] = keyed_data(run, request.data)
    inputs["model"] = request.model and known_by(request.model.unnamed)
    beside = digests_beside(Path(request.checkpoint)) if request.checkpoint else []
    key = digest_of([inputs, _file_digest(request.checkpoint), *beside])
    return request, key


def _student_of(run: Run) -> dict[str, Any]:
    """The student whose classifier a teacher is trained with, and how it is trained; nothing for others."""
    if run.experiment.teacher.prepared is not PreparedTraining.STUDENT_CLASSIFIER:
        return {}
    return {"student": run.student, "student_training": run.experiment.training}


def _aligned(classes: ClassRows | None) -> str:
    if classes is None:
        return ""
    if len(classes.rows) == classes.n_outputs:
        return ", its classes in another order than the data's: matched by name"
    return (
        f"; of its {classes.n_outputs:,} classes the {len(classes.rows):,} of the data are used, matched by "
        "name: its probabilities are over these alone"
    )


def _normalised(own: Normalisation | None) -> str:
    return "" if own is None else f", its images normalised by mean {list(own.mean)}, std {list(own.std)}"


def _imported_stage(run: Run) -> TeacherFacts:
    """What is known of a teacher whose logits were brought; there is nothing to train or to load."""
    record = read_imported(run.loaded)
    key = _imported_key(run, record)

    def make() -> dict[str, Any]:
        return imported_facts(record, load_training(run.experiment.data)).plain()

    facts = TeacherFacts.from_plain(run.stages.run("teacher", key, make))
    run.console.info(
        f"teacher {facts.fingerprint[:8]}: logits from {record.source}, right on "
        f"{100 * record.accuracy:.2f} % of the training split; no network here to prove them against"
    )
    return facts


def recorded_teacher(run: Run) -> TeacherFacts | None:
    """The teacher of this experiment as the ledger tells, with what it was prepared with, and with what is
    known of unlabelled images.

    None where no run has made it, or has counted these.

    Raises:
        ConfigError: its logits are still to be imported.
    """
    facts = _recorded(run)
    if facts is None:
        return None
    facts = recorded_preparations(run, facts)
    if run.experiment.data.unlabelled is None:
        return facts
    found = recorded_unlabelled(run)
    return None if found is None else with_facts(facts, found)


def _recorded(run: Run) -> TeacherFacts | None:
    if run.experiment.teachers:
        return recorded_ensemble(run, _recorded)
    done = run.ledger.finished(_stage(run), _recorded_key(run))
    return None if done is None else TeacherFacts.from_plain(done.found)


def _recorded_key(run: Run) -> str:
    if run.experiment.teacher.imported:
        return _imported_key(run, read_imported(run.loaded))
    return teacher_request(run)[1]


def known_teacher(run: Run, data: TrainingData | None = None) -> TeacherFacts | None:
    """The teacher of this experiment as ledger or checkpoint tell; none when it is still to be trained.

    The data are loaded where they are needed and not given.

    Raises:
        ConfigError: its logits are still to be imported.
        CheckpointError: its checkpoint cannot be read, or does not fit the model.
    """
    if run.experiment.teachers:
        return recorded_ensemble(run, lambda member: known_teacher(member, data))
    if run.experiment.teacher.imported:
        return imported_facts(read_imported(run.loaded), data or load_training(run.experiment.data))
    facts = _recorded(run)
    if facts is not None and facts.weights is not None and _is_there(run, _recorded_key(run), facts.plain()):
        return with_known(run, recorded_preparations(run, facts), data)
    source = run.teacher_source
    if source.checkpoint is None:
        return None
    data = data or load_training(run.experiment.data)
    return recorded_preparations(run, checkpoint_facts(source, source.checkpoint, data))


def _imported_key(run: Run, record: ImportedTeacher) -> str:
    return digest_of([record.plain(), keyed_data(run, run.experiment.data)])


def _file_digest(path: str | None) -> str | None:
    if path is not None and path.endswith(ONNX):
        return digest_of([file_sha256(file) for file in onnx_files(Path(path))])
    return None if path is None else file_sha256(Path(path))
