"""What features are worth is the same on a GPU: neighbours, ties among them, and the probe in fp32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.gpu.compared_courses import bench_on
from tests.unit.trainables.training.small_courses import CPU, small_student
from trainables.config.metrics import RankBy
from trainables.evaluation.features_worth import knn_answers, nearest, probe_answers

pytestmark = pytest.mark.gpu

N_CLASSES = 10


def clouds(n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, N_CLASSES, (n,), generator=generator)
    centres = torch.randn(N_CLASSES, 32, generator=torch.Generator().manual_seed(7))
    return centres[labels] + 1.5 * torch.randn(n, 32, generator=generator), labels


@pytest.mark.parametrize("answer", [knn_answers, probe_answers])
def test_answers_are_those_of_the_cpu(device: torch.device, answer: object) -> None:
    assert callable(answer)
    (reference, labels), (judged, _) = clouds(3000, seed=0), clouds(1000, seed=1)
    here = answer(reference, labels, judged, n_classes=N_CLASSES)
    there = answer(reference.to(device), labels.to(device), judged.to(device), n_classes=N_CLASSES)
    assert there.device.type == device.type
    assert float((there.cpu() == here).double().mean()) > 0.995  # of rounding, on the border of two classes
    again = answer(reference.to(device), labels.to(device), judged.to(device), n_classes=N_CLASSES)
    assert torch.equal(again, there)


def test_of_equally_similar_neighbours_the_first_count(device: torch.device) -> None:
    similarity = torch.zeros(64, 5000)
    similarity[:, 4000] = 1.0
    _, columns = nearest(similarity.to(device), 20)
    assert columns.cpu().tolist() == [[4000, *range(19)]] * 64


@pytest.mark.parametrize("by", [RankBy.KNN_ACCURACY, RankBy.PROBE_ACCURACY])
def test_a_student_is_worth_what_it_is_on_the_cpu(device: torch.device, by: RankBy) -> None:
    figures = []
    for where in (device, CPU):
        bench = bench_on(where)
        model = small_student().to(where)
        figures.append(bench.features_worth(model, by, bench.data.selection, batch_size=16)[by.value])
    assert figures[0] == pytest.approx(figures[1], abs=1.5 / len(bench.data.selection.labels))
