"""Banks that show another one turned: on the workbench, in a cache, and asked of the teacher itself."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from tests.unit.trainables.cache.tiny_caches import TinyCache
from tests.unit.trainables.data.image_folders import config_of, write_folder
from tests.unit.trainables.training.small_courses import CPU, separable_data, small_student
from tests.unit.trainables.unlabelled_splits import noise, with_unlabelled
from trainables.cache.format.storage import open_place
from trainables.cache.tools.sample_picture import views_of_sample
from trainables.config import BankConfig, Precision, Recipe, ViewsConfig
from trainables.config.objective_base import ROTATED
from trainables.data import TrainingData, load_training
from trainables.data.folder_images import FolderImages
from trainables.data.splits import split_facts
from trainables.errors import CacheError, DataError
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.online import OnlineTeacher
from trainables.training.workbench import Workbench
from trainables.views.normalise import normalise
from trainables.views.showing import show

pytestmark = pytest.mark.usefixtures("one_thread")

SEED = 7
SAMPLES = 24
ROWS = torch.tensor([17, 0, 5, 5, 23])
TURNED: Final = ROTATED[1:]
CROP = {"op": "crop_flip", "padding": 1}
RECIPES: Final = {
    "none": [],
    "crop_flip": [CROP],
    "random_resized_crop": [{"op": "random_resized_crop"}],
    "randaugment": [{"op": "randaugment"}],
    "trivial_augment": [{"op": "trivial_augment"}],
    "cutout": [{"op": "cutout"}],
    "rotation": [{"op": "rotation"}],
    "mixup": [{"op": "mixup"}],
    "cutmix": [{"op": "cutmix"}],
    "quarter_turn": [{"op": "quarter_turn", "turns": 3}],
    "chain": [CROP, {"op": "randaugment"}, {"op": "cutout"}, {"op": "mixup", "alpha": 0.4}],
}


def views_of(recipe: str) -> ViewsConfig:
    steps = TypeAdapter(Recipe).validate_python(RECIPES[recipe])
    return ViewsConfig(weak=BankConfig(recipe=steps, views=2))


def workbench_of(recipe: str, data: TrainingData | None = None, **options: object) -> Workbench:
    settings: dict[str, object] = {"view_seed": SEED, "device": CPU} | options
    return Workbench(data or separable_data(SAMPLES), views_of(recipe), **settings)  # type: ignore[arg-type]


def tiny_of(recipe: str, folder: Path) -> TinyCache:
    data = separable_data(SAMPLES)
    tiny = TinyCache(
        folder, data, small_student(seed=9), split_facts(data), views_of(recipe), SEED, Precision.FP32
    )
    tiny.build(ROTATED)
    return tiny


def shown_by(workbench: Workbench, epoch: int, rows_B: Tensor) -> dict[str, Tensor]:
    return {bank: workbench.images(bank, epoch, rows_B) for bank in ROTATED}


def turned_by_hand(bank: str, images_BCHW: Tensor) -> Tensor:
    return images_BCHW.rot90(ROTATED.index(bank), (2, 3))


@pytest.mark.parametrize("budget", [0, 1 << 20])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_turned_bank_shows_its_base_turned_as_the_teacher_is_shown_it(recipe: str, budget: int) -> None:
    workbench, data = workbench_of(recipe, render_budget_bytes=budget), separable_data(SAMPLES)
    for epoch in (1, 2, 3):
        images = shown_by(workbench, epoch, ROWS)
        for bank in ROTATED:
            asked = show(
                data.train,
                ROWS,
                workbench.views.bank(bank).recipe,
                seed=SEED,
                view=workbench.view_of(bank, epoch),
                device=CPU,
            )
            assert torch.equal(images[bank], turned_by_hand(bank, images["weak"]))
            assert torch.equal(images[bank], workbench.images(bank, epoch, ROWS.clone()))
            assert torch.equal(images[bank], normalise(asked, data.mean, data.std))


def test_turned_banks_take_no_more_memory_than_their_base() -> None:
    one, four = workbench_of("chain"), workbench_of("chain")
    one.images("weak", 1, ROWS)
    shown_by(four, 1, ROWS)
    assert four.held_bytes == one.held_bytes


@pytest.mark.parametrize("recipe", ["mixup", "cutmix", "chain"])
def test_a_turned_bank_mixes_the_samples_that_its_base_mixes(recipe: str) -> None:
    workbench = workbench_of(recipe)
    mixing = workbench.mixing("weak", 2, ROWS)
    assert mixing is not None
    for bank in TURNED:
        turned = workbench.mixing(bank, 2, ROWS)
        assert turned is not None
        assert torch.equal(turned.labels_BK, mixing.labels_BK)
        assert torch.equal(turned.shares_BK, mixing.shares_BK)


def test_a_bank_that_mixes_none_mixes_none_turned() -> None:
    assert workbench_of("crop_flip").mixing("weak90", 1, ROWS) is None


def test_unlabelled_images_are_turned_too() -> None:
    data = with_unlabelled(separable_data(SAMPLES), noise(6))
    workbench, rows_B = workbench_of("chain", data), torch.tensor([SAMPLES + 2, 1, SAMPLES])
    images = shown_by(workbench, 2, rows_B)
    for bank in TURNED:
        assert torch.equal(images[bank], turned_by_hand(bank, images["weak"]))


def test_images_that_are_not_square_are_refused_by_the_bank() -> None:
    data = separable_data(SAMPLES)
    whole = data.train.images
    assert isinstance(whole, Tensor)
    narrow = replace(data, train=replace(data.train, images=whole[..., :6]))
    with pytest.raises(
        DataError, match=r"bank weak90, which shows weak turned, needs square .* 8 x 6 pixels"
    ):
        workbench_of("none", narrow).images("weak90", 1, ROWS)


def test_files_are_decoded_once_for_all_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = load_training(config_of(write_folder(tmp_path / "pictures")))
    assert data.train.files is not None
    decoded: list[int] = []
    cut = FolderImages.cut

    def counted(images: FolderImages, rows_B: Tensor, box_B4: Tensor) -> Tensor:
        decoded.extend(rows_B.tolist())
        return cut(images, rows_B, box_B4)

    monkeypatch.setattr(FolderImages, "cut", counted)
    workbench, rows = workbench_of("random_resized_crop", data), torch.arange(6)
    workbench.expect(ROTATED, 1, rows)
    images = shown_by(workbench, 1, rows)
    assert sorted(decoded) == rows.tolist()
    for bank in TURNED:
        recipe = workbench.views.bank(bank).recipe
        asked = show(data.train, rows, recipe, seed=SEED, view=0, device=CPU)
        assert torch.equal(images[bank], normalise(asked, data.mean, data.std))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_cache_of_the_turned_banks_says_what_the_live_teacher_says_of_turned_images(
    recipe: str, tmp_path: Path
) -> None:
    tiny = tiny_of(recipe, tmp_path)
    reader, live = tiny.open(), tiny.live()
    online = OnlineTeacher(live, tiny.views)
    cached, bench = (workbench_of(recipe, tiny.data, cache=one) for one in (reader, online))
    images = shown_by(workbench_of(recipe), 2, torch.arange(SAMPLES))
    for bank in ROTATED:
        for first in range(0, SAMPLES, tiny.rows_per_shard):  # the teacher's batches end with a shard
            rows_B = torch.arange(first, min(first + tiny.rows_per_shard, SAMPLES))
            kept, said = cached.teacher(bank, 2, rows_B), bench.teacher(bank, 2, rows_B)
            about = live.answers_about(images[bank][rows_B])
            assert torch.equal(kept.logits_BC, said.logits_BC)
            assert torch.equal(kept.logits_BC, about.logits_BC)
    if recipe != "none":
        return
    weak, quarter = (cached.teacher(bank, 1, ROWS).logits_BC for bank in ("weak", "weak90"))
    assert not torch.equal(weak, quarter)


def test_the_proof_covers_turned_banks_and_finds_one_that_is_not_the_teachers(tmp_path: Path) -> None:
    tiny = tiny_of("chain", tmp_path)
    proof = prove_alignment(tiny.open(), tiny.data, tiny.teacher, tiny.views, SEED, banks=ROTATED)
    assert proof.pairs == 64
    other = small_student(seed=10)
    with pytest.raises(CacheError, match="weak90"):
        prove_alignment(tiny.open(), tiny.data, other, tiny.views, SEED, banks=("weak90",))


def test_a_cache_grows_by_turned_banks_and_keeps_what_it_had(tmp_path: Path) -> None:
    data = separable_data(SAMPLES)
    tiny = TinyCache(tmp_path, data, small_student(), split_facts(data), views_of("crop_flip"), SEED)
    upright = tiny.build(("weak",))
    assert {shard.bank for shard in tiny.build(ROTATED)} == set(TURNED)
    assert len(upright) * 4 == len(tiny.open().manifest.shards)
    assert tiny.build(ROTATED) == []


def test_a_turned_bank_of_another_recipe_is_refused(tmp_path: Path) -> None:
    tiny = tiny_of("crop_flip", tmp_path)
    bench = workbench_of("cutout", tiny.data, cache=tiny.open())
    with pytest.raises(CacheError, match="shows bank weak180 by another recipe"):
        bench.teacher("weak180", 1, ROWS)


def test_the_picture_of_a_sample_shows_each_turn(tmp_path: Path) -> None:
    tiny = tiny_of("crop_flip", tmp_path)
    shown = views_of_sample(
        open_place(tiny.uri), tiny.open().manifest, tiny.data, tiny.views, sample=2, seed=SEED
    )
    by_bank = {view.bank: torch.from_numpy(view.image_HWC) for view in shown if view.view == 0}
    assert set(by_bank) == set(ROTATED)
    for turns, bank in enumerate(ROTATED):
        assert torch.equal(by_bank[bank], by_bank["weak"].rot90(turns, (0, 1)))
