"""The stage `data`: the facts of the training split, where no teacher is made whose stage would find them."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import Any, Final

from orchestrator.pipeline.basis.unlabelled_stage import keyed_data
from orchestrator.pipeline.context import Run
from orchestrator.records.events import StageEvent
from orchestrator.terminal.console import Console, Progress
from trainables.config import DataConfig, digest_of
from trainables.config.data import DataName, SourcePart, SplitFacts
from trainables.data import load_training
from trainables.data.image_folder import index_folder
from trainables.data.layouts.listing import list_images
from trainables.data.splits import split_facts
from trainables.errors import DataError
from trainables.local_files import expanded

STAGE: Final = "data"


def data_stage(run: Run) -> SplitFacts:
    """The facts of the training split: size, classes, digests and normalisation, found once.

    Raises:
        DataError: the data cannot be loaded, or a worker has other samples than this process.
        StorageError: the node's scratch folder cannot be written.
    """

    def find() -> dict[str, Any]:
        look_at_images(run.experiment.data.labelled, run.console)
        split = _found(run)
        require_same_data(run, split, why="students are compared on the same ones")
        return split.plain()

    split = SplitFacts.from_plain(run.stages.run(STAGE, _key(run), find))
    size = " x ".join(map(str, split.input_shape))
    run.console.info(
        f"data {split.data_digest[:8]}: {split.n_train:,} training images of {len(split.classes)} classes, "
        f"{size}"
    )
    tell_left_out(run, split)
    return split


def recorded_data(run: Run) -> SplitFacts | None:
    """What the stage found in an earlier run; none where it was not run for these data."""
    done = run.ledger.finished(STAGE, _key(run))
    return None if done is None else SplitFacts.from_plain(done.found)


def tell_left_out(run: Run, split: SplitFacts) -> None:
    """Say how many images cannot be read, where there are such."""
    if split.left_out:
        run.console.info(f"{split.left_out:,} unreadable images are left out (data.skip_unreadable)")


def require_same_data(run: Run, split: SplitFacts, *, why: str) -> None:
    """Stop where a worker's data are not those that this process has looked at; `why` they have to be.

    Raises:
        DataError: they are not.
    """
    looks = [
        event for event in run.ledger.events_of(StageEvent) if event.stage == "preflight" and event.result
    ]
    known = looks[-1].found.get("data_digest") if looks else None
    if known is not None and known != split.data_digest:
        raise DataError(
            f"data factory {run.experiment.data.factory!r} gives other samples in each process (digests "
            f"{known[:8]}… and {split.data_digest[:8]}…), and {why}: "
            "let nothing in it hang on the process, the time or the order of a set; sort, and fix seeds"
        )


def look_at_images(config: DataConfig, console: Console) -> None:
    """Have the training images of a large folder looked at; the other processes of this node need not then.

    Silent where there is nothing to look at.

    Raises:
        DataError: the folder is not laid out as it should be.
        StorageError: the node's scratch folder cannot be written.
    """
    progress: Progress | None = None
    with ExitStack() as stack:

        def told(done: int, count: int) -> None:
            nonlocal progress
            progress = progress or stack.enter_context(console.progress("images looked at", count))
            progress.update(done)

        index_folder(config, told)


def _found(run: Run) -> SplitFacts:
    """The facts as this process finds them; of a user's code, as a worker does: it may give others there."""
    data = run.experiment.data.labelled
    if data.factory is None:
        return split_facts(load_training(data))
    run.workers.start_slots_early()
    return run.workers.split(data)


def _key(run: Run) -> str:
    data = run.experiment.data.labelled
    return digest_of([keyed_data(run, data), *_pictures(data)])


def _pictures(data: DataConfig) -> list[str]:
    """A digest of names, labels, sizes and times of a folder's training images: those that come count.

    Where a teacher is heard, a cache that does not fit tells of them. Nothing for other data sets, and where
    the folder cannot be listed here: loading says what is wrong.
    """
    if data.name is not DataName.IMAGE_FOLDER or not expanded(str(data.root)).is_dir():
        return []
    try:
        found = list_images(data, SourcePart.TRAIN).images
    except DataError:
        return []
    columns = (found.labels_N, found.bytes_N, found.changed_ns_N)
    parts = (found.names.block, *(column.tobytes() for column in columns))
    return [hashlib.sha256(b"".join(parts)).hexdigest()]
