from __future__ import annotations

import torch
from torch import nn

from trainables.training.learners.ema import WeightAverage


class Counted(nn.Module):
    """One weight, shared under two names, a statistic and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([8.0]))
        self.same = self.weight
        self.register_buffer("statistic", torch.tensor([4.0]), persistent=False)
        self.register_buffer("count", torch.tensor(0))

    def become(self, value: float) -> Counted:
        with torch.no_grad():
            self.weight.fill_(value)
            self.get_buffer("statistic").fill_(value)
            self.get_buffer("count").add_(1)
        return self


def test_the_mean_follows_the_weights_by_the_published_rule() -> None:
    """d = 1/10, 2/11 and then the bound 1/5: 1.7, 1.7 * 2/11 + 2 * 9/11, and a fifth of that plus 4/5 * 3."""
    model = Counted()
    average = WeightAverage(model, 0.2)
    expected: list[float] = []
    for value, decay in ((1.0, 1 / 10), (2.0, 2 / 11), (3.0, 1 / 5)):
        expected.append(decay * (expected[-1] if expected else 8.0) + (1 - decay) * value)
        average.update(model.become(value))
        assert torch.allclose(average.model.get_parameter("weight"), torch.tensor([expected[-1]]))
    assert torch.allclose(torch.tensor(expected[:2]), torch.tensor([1.7, 1.9454546]))
    assert average.steps == 3


def test_statistics_are_averaged_and_counters_copied() -> None:
    model = Counted()
    average = WeightAverage(model, 0.5)
    average.update(model.become(1.0))
    assert torch.allclose(average.model.get_buffer("statistic"), torch.tensor([0.1 * 4 + 0.9 * 1]))
    assert int(average.model.get_buffer("count")) == 1


def test_the_mean_is_no_part_of_the_training() -> None:
    model = Counted()
    average = WeightAverage(model, 0.5)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    average.update(model.become(1.0))
    assert float(model.weight.detach()) == 1.0


def test_a_mean_goes_on_from_its_state_as_if_nothing_had_been() -> None:
    model = Counted()
    whole, first = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    for value in (1.0, 5.0):
        model.become(value)
        whole.update(model)
        first.update(model)
    second = WeightAverage(Counted(), 0.9)
    second.restore({name: value.clone() for name, value in first.state().items()}, first.steps)
    model.become(-2.0)
    whole.update(model)
    second.update(model)
    assert torch.equal(whole.model.get_parameter("weight"), second.model.get_parameter("weight"))
