"""The first look at a large image folder, where a person sees how far it is."""

from __future__ import annotations

from contextlib import ExitStack

from orchestrator.terminal.console import Console, Progress
from trainables.config import DataConfig
from trainables.data.image_folder import index_folder


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
