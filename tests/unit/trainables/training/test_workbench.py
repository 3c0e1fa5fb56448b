from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.training.small_courses import VIEWS, separable_data, small_student, small_workbench
from trainables.config import BankConfig, CropFlipStep, Precision, ViewsConfig
from trainables.data.splits import split_facts
from trainables.errors import CacheError
from trainables.evaluation.metrics import evaluate
from trainables.training.workbench import Workbench
from trainables.views.normalise import normalise
from trainables.views.showing import show

ROWS = torch.tensor([43, 0, 17, 17, 5])


@pytest.fixture(scope="module", params=list(Precision))
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    data, folder = separable_data(), tmp_path_factory.mktemp("lab")
    tiny = TinyCache(folder, data, small_student(), split_facts(data), views=VIEWS, precision=request.param)
    tiny.build()
    return tiny


def test_an_epoch_trains_on_the_view_of_its_turn() -> None:
    workbench = small_workbench()
    assert [workbench.view_of("weak", epoch) for epoch in range(1, 8)] == [0, 1, 2, 0, 1, 2, 0]
    assert [workbench.view_of("strong", epoch) for epoch in range(1, 4)] == [0, 1, 0]


def test_sizes_are_those_of_the_training_split() -> None:
    workbench = small_workbench()
    assert (workbench.n_train, workbench.input_shape) == (44, (1, 8, 8))


@pytest.mark.parametrize("budget", [0, 44 * 64])
@pytest.mark.parametrize("bank", ["weak", "strong"])
def test_views_rendered_once_equal_views_rendered_in_batches_bit_for_bit(bank: str, budget: int) -> None:
    kept, fresh = small_workbench(), small_workbench(render_budget_bytes=budget)
    for epoch in (1, 2, 3, 1):
        for rows in (ROWS, torch.arange(44), torch.tensor([9])):
            assert torch.equal(kept.images(bank, epoch, rows), fresh.images(bank, epoch, rows))


def test_labels_are_those_of_the_rows() -> None:
    workbench = small_workbench()
    assert torch.equal(workbench.labels(ROWS), workbench.data.train.labels[ROWS])


def test_epochs_and_banks_show_different_images() -> None:
    workbench, rows = small_workbench(), torch.arange(44)
    shown = [
        workbench.images("weak", 1, rows),
        workbench.images("weak", 2, rows),
        workbench.images("strong", 1, rows),
    ]
    assert not any(torch.equal(shown[i], shown[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_an_empty_recipe_shows_the_normalised_images_themselves() -> None:
    data = separable_data()
    workbench = Workbench(data, ViewsConfig(), view_seed=7, device=torch.device("cpu"))
    expected = normalise(data.train.images[ROWS], data.mean, data.std)
    assert torch.equal(workbench.images("weak", 3, ROWS), expected)


@pytest.mark.parametrize("budget", [1 << 20, 44 * 3 * 4, 0])
def test_the_teacher_speaks_about_the_view_of_the_epoch(tiny: TinyCache, budget: int) -> None:
    reader = tiny.open()
    workbench = small_workbench(tiny.data, cache=reader, render_budget_bytes=budget)
    for bank, epoch, view in (("weak", 1, 0), ("weak", 2, 1), ("weak", 4, 0), ("strong", 2, 1)):
        signal, expected = workbench.teacher(bank, epoch, ROWS), reader.signal(bank, view, ROWS)
        assert signal.logits_BC.dtype == torch.float32
        assert torch.equal(signal.logits_BC, expected.logits_BC)
        assert torch.equal(signal.confidence_B, expected.confidence_B)
        assert signal.logit_max_B is not None
        assert expected.logit_max_B is not None
        assert torch.equal(signal.logit_max_B, expected.logit_max_B)


def test_without_a_cache_there_is_no_teacher() -> None:
    with pytest.raises(CacheError, match="needs the teacher's logits, but the workbench has no cache"):
        small_workbench().teacher("weak", 1, ROWS)


def test_a_bank_that_the_cache_lacks_is_refused(tiny: TinyCache, tmp_path: Path) -> None:
    weak_only = tiny.but(folder=tmp_path)
    weak_only.build(("weak",))
    workbench = small_workbench(tiny.data, cache=weak_only.open())
    with pytest.raises(CacheError, match="has no bank 'strong', only weak"):
        workbench.teacher("strong", 1, ROWS)


def test_a_cache_of_other_images_is_refused(tiny: TinyCache) -> None:
    other = replace(tiny.data, digest="e" * 64)
    with pytest.raises(CacheError, match="cache was made from data dddddddd…, this experiment has eeeeeeee…"):
        small_workbench(other, cache=tiny.open())


def test_a_cache_of_other_views_is_refused(tiny: TinyCache) -> None:
    with pytest.raises(CacheError, match="views of seed 7, this experiment uses seed 8"):
        small_workbench(tiny.data, cache=tiny.open(), view_seed=8)


def test_a_bank_shown_by_another_recipe_is_refused(tiny: TinyCache) -> None:
    wide = ViewsConfig(
        weak=BankConfig(recipe=(CropFlipStep(op="crop_flip", padding=2),)), strong=VIEWS.strong
    )
    workbench = Workbench(tiny.data, wide, view_seed=7, device=torch.device("cpu"), cache=tiny.open())
    workbench.teacher("strong", 1, ROWS)
    with pytest.raises(CacheError, match="shows bank weak by another recipe"):
        workbench.teacher("weak", 1, ROWS)


def test_evaluation_is_that_of_the_clean_images() -> None:
    workbench, student = small_workbench(), small_student()
    data = workbench.data
    expected = evaluate(
        student, data.selection, mean=data.mean, std=data.std, batch_size=7, device=torch.device("cpu")
    )
    assert workbench.evaluate(student, data.selection, batch_size=7) == expected


@pytest.mark.parametrize("budget", [0, 1 << 20])
@pytest.mark.parametrize("bank", ["weak", "strong"])
def test_a_student_is_shown_the_very_images_that_the_teacher_is_asked_about(bank: str, budget: int) -> None:
    workbench = small_workbench(render_budget_bytes=budget)
    data, cpu = workbench.data, torch.device("cpu")
    for epoch, view in ((1, 0), (2, 1)):
        shown = show(data.train, ROWS, VIEWS.bank(bank).recipe, seed=7, view=view, device=cpu)
        assert torch.equal(workbench.images(bank, epoch, ROWS), normalise(shown, data.mean, data.std))
