"""The batches of an epoch: labelled rows, and in their share unlabelled ones beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.config import ObjectiveBase, TrainingConfig
from trainables.data import TrainingData
from trainables.seeds import derive_seed
from trainables.signals import Labelling
from trainables.training.epoch_order import epoch_rows
from trainables.training.ranks import Share, Team

# B = samples in the batch, N = samples of one kind


@dataclass(frozen=True)
class Batch:
    """Rows that are trained on together; they count through the training split and unlabelled images."""

    rows_B: Tensor
    """int64, on the CPU."""
    n_labelled: int | None = None
    """How many of them have labels; none in a course without unlabelled images, where all have."""
    together: int = 1
    """How many rows, from the first on, go to one worker together: two where labelled rows are pairs."""


def hears_unlabelled(objective: ObjectiveBase, data: TrainingData) -> bool:
    """Whether an objective learns from unlabelled images: without a teacher there is nothing to learn."""
    return data.unlabelled is not None and bool(objective.teacher_banks)


def epoch_batches(
    data: TrainingData, training: TrainingConfig, *, seed: int, epoch: int, unlabelled: bool
) -> list[Batch]:
    """The batches of an epoch (counted from 1), as seed and epoch alone decide them.

    An epoch is one pass over the training split, in batches of the recipe's size. Unlabelled images are their
    share of each batch, and labelled samples the rest; they are gone through in a new order before one of
    them comes again, on and on through the epochs. With a share of 1 an epoch is one pass over them.

    Where rows come in pairs, a batch holds whole pairs, and of unlabelled images an even number. Classes of
    an odd number of rows make an epoch longer, by a row each.
    """
    size, together = training.batch_size, training.sampling.together
    beside = data.unlabelled if unlabelled else None
    if beside is None:
        labelled = _whole_batches(_labelled(data, training, seed, epoch), size)
        return [Batch(rows_B, together=together) for rows_B in labelled]
    n_train, count = len(data.train.ids), beside.facts.count
    if beside.config.share == 1:
        order_N = n_train + _stream(count, (epoch - 1) * count, count, seed=seed)
        return [Batch(rows_B, 0) for rows_B in _whole_batches(order_N, size)]
    n_beside = beside.config.rows_of(size, together=together)
    labelled = _whole_batches(_labelled(data, training, seed, epoch), size - n_beside)
    # A single batch that is short has its share too.
    shares = [len(rows_L) * n_beside / (size - n_beside) / together for rows_L in labelled]
    counts = [together * max(round(share), 1) for share in shares]
    # From the epoch alone: a course that goes on needs nothing kept for it.
    own_N = n_train + _stream(count, (epoch - 1) * sum(counts), sum(counts), seed=seed)
    return [_beside(*both, together) for both in zip(labelled, torch.split(own_N, counts), strict=True)]


def _labelled(data: TrainingData, training: TrainingConfig, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return epoch_rows(data.train.labels, training.sampling, generator)


def shared(team: Team, batch: Batch, *, n_train: int) -> Share:
    """This rank's share of a batch, its labelled rows first; `n_train` is the first row without a label.

    The kinds alternate in a batch, so that each rank has both in nearly the batch's proportion; what is left
    of the difference `Labelling.scale` makes up for.
    """
    # What comes together is shared as one: by the place of its first row.
    firsts = team.share(torch.arange(0, len(batch.rows_B), batch.together))
    share = replace(
        firsts, rows_B=batch.rows_B.view(-1, batch.together)[firsts.rows_B // batch.together].flatten()
    )
    if batch.n_labelled is None:
        return share
    has_label_B = share.rows_B < n_train
    n_own = int(has_label_B.sum())
    part_of_labelled = n_own / batch.n_labelled if batch.n_labelled else 0.0
    scale = part_of_labelled / share.part if share.part else 1.0
    rows_B = torch.cat([share.rows_B[has_label_B], share.rows_B[~has_label_B]])
    return replace(share, rows_B=rows_B, labelling=Labelling(n_own, scale))


def _beside(labelled_L: Tensor, unlabelled_U: Tensor, together: int) -> Batch:
    """Both kinds, alternating as evenly as their numbers allow, so many rows of one kind at a time."""
    kinds = (labelled_L.view(-1, together), unlabelled_U.view(-1, together))
    places = torch.cat([(torch.arange(len(kind)) + 0.5).double() / len(kind) for kind in kinds])
    rows_B = torch.cat(kinds)[places.argsort(stable=True)].flatten()
    return Batch(rows_B, len(labelled_L), together)


def _stream(count: int, first: int, n: int, *, seed: int) -> Tensor:
    """Numbers `first` to `first + n` of an endless series: each of `count` once, in a new order each time."""
    rounds = range(first // count, (first + n - 1) // count + 1)
    generators = [torch.Generator().manual_seed(derive_seed(seed, "unlabelled order", r)) for r in rounds]
    orders = torch.cat([torch.randperm(count, generator=generator) for generator in generators])
    skipped = first - rounds.start * count
    return orders[skipped : skipped + n]


def _whole_batches(order_N: Tensor, size: int) -> list[Tensor]:
    batches = list(torch.split(order_N, size))
    # A short last batch gives noisy batch statistics, and one of a single sample fails.
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < size else batches
