from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainables.data import ImageSplit
from trainables.errors import DataError, TrialFailed
from trainables.evaluation.metrics import evaluate, figures_of
from trainables.models.modes import evaluating

CPU = torch.device("cpu")


def brute_force(logits: list[list[float]], labels: list[int]) -> dict[str, float]:
    """Accuracy, nll and ece in double precision, one sample after the other."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    nll = 0.0
    for row, label in zip(logits, labels, strict=True):
        total = math.fsum(math.exp(value) for value in row)
        probabilities = [math.exp(value) / total for value in row]
        nll -= math.log(probabilities[label])
        confidence = max(probabilities)
        place = min(int(confidence * 15), 14)
        bins[place].append((confidence, probabilities.index(confidence) == label))
    n = len(labels)
    hits = [hit for members in bins for _, hit in members]
    ece = math.fsum(
        abs(math.fsum(hit for _, hit in members) - math.fsum(confidence for confidence, _ in members)) / n
        for members in bins
    )
    return {"accuracy": sum(hits) / n, "nll": nll / n, "ece": ece}


def random_split(n: int = 37, *, seed: int = 0) -> ImageSplit:
    generator = torch.Generator().manual_seed(seed)
    return ImageSplit(
        images=torch.randint(0, 256, (n, 2, 4, 4), dtype=torch.uint8, generator=generator),
        labels=torch.randint(0, 5, (n,), generator=generator),
        ids=torch.arange(n),
    )


def small_network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 5)
    )


def test_figures_equal_those_counted_by_hand() -> None:
    model, split = small_network(), random_split()
    with torch.no_grad():
        model[5].get_parameter("weight").mul_(4)  # some confident, some not
    mean, std = (0.4, 0.6), (0.2, 0.3)
    images = (split.images[:].numpy() / 255.0 - np.reshape(mean, (1, 2, 1, 1))) / np.reshape(
        std, (1, 2, 1, 1)
    )
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor(images, dtype=torch.float32)).double().tolist()
    expected = brute_force(logits, split.labels.tolist())
    assert 0 < expected["accuracy"] < 1
    model.train()
    for batch_size in (8, 37, 1000):
        found = evaluate(model, split, mean=mean, std=std, batch_size=batch_size, device=CPU)
        assert found == {name: pytest.approx(value, abs=2e-6) for name, value in expected.items()}


def test_logits_between_zero_and_one_are_not_taken_for_probabilities() -> None:
    logits = torch.tensor([[0.1, 0.9], [0.8, 0.3], [0.2, 0.6]])
    labels = torch.tensor([1, 0, 0])
    expected = brute_force(logits.double().tolist(), labels.tolist())
    assert figures_of(logits, labels) == {name: pytest.approx(v, abs=1e-6) for name, v in expected.items()}


def test_a_certain_and_right_network_is_calibrated_and_a_certain_and_wrong_one_is_not() -> None:
    logits = torch.tensor([[40.0, 0.0], [0.0, 40.0]])
    assert figures_of(logits, torch.tensor([0, 1])) == {"accuracy": 1.0, "nll": 0.0, "ece": 0.0}
    assert figures_of(logits, torch.tensor([1, 0])) == {"accuracy": 0.0, "nll": 40.0, "ece": 1.0}


def test_evaluation_leaves_modes_and_statistics_as_they_were() -> None:
    model = small_network().train()
    model[1].eval()  # frozen statistics, as in fine-tuning
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    evaluate(model, random_split(), mean=(0.5, 0.5), std=(1.0, 1.0), batch_size=10, device=CPU)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_modes_come_back_after_an_error() -> None:
    model = small_network().train()
    with pytest.raises(RuntimeError, match="boom"), evaluating(model):
        assert not model.training
        raise RuntimeError("boom")
    assert all(module.training for module in model.modules())


class HalfPrecision(nn.Module):
    """Gives logits in bfloat16, as under autocast."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :5].bfloat16()


def test_half_precision_logits_are_measured_in_single_precision() -> None:
    split = random_split()
    found = evaluate(HalfPrecision(), split, mean=(0.5, 0.5), std=(0.3, 0.3), batch_size=16, device=CPU)
    logits = ((split.images[:] / 255 - 0.5) / 0.3).flatten(1)[:, :5].bfloat16().double()
    expected = brute_force(logits.tolist(), split.labels.tolist())
    assert found["nll"] == pytest.approx(expected["nll"], abs=1e-6)


def test_logits_that_are_not_finite_fail_the_trial() -> None:
    with pytest.raises(TrialFailed, match="not finite"):
        figures_of(torch.tensor([[0.0, math.nan]]), torch.tensor([0]))


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="empty split"):
        evaluate(small_network(), random_split(0), mean=(0.5, 0.5), std=(1.0, 1.0), batch_size=4, device=CPU)


def test_logits_that_are_too_many_to_hold_give_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    split, model = random_split(), small_network()

    def figures() -> dict[str, float]:
        return evaluate(model, split, mean=(0.4, 0.6), std=(0.2, 0.3), batch_size=8, device=CPU)

    monkeypatch.setattr("trainables.evaluation.metrics.MAX_LOGITS", 37 * 5)
    held = figures()
    monkeypatch.setattr("trainables.evaluation.metrics.MAX_LOGITS", 37 * 5 - 1)
    by_batch = figures()
    assert by_batch == pytest.approx(held, abs=1e-6)
    assert (by_batch["accuracy"], by_batch["ece"]) == (held["accuracy"], held["ece"])
    with torch.no_grad():
        model[5].get_parameter("bias")[0] = math.inf
    with pytest.raises(TrialFailed, match="logits that are not finite"):
        figures()
