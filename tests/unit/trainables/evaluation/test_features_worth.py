from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

import trainables.evaluation.features_worth as worth
from trainables.config.metrics import RankBy
from trainables.data import ImageSplit
from trainables.errors import TrialFailed
from trainables.models.cosine import CosineClassifier
from trainables.views.normalise import normalise

CPU = torch.device("cpu")
SHOWN = worth.Shown(mean=(0.4, 0.6), std=(0.2, 0.3), batch_size=16, device=CPU)
N_CLASSES = 4
FIGURES = [RankBy.KNN_ACCURACY, RankBy.PROBE_ACCURACY]


def clouds(n: int, *, seed: int, width: int = 12, spread: float = 1.6) -> tuple[Tensor, Tensor]:
    """Classes that overlap, so that neither all nor none are told apart."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.randint(0, N_CLASSES, (n,), generator=generator)
    centres = torch.randn(N_CLASSES, width, generator=torch.Generator().manual_seed(7))
    return centres[labels_N] + spread * torch.randn(n, width, generator=generator), labels_N


def split_of(n: int, *, seed: int, first_id: int = 0) -> ImageSplit:
    """Images whose brightness says something of their class."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.randint(0, N_CLASSES, (n,), generator=generator)
    noise = torch.randint(0, 120, (n, 2, 4, 4), generator=generator)
    images = (noise + 30 * labels_N[:, None, None, None]).to(torch.uint8)
    return ImageSplit(images, labels_N, first_id + torch.arange(n))


def network(head: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(1)
    head = nn.Linear(6, N_CLASSES) if head is None else head
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), head)


def figures(model: nn.Module, by: RankBy, reference: ImageSplit, judged: ImageSplit) -> dict[str, float]:
    return worth.feature_figures(
        model, by, reference=reference, judged=judged, n_classes=N_CLASSES, shown=SHOWN
    )


def by_hand(model: nn.Sequential, split: ImageSplit) -> Tensor:
    with torch.no_grad():
        images = normalise(split.images[:], SHOWN.mean, SHOWN.std)
        mean, var = model[2].get_buffer("running_mean"), model[2].get_buffer("running_var")
        return F.batch_norm(model[1](images.flatten(1)), mean, var, eps=1e-5)


@pytest.mark.parametrize(("neighbours", "temperature"), [(20, 0.07), (1, 0.07), (7, 0.5)])
def test_neighbours_vote_as_those_of_scikit_learn_do(neighbours: int, temperature: float) -> None:
    reference_ND, labels_N = clouds(300, seed=0)
    judged_MD, _ = clouds(200, seed=1)
    rival = KNeighborsClassifier(
        neighbours,
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    ).fit(reference_ND.double().numpy(), labels_N.numpy())
    found = worth.knn_answers(
        reference_ND,
        labels_N,
        judged_MD,
        n_classes=N_CLASSES,
        neighbours=neighbours,
        temperature=temperature,
    )
    assert found.tolist() == rival.predict(judged_MD.double().numpy()).tolist()


def test_neighbours_are_found_in_pieces_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reference_ND, labels_N = clouds(90, seed=0)
    judged_MD, _ = clouds(50, seed=1)
    at_once = worth.knn_answers(reference_ND, labels_N, judged_MD, n_classes=N_CLASSES)
    monkeypatch.setattr(worth, "_SIMILARITIES", 700)
    in_pieces = worth.knn_answers(reference_ND, labels_N, judged_MD, n_classes=N_CLASSES)
    assert in_pieces.tolist() == at_once.tolist()


def test_a_reference_smaller_than_the_neighbours_votes_as_a_whole() -> None:
    reference_ND = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    judged_MD = torch.tensor([[1.0, 0.05], [0.0, 2.0]])
    found = worth.knn_answers(reference_ND, torch.tensor([1, 0, 0]), judged_MD, n_classes=2, temperature=100)
    assert found.tolist() == [0, 0]  # so hot that all count alike
    found = worth.knn_answers(reference_ND, torch.tensor([1, 2, 0]), judged_MD, n_classes=3, temperature=1e-4)
    assert found.tolist() == [1, 0]  # so cold that the nearest alone counts, and without an overflow


def test_of_equally_similar_neighbours_the_first_count() -> None:
    similarity_BN = torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5]])
    values, columns = worth.nearest(similarity_BN, 3)
    assert columns[0].tolist() == [1, 0, 2]
    assert columns[1].tolist() == [4, 3, 2]
    assert values.tolist() == similarity_BN.gather(1, columns).tolist()


def test_of_many_ties_the_first_rows_count_whatever_topk_takes() -> None:
    same_ND, labels_N = torch.ones(500, 3), torch.arange(500) % 3
    labels_N[:20] = 2
    assert worth.knn_answers(same_ND, labels_N, torch.ones(4, 3), n_classes=3).tolist() == [2] * 4


def test_the_probe_answers_as_scikit_learns_regression_does() -> None:
    reference_ND, labels_N = clouds(400, seed=0)
    judged_MD, _ = clouds(300, seed=1)
    scale = torch.logspace(-3, 3, 12)
    reference_ND, judged_MD = reference_ND * scale, judged_MD * scale
    mean, std = reference_ND.double().mean(0), reference_ND.double().std(0, correction=0)
    rival = LogisticRegression(C=1 / worth.PENALTY, tol=1e-10, max_iter=5000)
    rival.fit(((reference_ND - mean) / std).numpy(), labels_N.numpy())
    found = worth.probe_answers(reference_ND, labels_N, judged_MD, n_classes=N_CLASSES)
    assert found.tolist() == rival.predict(((judged_MD - mean) / std).numpy()).tolist()


def test_the_probes_weights_are_those_of_scikit_learn() -> None:
    features_ND, labels_N = clouds(300, seed=3)
    weight_CD, bias_C = worth._fitted(features_ND.double(), labels_N, N_CLASSES)
    rival = LogisticRegression(C=1 / worth.PENALTY, tol=1e-12, max_iter=10_000)
    rival.fit(features_ND.double().numpy(), labels_N.numpy())
    assert weight_CD.numpy() == pytest.approx(rival.coef_, abs=2e-4)
    # A constant on all biases changes no answer.
    assert (bias_C - bias_C.mean()).numpy() == pytest.approx(
        rival.intercept_ - rival.intercept_.mean(), abs=2e-4
    )


def test_a_feature_that_never_changes_tells_the_probe_nothing() -> None:
    reference_ND, labels_N = clouds(200, seed=0)
    judged_MD, _ = clouds(100, seed=1)
    without = worth.probe_answers(reference_ND, labels_N, judged_MD, n_classes=N_CLASSES)
    found = worth.probe_answers(
        F.pad(reference_ND, (0, 1), value=3.0), labels_N, F.pad(judged_MD, (0, 1), value=3.0), n_classes=4
    )
    assert found.tolist() == without.tolist()


@pytest.mark.parametrize("by", FIGURES)
def test_the_figure_is_the_fraction_of_judged_images_that_get_their_class(by: RankBy) -> None:
    model, reference, judged = network(), split_of(150, seed=0), split_of(60, seed=1)
    model[2].get_buffer("running_mean").fill_(0.3)
    answer = worth.knn_answers if by is RankBy.KNN_ACCURACY else worth.probe_answers
    answers_M = answer(
        by_hand(model, reference), reference.labels, by_hand(model, judged), n_classes=N_CLASSES
    )
    right = float((answers_M == judged.labels).double().mean())
    assert 0.25 < right < 1
    assert figures(model, by, reference, judged) == {by.value: right}


@pytest.mark.parametrize("by", FIGURES)
def test_labels_of_judged_images_only_count_right_answers(by: RankBy) -> None:
    model, reference, judged = network(), split_of(150, seed=0), split_of(60, seed=1)
    right = figures(model, by, reference, judged)[by.value]
    wrong = ImageSplit(judged.images, (judged.labels + 1) % N_CLASSES, judged.ids)
    shifted = figures(model, by, reference, wrong)[by.value]
    assert right + shifted <= 1
    assert right != shifted


def test_an_epoch_that_is_ranked_by_accuracy_costs_nothing() -> None:
    class NeverAsked(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise AssertionError("a pass that nobody asked for")

    assert figures(NeverAsked(), RankBy.ACCURACY, split_of(3, seed=0), split_of(3, seed=1)) == {}


@pytest.mark.parametrize("by", FIGURES)
def test_judging_changes_neither_modes_nor_weights_nor_the_generator(by: RankBy) -> None:
    model = network()
    model.train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    figures(model, by, split_of(40, seed=0), split_of(20, seed=1))
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model] == [True, True, False, True, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("by", FIGURES)
def test_a_cosine_head_is_a_classifier_too(by: RankBy) -> None:
    plain, cosine = network(), network(CosineClassifier(6, N_CLASSES))
    cosine.load_state_dict(plain.state_dict(), strict=False)
    splits = split_of(90, seed=0), split_of(40, seed=1)
    assert figures(cosine, by, *splits) == figures(plain, by, *splits)


def test_the_head_itself_has_no_part_in_the_figure() -> None:
    model, splits = network(), (split_of(90, seed=0), split_of(40, seed=1))
    before = figures(model, RankBy.KNN_ACCURACY, *splits)
    model[4].get_parameter("weight").data.mul_(-3)
    assert figures(model, RankBy.KNN_ACCURACY, *splits) == before


@pytest.mark.parametrize(
    "head", [nn.Linear(6, 5), nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Linear(3, N_CLASSES), nn.Flatten())]
)
def test_a_network_without_an_embedding_is_refused(head: nn.Module) -> None:
    with pytest.raises(TrialFailed, match=r"Sequential has no feature 'embedding'; .* search\.rank_by"):
        figures(network(head), RankBy.KNN_ACCURACY, split_of(9, seed=0), split_of(9, seed=1))


def test_a_part_that_the_file_states_is_the_embedding() -> None:
    plain, splits = network(), (split_of(90, seed=0), split_of(40, seed=1))
    headless = nn.Sequential(*list(plain)[:-1], nn.Linear(6, 5))
    shown = replace(SHOWN, stated={"embedding": "2"})
    found = worth.feature_figures(
        headless,
        RankBy.KNN_ACCURACY,
        reference=splits[0],
        judged=splits[1],
        n_classes=N_CLASSES,
        shown=shown,
    )
    assert found == figures(plain, RankBy.KNN_ACCURACY, *splits)


def test_features_that_are_not_finite_are_refused() -> None:
    model = network()
    model[1].get_parameter("bias").data.fill_(torch.inf)
    with pytest.raises(TrialFailed, match="features are not finite"):
        figures(model, RankBy.KNN_ACCURACY, split_of(9, seed=0), split_of(9, seed=1))


def test_of_a_large_training_part_so_many_images_are_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "REFERENCE_IMAGES", 40)
    split = split_of(100, seed=0, first_id=1000)
    rows = worth.reference_rows(split)
    assert len(rows) == len(set(rows.tolist())) == 40
    assert rows.tolist() == sorted(rows.tolist()) != list(range(40))
    assert torch.equal(worth.reference_rows(split_of(100, seed=9, first_id=1000)), rows)  # whatever they show
    assert torch.equal(worth.reference_rows(split_of(40, seed=0)), torch.arange(40))
    small = ImageSplit(split.images[rows], split.labels[rows], split.ids[rows])
    judged = split_of(30, seed=1)
    for by in FIGURES:
        assert figures(network(), by, split, judged) == figures(network(), by, small, judged)
