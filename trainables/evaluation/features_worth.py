"""What a network's features are worth: how well its nearest neighbours, or a linear probe, tell classes.

The features are the embedding: what the network's last linear or cosine layer is given, or what the part of
it gives that the experiment file states, of unaltered images in evaluation mode. Labelled training images are
the reference; labels of the images that are judged are used to count right answers, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.config.metrics import RankBy
from trainables.config.objective_base import EMBEDDING
from trainables.data import ImageSplit
from trainables.errors import TrialFailed
from trainables.models.features import FeatureTap
from trainables.models.modes import evaluating
from trainables.seeds import first_by_hash, salt_of
from trainables.views.normalise import normalise

NEIGHBOURS: Final = 20
"""k; Wu et al. (2018) vote with 200, later work on features without labels with 20."""
TEMPERATURE: Final = 0.07
"""tau of the neighbours' weights (Wu et al., 2018, section 3.4)."""
REFERENCE_IMAGES: Final = 20_000
"""The most training images that are the reference; of more, so many are drawn, the same for every network."""
PENALTY: Final = 1.0
"""Of the squared weights of the probe beside the sum of its losses: scikit-learn's 1 / C."""
PROBE_STEPS: Final = 200
"""The most iterations of L-BFGS."""
_SALT: Final = salt_of("evaluation/reference")
_SIMILARITIES: Final = 1 << 24
"""The most that are held together: 64 MiB."""

# N = reference images, M = images that are judged, B = some of them, D = numbers in an embedding
# C = classes, K = neighbours


class NoFeatures(TrialFailed):
    """A network gives no embedding that could be judged."""


@dataclass(frozen=True)
class Shown:
    """How images are shown to the network that is judged."""

    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int
    device: torch.device
    stated: Mapping[str, str] = field(default_factory=dict)
    """What the experiment file says of the network's features: module paths by name."""


def feature_figures(
    model: nn.Module,
    by: RankBy,
    *,
    reference: ImageSplit,
    judged: ImageSplit,
    n_classes: int,
    shown: Shown,
) -> dict[str, float]:
    """The figure that ranks students where it is one of features, by its name; nothing for accuracy.

    A fraction in [0, 1]: of the judged images, those that are given their class. Of a reference with more
    than `REFERENCE_IMAGES` images, so many take part.

    Raises:
        NoFeatures: the network has no embedding.
        TrialFailed: it has one that is not finite.
    """
    if not by.is_of_features:
        return {}
    rows = reference_rows(reference)
    reference_ND = embeddings(model, reference, rows, n_classes=n_classes, shown=shown)
    judged_MD = embeddings(model, judged, torch.arange(len(judged.labels)), n_classes=n_classes, shown=shown)
    answer = knn_answers if by is RankBy.KNN_ACCURACY else probe_answers
    labels_N = reference.labels[rows].to(shown.device)
    answers_M = answer(reference_ND, labels_N, judged_MD, n_classes=n_classes).cpu()
    return {by.value: float((answers_M == judged.labels).double().mean())}


def reference_rows(split: ImageSplit) -> Tensor:
    """int64, ascending: the rows of a split that are the reference; the ids of its samples choose them."""
    ids_N = split.ids.numpy()
    if len(ids_N) <= REFERENCE_IMAGES:
        return torch.arange(len(ids_N))
    return torch.from_numpy(np.searchsorted(ids_N, first_by_hash(ids_N, REFERENCE_IMAGES, salt=_SALT)))


def embeddings(
    model: nn.Module, split: ImageSplit, rows_N: Tensor, *, n_classes: int, shown: Shown
) -> Tensor:
    """NxD fp32 embeddings of unaltered images, on the device; the network's modes are as before afterwards.

    Raises:
        NoFeatures: the network has no linear or cosine layer with one output per class, or gives that layer
            anything but one vector per image, and the experiment file states no other part.
        TrialFailed: a number is not finite.
    """
    try:
        tap = FeatureTap(
            model,
            (EMBEDDING,),
            n_classes=n_classes,
            input_shape=split.image_shape,
            device=shown.device,
            stated=shown.stated,
            error=NoFeatures,
        )
    except NoFeatures as error:
        raise NoFeatures(f"{error}; or set search.rank_by to accuracy, which judges no features") from error
    with evaluating(model), torch.no_grad():
        found = [
            _embeddings_of(model, images.to(shown.device), tap, shown)
            for images in split.each(split.images.__getitem__, torch.split(rows_N, shown.batch_size))
        ]
    embeddings_ND = torch.cat(found)
    if not bool(torch.isfinite(embeddings_ND).all()):
        raise TrialFailed("the network's features are not finite; a lower learning rate may help")
    return embeddings_ND


def _embeddings_of(model: nn.Module, images: Tensor, tap: FeatureTap, shown: Shown) -> Tensor:
    # As the loop trains, see `metrics`.
    batch = normalise(images, shown.mean, shown.std).contiguous(memory_format=torch.channels_last)
    _, features = tap.during(lambda: model(batch))
    return features[EMBEDDING].float()


def knn_answers(
    reference_ND: Tensor,
    labels_N: Tensor,
    judged_MD: Tensor,
    *,
    n_classes: int,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """The class (int64, M) that each judged embedding's nearest reference embeddings vote for.

    With cosine similarity s, the neighbour i votes for its class with the weight exp(s_i / tau) (Wu et al.,
    2018, "Unsupervised feature learning via non-parametric instance discrimination", section 3.4). The
    neighbours are exact; of equally similar ones the lower rows count, of equal votes the lower class.
    """
    reference_ND, judged_MD = F.normalize(reference_ND, dim=1), F.normalize(judged_MD, dim=1)
    k = min(neighbours, len(reference_ND))
    at_once = max(1, _SIMILARITIES // max(len(reference_ND), k * n_classes))
    found = []
    for judged_BD in torch.split(judged_MD, at_once):
        similarity_BK, rows_BK = nearest(judged_BD @ reference_ND.T, k)
        # Over the nearest one's: all votes by one factor less, and no overflow.
        weight_BK = ((similarity_BK - similarity_BK[:, :1]) / temperature).exp()
        # Not scatter_add, which on a GPU adds in any order.
        vote_BKC = F.one_hot(labels_N[rows_BK], n_classes) * weight_BK[..., None]
        found.append(vote_BKC.sum(dim=1).argmax(dim=1))
    return torch.cat(found)


def nearest(similarity_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest similarities of each row, BxK, descending, and their columns; of equal ones the first."""
    values, columns = similarity_BN.topk(min(k + 1, similarity_BN.shape[1]))
    if values.shape[1] > k:
        # `topk` takes any of equal ones, which matters where one of them is left out.
        tied_B = values[:, k - 1] == values[:, k]
        values, columns = values[:, :k], columns[:, :k].contiguous()
        if bool(tied_B.any()):
            columns[tied_B] = similarity_BN[tied_B].argsort(dim=1, descending=True, stable=True)[:, :k]
    return values, columns


def probe_answers(reference_ND: Tensor, labels_N: Tensor, judged_MD: Tensor, *, n_classes: int) -> Tensor:
    """The class (int64, M) that logistic regression on the frozen reference gives each judged embedding.

    Features are standardised by the reference's mean and deviation. Minimised is, over weights W (CxD) and
    biases b,

        sum_n CE(W x_n + b, y_n) + PENALTY / 2 * |W|^2

    by L-BFGS from zero, in fp64 on a CPU and fp32 on a GPU, in at most `PROBE_STEPS` iterations.
    """
    exact = torch.float64 if reference_ND.device.type == "cpu" else torch.float32
    reference_ND, judged_MD = reference_ND.to(exact), judged_MD.to(exact)
    std_D, mean_D = torch.std_mean(reference_ND, dim=0, correction=0)
    std_D = torch.where(std_D > 0, std_D, 1)  # a feature that never changes tells nothing
    weight_CD, bias_C = _fitted((reference_ND - mean_D) / std_D, labels_N, n_classes)
    return F.linear((judged_MD - mean_D) / std_D, weight_CD, bias_C).argmax(dim=1)


def _fitted(features_ND: Tensor, labels_N: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """The weights and biases of the probe; the loss is over N, so that one tolerance suits all sizes."""
    weight_CD = features_ND.new_zeros(n_classes, features_ND.shape[1], requires_grad=True)
    bias_C = features_ND.new_zeros(n_classes, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight_CD, bias_C],
        max_iter=PROBE_STEPS,
        tolerance_grad=1e-6,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        penalty = PENALTY / 2 * weight_CD.square().sum() / len(features_ND)
        value = F.cross_entropy(F.linear(features_ND, weight_CD, bias_C), labels_N) + penalty
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return weight_CD.detach(), bias_C.detach()
