"""The weights of a folder of transformers, under the names that the network has in memory.

What save_pretrained writes has names, and at times shapes, of its own, which only the library brings back: it
reads the folder here, its safetensors alone, and no code that lies beside them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import safetensors.torch

from trainables.checkpoint_header import CONFIG, PREPROCESSING, WEIGHTS, weights_file, why_unreadable
from trainables.config import digest_of
from trainables.errors import CheckpointError
from trainables.foreign_files import foreign_file
from trainables.local_files import file_sha256, replace_file, replacing
from trainables.models.foreign.extras import extra
from trainables.models.foreign.from_transformers import silent_transformers

_DIGITS: Final = 12


def is_of_transformers(file: Path) -> bool:
    """Whether a file of weights lies in a folder as save_pretrained writes it."""
    return file.name == WEIGHTS and (file.parent / CONFIG).is_file()


def transformers_weights(source: Path, folder: Path) -> Path:
    """A file below `folder` with the weights of the folder `source`; beside it what that says of itself.

    Weights that the folder lacks, as a head that was never trained, are left out. A file that is there
    already is not made again.

    Raises:
        ConfigError: transformers is not installed.
        CheckpointError: the folder has no safetensors, or what it has does not fit its configuration.
    """
    file = weights_file(source)
    if why := why_unreadable(file):
        raise CheckpointError(f"{file}, the weights of a folder of transformers: {why}")
    said = (file, source / CONFIG, source / PREPROCESSING)
    contents = [file_sha256(path) for path in said if path.is_file()]
    target = folder / f"transformers-{digest_of(contents)[:_DIGITS]}" / WEIGHTS
    if target.is_file():
        return target
    for name in (CONFIG, PREPROCESSING):
        if (source / name).is_file():
            copied(source / name, target.with_name(name))
    replace_file(target, _read(source))
    return target


def copied(file: Path, target: Path) -> Path:
    """A copy, for nodes that do not see the cache of this one; the same file where it is there already."""
    if not target.is_file() or target.stat().st_size != file.stat().st_size:
        with replacing(target) as beside:
            shutil.copyfile(file, beside)
    return target


def _read(source: Path) -> bytes:
    """The content of a safetensors file, in fp32."""
    classifiers = extra("transformers").AutoModelForImageClassification
    with (
        silent_transformers(),
        foreign_file(lambda why: CheckpointError(f"transformers cannot read the weights in {source}: {why}")),
    ):
        network, found = classifiers.from_pretrained(
            str(source),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
        lacking = set(found["missing_keys"])
        state = network.float().state_dict()
        return safetensors.torch.save(
            {name: value.contiguous().clone() for name, value in state.items() if name not in lacking}
        )
