"""Mutual contrastive learning with banks, and on branches: values by hand, state, gradients, refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.numerics.feature_stand_ins import setting_of
from tests.numerics.peers import embedded
from tests.numerics.representation.embedding_signals import random
from trainables.config.objectives import MclConfig
from trainables.errors import TrialFailed
from trainables.objectives import MclObjective
from trainables.objectives.mutual.terms.branches import compared_stages
from trainables.objectives.mutual.terms.contrast import (
    Drawn,
    bank_columns,
    bank_scores,
    contrast,
    mutual_terms,
    soft_gap,
)
from trainables.objectives.representation.terms.negatives import Negatives
from trainables.signals import PeerSignal, Setting, Signals

# B = samples in the batch, D = numbers in an embedding, N = training samples, L = candidates of a batch

TAU: Final = 0.5
LABELS: Final = [0, 1, 0]
TIMES: Final = [[2, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 3]]
ROWS: Final = torch.arange(3)


def units(count: int = 2) -> list[Tensor]:
    return [F.normalize(random(n, 3, 4), dim=-1).requires_grad_() for n in range(count)]


def banks(count: int = 2) -> list[Tensor]:
    return [F.normalize(random(50 + n, 9, 4), dim=-1) for n in range(count)]


def drawn(labels: list[int] | None = None) -> Drawn:
    """Rows 3 to 6 are the candidates, 7, 8 and 0 those of each sample's class."""
    negatives = Negatives(torch.arange(3, 7), torch.tensor(TIMES, dtype=torch.float32))
    return Drawn(ROWS, torch.tensor([7, 8, 0]), negatives, torch.tensor(LABELS if labels is None else labels))


def columns_by_hand(row: int, *, own: bool) -> list[int]:
    """Rows of a bank that a sample is compared with, its positives first."""
    negatives = [3 + place for place in range(4) for _ in range(TIMES[row][place])]
    return [*([row] if own else []), [7, 8, 0][row], *negatives]


def by_hand(unit_BD: Tensor, bank_ND: Tensor, *, own: bool) -> list[Tensor]:
    return [bank_ND[columns_by_hand(row, own=own)] @ unit_BD[row] / TAU for row in range(3)]


def hard(scores: list[Tensor], positives: int) -> float:
    return torch.stack([row.logsumexp(dim=0) - row[:positives].mean() for row in scores]).mean().item()


def soft(own: list[Tensor], other: list[Tensor]) -> float:
    pairs = [
        ((a / 3).log_softmax(dim=0), (b / 3).log_softmax(dim=0)) for a, b in zip(own, other, strict=True)
    ]
    return 9 * torch.stack([(b.exp() * (b - a)).sum() for a, b in pairs]).mean().item()


def test_the_terms_are_those_of_the_drawn_entries_one_by_one() -> None:
    given, held, entries = units(3), banks(3), drawn()
    scores = [[bank_scores(unit_BD, bank_ND, entries, tau=TAU) for bank_ND in held] for unit_BD in given]
    found = mutual_terms(scores, *bank_columns(entries), temperature=3.0)
    within = [by_hand(given[n], held[n], own=False) for n in range(3)]
    across = {(a, b): by_hand(given[a], held[b], own=True) for a, b in itertools.permutations(range(3), 2)}
    assert [one.item() for one in found.vcl_K] == pytest.approx([hard(own, 1) for own in within])
    assert found.icl.item() == pytest.approx(sum(hard(one, 2) for one in across.values()))
    for number, own in enumerate(found.soft_vcl_K):
        others = [within[other] for other in range(3) if other != number]
        assert own.item() == pytest.approx(sum(soft(within[number], other) for other in others))
    ways = [soft(one, across[b, a]) for (a, b), one in across.items()]
    assert found.soft_icl.item() == pytest.approx(sum(ways))


def test_gradients_are_those_of_finite_differences_and_reach_no_bank() -> None:
    (unit_BD, _), (bank_ND, other_ND), entries = units(), banks(), drawn()
    bank_ND.requires_grad_()
    within, across = bank_columns(entries)
    other_BM = bank_scores(unit_BD.detach(), other_ND, entries, tau=TAU)

    def losses(unit_BD: Tensor, bank_ND: Tensor) -> Tensor:
        scores_BM = bank_scores(unit_BD, bank_ND.detach(), entries, tau=TAU)
        told = contrast(scores_BM, within) + contrast(scores_BM, across)
        gap = soft_gap(scores_BM, other_BM, temperature=3.0, log_times_BM=across.soft_log_times_BM)
        return told + gap

    assert torch.autograd.gradcheck(lambda own: losses(own, bank_ND), unit_BD, rtol=1e-6, atol=1e-9)


def test_equal_networks_have_nothing_soft_to_say() -> None:
    unit_BD, bank_ND, entries = units()[0], banks()[0], drawn()
    scores_BM = bank_scores(unit_BD, bank_ND, entries, tau=TAU)
    found = mutual_terms([[scores_BM] * 2] * 2, *bank_columns(entries), temperature=3.0)
    soft = torch.stack([*found.soft_vcl_K, found.soft_icl])
    assert soft.tolist() == pytest.approx([0.0] * 3, abs=1e-15)
    (gradient_BD,) = torch.autograd.grad(soft.sum(), unit_BD)
    torch.testing.assert_close(gradient_BD, torch.zeros(3, 4).double(), atol=1e-14, rtol=0)


def test_an_unlabelled_image_is_in_the_soft_terms_alone() -> None:
    unit_BD, bank_ND = units()[0], banks()[0]
    scores_BM = bank_scores(unit_BD, bank_ND, drawn(), tau=TAU)
    hidden = bank_columns(drawn([0, 1, -1]))
    for columns, own in zip(hidden, (False, True), strict=True):
        rows = by_hand(unit_BD, bank_ND, own=own)[:2]
        # Its row counts as 0 in the mean over three.
        assert contrast(scores_BM, columns).item() == pytest.approx(hard(rows, 1 + own) * 2 / 3)
    assert torch.equal(*(one[0].soft_log_times_BM for one in (hidden, bank_columns(drawn()))))  # type: ignore[arg-type]


def banked(signals: Signals, setting: Setting | None = None, **fields: Any) -> MclObjective:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = MclConfig.from_plain({"form": "bank", "dim": 4, "peers": len(signals.peers) + 1, **fields})
        return MclObjective(config, setting or setting_of(signals)).double()


def seen(**more: Any) -> Signals:
    return embedded([random(n, 3, 5, grad=True) for n in range(2)], labels=LABELS, **more)


def test_banks_are_tables_by_sample_that_a_step_renews_in_its_own_rows_after_comparing() -> None:
    signals = seen()
    objective = banked(signals, momentum=0.5)
    assert objective.row_tables == ("levels.0.bank0_ND", "levels.0.bank1_ND")
    before = {name: objective.get_buffer(name).clone() for name in objective.row_tables}
    assert all(bank_ND.shape == (64, 4) for bank_ND in before.values())
    torch.manual_seed(3)
    total = objective(signals).total
    told = objective.levels[0](
        [
            signals.features["weak"]["embedding"],
            *(peer.features["weak"]["embedding"] for peer in signals.peers),
        ]
    )
    for (name, old_ND), unit_BD in zip(before.items(), told, strict=True):
        now_ND = objective.get_buffer(name)
        assert torch.equal(now_ND[3:], old_ND[3:])
        torch.testing.assert_close(now_ND[:3], F.normalize((old_ND[:3] + unit_BD) / 2, dim=-1))
        now_ND.copy_(old_ND)
    torch.manual_seed(3)  # the same draws of the banks as they were: renewed before, these would differ
    assert objective(signals).total.item() == total.item()
    torch.autograd.backward([total])
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_there_are_as_many_negatives_as_the_smallest_pool_has() -> None:
    signals = seen()
    assert banked(signals)(signals).gauges["negatives"].item() == 32  # each class has 32 of 64
    assert banked(signals, negatives=5)(signals).gauges["negatives"].item() == 5


def test_banks_want_rows_labels_and_two_classes() -> None:
    signals = seen()
    setting = setting_of(signals)
    with pytest.raises(ValueError, match="needs the rows of its samples; serve it signals with rows_B"):
        banked(signals)(replace(signals, rows_B=None))
    with pytest.raises(ValueError, match="give the setting the labels of all samples"):
        banked(signals, replace(setting, labels_N=None))
    with pytest.raises(TrialFailed, match="a contrast with negatives needs samples of two classes"):
        banked(signals, replace(setting, labels_N=torch.zeros(64, dtype=torch.int64)))


def test_what_a_course_goes_on_from_holds_the_banks() -> None:
    signals = seen()
    one, other = banked(signals), banked(signals)
    torch.manual_seed(3)
    one(signals)
    other.load_state_dict(one.state_dict())
    totals = []
    for objective in (one, other):
        torch.manual_seed(4)
        totals.append(objective(signals).total.item())
    assert totals[0] == totals[1]


# Networks of two and of three stages: the first stage of the longer one has no counterpart.
SHAPES: Final = (
    {"stage1": (2, 4, 4), "stage2": (3, 2, 2)},
    {"stage1": (2, 8, 8), "stage2": (4, 4, 4), "stage3": (5, 2, 2)},
)


class Rest(nn.Module):
    """The later stages of a network, as wide as its embedding; it notes in which precision it computes."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.embed, self.answer = nn.Linear(channels, width), nn.Linear(width, 2)
        self.computed: list[torch.dtype] = []

    def forward(self, map_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        embedding_BD = self.embed(map_BCHW.mean(dim=(2, 3)))
        self.computed.append(embedding_BD.dtype)
        return self.answer(embedding_BD), {"last": map_BCHW, "embedding": embedding_BD}


@contextmanager
def computing() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def staged(**more: Any) -> tuple[Signals, Setting, list[tuple[str, int]]]:
    """What two networks of `SHAPES` and with embeddings of 3 and 5 say, and what is asked to be made."""
    signals = embedded([random(n, 3, width).float() for n, width in enumerate((3, 5))], labels=LABELS)
    maps = [
        {
            name: random(9 * n + number, 3, *shape).float().requires_grad_()
            for number, (name, shape) in enumerate(own.items())
        }
        for n, own in enumerate(SHAPES)
    ]
    (peer,) = signals.peers
    signals = replace(
        signals,
        features={"weak": {**signals.features["weak"], **maps[0]}},
        peers=(PeerSignal(peer.logits, {"weak": {**peer.features["weak"], **maps[1]}}),),
    )
    asked = list[tuple[str, int]]()

    def later(stage: str, number: int) -> nn.Module:
        asked.append((stage, number))
        return Rest(SHAPES[number][stage][0], (3, 5)[number])

    return signals, replace(setting_of(signals), later_stages=later, **more), asked


def layered(setting: Setting, **fields: Any) -> MclObjective:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MclObjective(MclConfig(**{"layers": True, "dim": 4, **fields}), setting)


def test_stages_are_paired_from_the_last_one() -> None:
    assert compared_stages(SHAPES) == [("stage1", "stage2")]
    assert compared_stages([SHAPES[1]] * 2) == [("stage1", "stage1"), ("stage2", "stage2")]
    unordered = {"stage10": (1, 1, 1), "stage9": (1, 2, 2), "energy.stage1": (1, 1), "last": (1, 1, 1)}
    assert compared_stages([unordered]) == [("stage9",)]


def test_a_network_of_one_stage_has_no_place_for_a_branch() -> None:
    with pytest.raises(TrialFailed, match=r"peer 1 has 1 stages, .* or set `layers: false`"):
        compared_stages([SHAPES[0], {"stage1": (1, 2, 2)}])
    with pytest.raises(TrialFailed, match="the student has 0 stages"):
        compared_stages([{"embedding": (3,)}, SHAPES[0]])


def test_branches_are_made_by_the_setting_alone() -> None:
    _, setting, asked = staged()
    layered(setting)
    assert asked == [("stage1", 0), ("stage2", 1)]
    with pytest.raises(ValueError, match="give the setting `later_stages`"):
        layered(replace(setting, later_stages=None))


def test_branches_have_the_losses_of_networks_that_answer_as_they_do() -> None:
    signals, setting, _ = staged()
    objective = layered(setting, kd_weight=0.5)
    losses = objective(signals)
    names = [("stage1", signals.features), ("stage2", signals.peers[0].features)]
    branches = list(objective.branches[0].children())
    told = [branch(features["weak"][name]) for branch, (name, features) in zip(branches, names, strict=True)]
    as_networks = embedded(
        [features["embedding"] for _, features in told], labels=LABELS, answers=[answer for answer, _ in told]
    )
    alone = MclObjective(MclConfig(dim=4, kd_weight=0.5), setting_of(as_networks))
    alone.levels[0].load_state_dict(objective.levels[1].state_dict())
    expected = alone(as_networks)
    without = MclObjective(MclConfig(dim=4, kd_weight=0.5), setting)
    without.levels[0].load_state_dict(objective.levels[0].state_dict())
    of_networks = without(signals)
    assert losses.total.item() == pytest.approx(expected.total.item() + of_networks.total.item(), rel=1e-6)
    assert losses.terms["layers_icl"].item() == pytest.approx(expected.terms["icl"].item(), rel=1e-6)
    both = expected.terms["vcl"] + expected.terms["peer1_vcl"]
    assert losses.terms["layers_vcl"].item() == pytest.approx(both.item(), rel=1e-6)
    own = {name: value for name, value in losses.terms.items() if not name.startswith("layers_")}
    assert own.keys() == of_networks.terms.keys()
    assert set(losses.terms) - set(own) == {
        f"layers_{name}" for name in ("ce", "kd", "vcl", "soft_vcl", "icl", "soft_icl")
    }


def test_branches_train_the_stages_before_them_and_compute_as_the_student_does() -> None:
    signals, setting, _ = staged(computing=computing)
    objective = layered(setting)
    losses = objective(signals)
    assert losses.total.dtype is torch.float32
    computed = [branch.computed for branch in objective.branches[0].children()]
    assert computed == [[torch.bfloat16]] * 2
    torch.autograd.backward([losses.total])
    first, compared = signals.features["weak"]["stage1"], signals.peers[0].features["weak"]
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in (first, compared["stage2"]))
    assert compared["stage1"].grad is None
    assert all(math.isfinite(float(p.grad.abs().sum())) for p in objective.parameters() if p.grad is not None)
    assert all(parameter.grad is not None for parameter in objective.branches.parameters())


def test_each_level_has_banks_of_its_own() -> None:
    _, setting, _ = staged()
    objective = layered(setting, form="bank")
    assert objective.row_tables == tuple(f"levels.{level}.bank{n}_ND" for level in (0, 1) for n in (0, 1))
