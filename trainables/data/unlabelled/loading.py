"""Unlabelled images without those that students are judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.config.data import DataConfig, UnlabelledConfig, UnlabelledFacts
from trainables.data.contents import among, content_hashes
from trainables.data.folder_images import FolderImages
from trainables.data.splits import FIRST_UNLABELLED_ID, NO_LABEL, ImageSplit, Unlabelled
from trainables.data.unlabelled.reading import Found, read_unlabelled
from trainables.errors import DataError

Images = Tensor | FolderImages

# N = images


def load_unlabelled(
    config: DataConfig,
    unlabelled: UnlabelledConfig,
    *,
    rest: ImageSplit | None,
    selection: Images,
    test: Images,
) -> Unlabelled:
    """The unlabelled images, but for those whose content is in the selection or test split too.

    `rest` holds the samples that the training split leaves out, where these are to be used. An id says where
    an image stands in its source, so it does not hang on which ones are left out.

    Raises:
        DataError: there are none, they have another shape than the labelled ones, cannot be read, or all are
            left out.
        ConfigError: the factory cannot be found or called.
        StorageError: the node's scratch folder cannot be written.
    """
    found = _found(config, unlabelled, rest, selection)
    own_N, selection_N, test_N = _comparable(found.images, selection, test)
    in_selection_N = among(own_N, selection_N)
    in_test_N = among(own_N, test_N) & ~in_selection_N
    kept = np.flatnonzero(~(in_selection_N | in_test_N))
    if len(kept) == 0:
        raise DataError(
            f"all {len(own_N):,} unlabelled images of {unlabelled.source} are in the selection or test split "
            "too; give others"
        )
    images = found.images
    images = images[torch.from_numpy(kept)] if isinstance(images, Tensor) else images.subset(kept)
    ids = torch.from_numpy(FIRST_UNLABELLED_ID + found.places_N[kept])
    split = ImageSplit(images, torch.full((len(kept),), NO_LABEL), ids)
    facts = UnlabelledFacts(
        images_digest=_digest(split),
        count=len(kept),
        in_selection=int(in_selection_N.sum()),
        in_test=int(in_test_N.sum()),
        unreadable=found.unreadable,
    )
    return Unlabelled(split, facts, unlabelled)


def _found(
    config: DataConfig, unlabelled: UnlabelledConfig, rest: ImageSplit | None, selection: Images
) -> Found:
    if not unlabelled.rest:
        channels, height, width = (int(side) for side in selection.shape[1:])
        return read_unlabelled(config, unlabelled, (channels, height, width))
    if rest is None or len(rest.ids) == 0:
        raise DataError(
            "`unlabelled.rest` is of training samples that `train_limit` and `imbalance` leave out, and they "
            "leave out none; lower `train_limit`"
        )
    return Found(rest.images, rest.ids.numpy())


def _comparable(*images: Images) -> list[NDArray[np.uint64]]:
    """Hashes that compare: of the files where all are in files, of the pixels otherwise."""
    all_in_files = not any(isinstance(some, Tensor) for some in images)
    return [content_hashes(some, decoded=not all_in_files) for some in images]


def _digest(split: ImageSplit) -> str:
    if split.files is not None:
        return split.files.digest(split.labels, split.ids)
    parts: Sequence[Tensor] = (split.images[:], split.ids)
    digest = hashlib.sha256()
    for tensor in parts:
        array = np.ascontiguousarray(tensor.numpy())
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
