"""The alignment proof: the cache holds this teacher's answers to these views of these samples.

The commonest silent fault of cached distillation is the logits of another sample or of another view;
training then goes on, only worse. So nothing trains before this holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from trainables.cache.format.agreement import PREPARED
from trainables.cache.format.identity import plain_recipe
from trainables.cache.format.logit_encoding import Float32s, Int64s
from trainables.cache.node.reader import CacheReader
from trainables.config import BankConfig, Config, ViewsConfig
from trainables.data import TrainingData
from trainables.errors import CacheError
from trainables.models.features.feature_tap import ENERGY
from trainables.models.foreign.onnx_network import onnx_networks
from trainables.seeds import derive_seed
from trainables.teacher.agreement import disagreement, feature_disagreement
from trainables.teacher.autocast import AutocastTeacher
from trainables.teacher.live import Answers, LiveTeacher

# N = training samples and unlabelled ones, V = views, P = pairs, C = classes

N_PAIRS: Final = 64
NAMED_ROWS: Final = 5
AUTOCAST_TOLERANCE: Final = 2.0**-5
"""A bf16 number has eight bits, and sums in a batch of another size may be rounded to a neighbour."""

HALF_TOLERANCE: Final = 2.0**-8
"""A float16 number has eleven bits, and a network in it rounds at each of its layers."""

Pair = tuple[str, int, int]
"""Bank, view, row of the training split."""


class ProofSummary(Config):
    """What the proof saw."""

    pairs: int = Field(description="(sample, view) pairs that went through the live teacher")
    largest_difference: float = Field(description="of a kept logit and the live one, over all pairs")
    accuracy: dict[str, tuple[float, ...]] = Field(
        description="of the teacher on the training split, by bank and view; fractions"
    )


def prove_alignment(
    reader: CacheReader,
    data: TrainingData,
    teacher: nn.Module | None,
    views: ViewsConfig,
    seed: int,
    *,
    banks: Sequence[str] | None = None,
) -> ProofSummary:
    """Prove that a cache belongs to this data, these views and this teacher.

    Sample ids cover the training split, and unlabelled images behind it, once in every view; the teacher's
    accuracy, recomputed from the cache and the data's own labels, is the one on record; 64 random (sample,
    view) pairs, half of them of unlabelled images where there are any, agree with the live teacher within the
    precision of the cache, features included, and the classifier's weights are the teacher's. `seed` is that
    of the views, `banks` those that the experiment uses (all of the cache's, when it is not given). The
    teacher stays on its device and is left in evaluation mode; for imported logits there is none, and then no
    pair is proved. Features are those that the reader shows: what other experiments keep in the folder may be
    of other parts of the network, or of what the teacher was prepared with for them.

    Raises:
        DamagedCache: files that are missing, cut short or altered.
        CacheError: the cache is not this experiment's; it names up to five rows.
    """
    names = tuple(reader.banks if banks is None else banks)
    for name in names:
        _require_bank(reader, name, views.bank(name))
        _require_ids(name, reader.arrays(name).ids, data.ids_M.numpy())
    accuracy = {name: _proved_accuracy(reader, name, data) for name in names}
    if teacher is None:
        return ProofSummary(pairs=0, largest_difference=0.0, accuracy=accuracy)
    device = next((parameter.device for parameter in teacher.parameters()), torch.device("cpu"))
    made_by = reader.made_by.items()
    stated = {name.removeprefix(ENERGY): by for name, by in made_by if not by.startswith(PREPARED)}
    live = LiveTeacher(teacher, data, seed=seed, batch_size=N_PAIRS, device=device, stated=stated)
    planes = [(name, view) for name in names for view in range(reader.banks[name].views)]
    pairs = _draw_pairs(planes, len(data.train.ids), reader.manifest.n_rows, seed)
    _require_classifier(reader, live)
    tolerance = _tolerance(teacher)
    largest = _require_agreement(reader, live, views, pairs, data.ids_M, tolerance=tolerance)
    return ProofSummary(pairs=len(pairs), largest_difference=largest, accuracy=accuracy)


def _tolerance(teacher: nn.Module) -> float:
    """What a teacher's own sums are coarse by."""
    if isinstance(teacher, AutocastTeacher):
        return AUTOCAST_TOLERANCE
    halves = [network for network in onnx_networks(teacher) if network.is_half]
    return HALF_TOLERANCE if halves else 0.0


def _require_bank(reader: CacheReader, name: str, wanted: BankConfig) -> None:
    found = reader.banks.get(name)
    if found is None or found.views < wanted.views:
        raise CacheError(
            f"{reader.uri} has {found.views if found else 0} views of bank {name}, this experiment uses "
            f"{wanted.views}; run the cache stage"
        )
    if found.recipe != wanted.recipe:
        raise CacheError(
            f"{reader.uri} shows bank {name} by recipe {plain_recipe(found.recipe)}, this experiment uses "
            f"{plain_recipe(wanted.recipe)}; point cache.uri elsewhere or remove it"
        )


def _require_ids(bank: str, ids_VN: Int64s, wanted_N: Int64s) -> None:
    for view, ids_N in enumerate(ids_VN):
        if np.array_equal(ids_N, wanted_N):
            continue
        missing, foreign = np.setdiff1d(wanted_N, ids_N), np.setdiff1d(ids_N, wanted_N)
        places = min(len(ids_N), len(wanted_N))
        moved = np.flatnonzero(ids_N[:places] != wanted_N[:places])[:NAMED_ROWS]
        first = "; ".join(f"row {row}: sample {ids_N[row]} instead of {wanted_N[row]}" for row in moved)
        raise CacheError(
            f"bank {bank}, view {view}: sample ids of the cache do not cover the training split exactly once "
            f"({len(missing)} missing, {len(foreign)} foreign; {first}); "
            "remove the cache and run its stage again"
        )


def _proved_accuracy(reader: CacheReader, bank: str, data: TrainingData) -> tuple[float, ...]:
    arrays = reader.arrays(bank)
    labels_N = data.labels_M.numpy()
    n_labelled = len(data.train.labels)
    shares: list[float] = []
    for view in range(reader.banks[bank].views):
        wrong = np.flatnonzero(arrays.labels[view] != labels_N)
        if len(wrong):
            named = ", ".join(str(sample) for sample in arrays.ids[view][wrong[:NAMED_ROWS]])
            raise CacheError(
                f"bank {bank}, view {view}: {len(wrong)} labels in the cache are not those of the data set "
                f"(sample ids {named}); remove the cache and run its stage again"
            )
        correct, recorded = int((arrays.top1[view] == labels_N).sum()), reader.manifest.correct(bank, view)
        if correct != recorded:
            raise CacheError(
                f"bank {bank}, view {view}: the teacher is right on {correct} of {n_labelled} samples by "
                f"the cache's rows, but on {recorded} by its records; remove the cache and run "
                "its stage again"
            )
        shares.append(correct / n_labelled)
    return tuple(shares)


def _require_classifier(reader: CacheReader, live: LiveTeacher) -> None:
    """The weights that are kept are those of the live teacher, to the bit."""
    kept = reader.classifier()
    if kept is None:
        return
    own = live.classifier()
    pairs = ((kept.weight_CD, own.weight_CD), (kept.bias_C, own.bias_C))
    if not all(torch.equal(one, other) for one, other in pairs):
        raise CacheError(
            f"the weights of the teacher's classifier in {reader.uri} are not those of the live teacher; the "
            "cache belongs to another teacher: point cache.uri elsewhere or remove it"
        )


def _draw_pairs(planes: Sequence[tuple[str, int]], n_train: int, n_rows: int, seed: int) -> list[Pair]:
    """Random rows of as many (bank, view) planes as there are pairs, in random order."""
    generator = np.random.default_rng(derive_seed(seed, "alignment proof"))
    order = generator.permutation(len(planes))
    if n_train == n_rows:
        rows = generator.integers(n_rows, size=N_PAIRS)
    else:  # few of the one kind among many of the other would go unproved
        halves = ((0, n_train), (n_train, n_rows))
        chosen = [generator.integers(*half, size=N_PAIRS // 2) for half in halves]
        rows = generator.permutation(np.concatenate(chosen))
    return [(*planes[order[number % len(planes)]], int(row)) for number, row in enumerate(rows)]


def _require_agreement(
    reader: CacheReader,
    live: LiveTeacher,
    views: ViewsConfig,
    pairs: list[Pair],
    ids_N: Tensor,
    *,
    tolerance: float,
) -> float:
    largest, refused = 0.0, []
    for (bank, view), rows in _by_plane(pairs).items():
        rows_P = torch.tensor(rows)
        answers = live.answers(views.bank(bank).recipe, view, rows_P, reader.features(bank))
        compared = _compare(reader, (bank, view), rows_P, answers, tolerance=tolerance)
        largest = max(largest, float(compared["logit"][0].max()))
        for index, row in enumerate(rows):
            wrong = [
                f"{what} {by[index]:.3g}" for what, (by, excess) in compared.items() if not excess[index] <= 0
            ]
            if wrong:
                refused.append(f"bank {bank}, view {view}, sample {int(ids_N[row])}: {', '.join(wrong)}")
    if refused:
        more = ", …" if len(refused) > NAMED_ROWS else ""
        raise CacheError(
            f"{len(refused)} of {len(pairs)} rows of {reader.uri} are not what the live teacher says "
            f"(largest difference: {'; '.join(refused[:NAMED_ROWS])}{more}); the cache belongs to another "
            "teacher, other views or other samples: point cache.uri elsewhere or remove it"
        )
    return largest


def _compare(
    reader: CacheReader, plane: tuple[str, int], rows_P: Tensor, answers: Answers, *, tolerance: float
) -> dict[str, tuple[Float32s, Float32s]]:
    """Largest difference of each row, and by how much it passes its bound: of logits and kept features."""
    values, live_PC = reader.values(*plane, rows_P), answers.logits_BC.numpy()
    compared = {"logit": disagreement(values, values["logit_max"], live_PC, tolerance=tolerance)}
    kept = reader.signal(*plane, rows_P, tuple(answers.features)).features
    for name, live in answers.features.items():
        _require_shape(reader, name, tuple(kept[name].shape[1:]), tuple(live.shape[1:]))
        compared[name] = feature_disagreement(
            kept[name].flatten(1).numpy(),
            live.flatten(1).numpy(),
            reader.manifest.feature_precision,
            tolerance=tolerance,
        )
    return compared


def _require_shape(reader: CacheReader, name: str, kept: tuple[int, ...], live: tuple[int, ...]) -> None:
    """Refuse a feature that is of another part of the network than its name means now.

    A cache's identity holds that part only where the experiment file says it, not where it was found.

    Raises:
        CacheError: the shapes of one row differ.
    """
    if kept != live:
        raise CacheError(
            f"{reader.uri} keeps {name} as {'x'.join(map(str, kept))} numbers a sample, and the live "
            f"teacher's has {'x'.join(map(str, live))}; it is of another part of the network: point "
            "cache.uri elsewhere or remove it"
        )


def _by_plane(pairs: list[Pair]) -> Mapping[tuple[str, int], list[int]]:
    planes: dict[tuple[str, int], list[int]] = {}
    for bank, view, row in pairs:
        planes.setdefault((bank, view), []).append(row)
    return planes
