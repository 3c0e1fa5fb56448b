"""The stage `unlabelled`: images without labels counted, and left out where students are judged by them.

The teacher is known without them, so that it is not trained again when they come or go; cache and search are
known by them too.
"""

from __future__ import annotations

from typing import Any, Final

from orchestrator.pipeline.context import Run
from trainables.config import DataConfig, digest_of
from trainables.config.data import DataName, SourcePart, UnlabelledConfig, UnlabelledFacts
from trainables.data import TrainingData, load_training
from trainables.data.folder_listing import Listing, list_unlabelled
from trainables.data.layouts.listing import list_images
from trainables.data.splits import split_facts
from trainables.errors import DataError
from trainables.local_files import expanded
from trainables.training.train_teacher import TeacherFacts

STAGE: Final = "unlabelled"


def with_unlabelled(run: Run, teacher: TeacherFacts) -> TeacherFacts:
    """The teacher's facts with those of the unlabelled images, which are counted where no run has yet.

    Raises:
        DataError: the images cannot be read, or all are in the selection or test split too.
    """
    unlabelled = run.experiment.data.unlabelled
    if unlabelled is None:
        return teacher

    def count() -> dict[str, Any]:
        found = split_facts(load_training(run.experiment.data)).unlabelled
        return {} if found is None else found.plain()

    facts = UnlabelledFacts.from_plain(run.stages.run(STAGE, _key(run, unlabelled), count))
    run.console.info(facts.in_words(unlabelled))
    return with_facts(teacher, facts)


def recorded_unlabelled(run: Run) -> UnlabelledFacts | None:
    """What the ledger tells of them; none where no run has counted them, or there are none."""
    unlabelled = run.experiment.data.unlabelled
    done = None if unlabelled is None else run.ledger.finished(STAGE, _key(run, unlabelled))
    return None if done is None else UnlabelledFacts.from_plain(done.found)


def with_known(run: Run, teacher: TeacherFacts, data: TrainingData | None) -> TeacherFacts:
    """The teacher's facts with those of the unlabelled images, from the ledger or the data.

    Raises:
        DataError: as for `with_unlabelled`.
    """
    if run.experiment.data.unlabelled is None:
        return teacher
    found = recorded_unlabelled(run)
    found = found or split_facts(data or load_training(run.experiment.data)).unlabelled
    return teacher if found is None else with_facts(teacher, found)


def with_facts(teacher: TeacherFacts, found: UnlabelledFacts) -> TeacherFacts:
    """The teacher's facts with these of unlabelled images."""
    return teacher.with_overrides(split=teacher.split.with_overrides(unlabelled=found))


def keyed_data(run: Run, data: DataConfig) -> dict[str, Any]:
    """What fingerprints hold of the data section: its folders are known again where all was moved."""
    plain = data.plain()
    sections = [plain, plain.get("unlabelled") or {}]
    for section in sections:
        if section.get("root") is not None:
            section["root"] = run.key_path(section["root"])
    edited = run.edited(data.factory)
    return plain if edited is None else {**plain, "code": edited}


def _key(run: Run, unlabelled: UnlabelledConfig) -> str:
    """Fingerprint of what the count depends on: pictures that are added to the folder make it another."""
    data = keyed_data(run, run.experiment.data)
    for name in ("share", "top_class_as_target"):
        del data["unlabelled"][name]
    code = run.loaded.code.get(str(unlabelled.factory))
    judges = _judged_by(run.experiment.data)
    return digest_of([data, code and code.digest, _listed(unlabelled), *([judges] if judges else [])])


def _judged_by(data: DataConfig) -> list[Any]:
    """Names, sizes and times of a folder's labelled images, copies of which are left out.

    Nothing for other data sets, and where the folder cannot be listed here: loading says what is wrong.
    """
    if data.name is not DataName.IMAGE_FOLDER or not expanded(str(data.root)).is_dir():
        return []
    try:
        return [_stamp(list_images(data, part).images) for part in (SourcePart.TRAIN, SourcePart.TEST)]
    except DataError:
        return []


def _listed(unlabelled: UnlabelledConfig) -> list[Any]:
    """Names, sizes and times of a folder's files; nothing where it is not on this machine."""
    if unlabelled.root is None or not expanded(unlabelled.root).is_dir():
        return []
    return _stamp(list_unlabelled(expanded(unlabelled.root)))


def _stamp(listing: Listing) -> list[Any]:
    names = [name.encode(errors="surrogateescape").hex() for name in listing.names]
    return [names, listing.bytes_N.tolist(), listing.changed_ns_N.tolist()]
