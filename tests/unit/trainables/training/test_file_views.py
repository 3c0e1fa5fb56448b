"""Views of images that lie in files: those of images in memory, save that crops see the whole file."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.trainables.data.image_folders import SIDE, config_of, write_folder
from tests.unit.trainables.training.small_courses import CPU
from trainables.config import BankConfig, CropFlipStep, RandAugmentStep, Recipe, ViewsConfig
from trainables.config.views import CutmixStep, MixupStep, RandomResizedCropStep
from trainables.data import ImageSplit, TrainingData, load_training
from trainables.data.folder_images import FolderImages
from trainables.data.pictures import read_cut
from trainables.errors import DataError
from trainables.training.workbench import Workbench
from trainables.views.draw import draw, draw_boxes
from trainables.views.render import render
from trainables.views.resized_crop import ResizedCropParams
from trainables.views.showing import Viewer, show

CROP = CropFlipStep(op="crop_flip", padding=1)
BOX = RandomResizedCropStep(op="random_resized_crop", scale=(0.2, 0.9))
MIXUP = MixupStep(op="mixup")
CUTMIX = CutmixStep(op="cutmix")
UNCUT: tuple[Recipe, ...] = (
    (),
    (CROP,),
    (CROP, RandAugmentStep(op="randaugment")),
    (CROP, MIXUP, CUTMIX),
    (CROP, BOX),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def in_files(root: Path) -> TrainingData:
    before, tempfile.tempdir = tempfile.tempdir, str(root)
    try:
        return load_training(config_of(root))
    finally:
        tempfile.tempdir = before


@pytest.fixture(scope="module")
def whole(root: Path) -> TrainingData:
    return load_training(config_of(root, memory_gb=1))


def files_of(split: ImageSplit) -> FolderImages:
    assert split.files is not None
    return split.files


def workbench_of(data: TrainingData, recipe: Recipe) -> Workbench:
    return Workbench(data, ViewsConfig(weak=BankConfig(recipe=recipe, views=3)), view_seed=7, device=CPU)


@pytest.mark.parametrize("recipe", UNCUT, ids=lambda recipe: "+".join(step.op for step in recipe) or "none")
def test_views_of_files_are_those_of_images_in_memory(
    in_files: TrainingData, whole: TrainingData, recipe: Recipe
) -> None:
    lazy, held = workbench_of(in_files, recipe), workbench_of(whole, recipe)
    for epoch, rows in ((1, torch.arange(18)), (2, torch.tensor([5, 5, 0])), (4, torch.tensor([17]))):
        assert torch.equal(lazy.images("weak", epoch, rows), held.images("weak", epoch, rows))
        mixing, expected = lazy.mixing("weak", epoch, rows), held.mixing("weak", epoch, rows)
        assert (mixing is None) is (expected is None)
        if mixing is not None and expected is not None:
            assert torch.equal(mixing.labels_BK, expected.labels_BK)
            assert torch.equal(mixing.shares_BK, expected.shares_BK)
    assert lazy.held_bytes == 0
    assert lazy.input_shape == held.input_shape


def test_boxes_of_files_of_one_size_are_those_of_images_of_that_size() -> None:
    ids, recipe = np.arange(40), (BOX, CROP)
    drawn = draw(recipe, ids, seed=3, view=2, size=(21, 34)).parts[0]
    boxes = draw_boxes(recipe, ids, seed=3, view=2, sides_B2=np.full((40, 2), (21, 34), dtype=np.int32))
    assert boxes is not None
    assert isinstance(drawn, ResizedCropParams)
    assert torch.equal(boxes, drawn.box_B4)


def test_boxes_lie_in_files_of_any_size_and_depend_on_nothing_but_sample_and_size() -> None:
    sides = np.random.default_rng(0).integers(1, 60, (500, 2)).astype(np.int32)
    ids = np.arange(500)
    boxes = draw_boxes((BOX,), ids, seed=3, view=0, sides_B2=sides)
    assert boxes is not None
    top, left, height, width = boxes.T.numpy()
    assert min(top.min(), left.min()) >= 0
    assert min(height.min(), width.min()) >= 1
    assert (top + height <= sides[:, 0]).all()
    assert (left + width <= sides[:, 1]).all()
    some = np.array([400, 3, 3])
    again = draw_boxes((BOX,), ids[some], seed=3, view=0, sides_B2=sides[some])
    assert again is not None
    assert torch.equal(again, boxes[torch.from_numpy(some)])
    assert draw_boxes((CROP, BOX), ids, seed=3, view=0, sides_B2=sides) is None


def test_a_crop_that_comes_first_is_cut_out_of_the_file(in_files: TrainingData) -> None:
    split, files, rows = in_files.train, files_of(in_files.train), torch.tensor([3, 11, 0])
    shown = show(split, rows, (BOX,), seed=7, view=1, device=CPU)
    sides = files.sides(rows.numpy())
    boxes = draw_boxes((BOX,), split.ids.numpy()[rows.numpy()], seed=7, view=1, sides_B2=sides)
    assert boxes is not None
    for place, row in enumerate(rows.tolist()):
        top, left, height, width = boxes[place].tolist()
        expected = read_cut(
            files.path(row),
            (top, left, height, width),
            SIDE,
            size=(int(sides[place, 0]), int(sides[place, 1])),
        )
        assert np.array_equal(shown[place].numpy(), expected)


def test_later_steps_see_the_cut_image_and_partners_are_cut_too(in_files: TrainingData) -> None:
    split, rows = in_files.train, torch.arange(18)
    recipe: Recipe = (BOX, CROP, MIXUP)
    viewer = Viewer(split, recipe, 7, 1, CPU)
    params = viewer.params(rows)
    assert len(params.parts) == 2
    cut = files_of(split).cut(rows, _boxes(split, recipe))
    assert torch.equal(viewer.images(rows), render(cut, params, lambda places: cut[places]))
    assert not torch.equal(viewer.images(rows), render(cut, params, lambda places: cut[places.flip(0)]))
    some = torch.tensor([4, 4, 9])
    assert torch.equal(viewer.images(some), viewer.images(rows)[some])


def _boxes(split: ImageSplit, recipe: Recipe) -> torch.Tensor:
    sides = files_of(split).sides(np.arange(len(split.ids)))
    boxes = draw_boxes(recipe, split.ids.numpy(), seed=7, view=1, sides_B2=sides)
    assert boxes is not None
    return boxes


def test_what_was_expected_is_what_is_shown(in_files: TrainingData) -> None:
    workbench, plain = workbench_of(in_files, (BOX,)), workbench_of(in_files, (BOX,))
    batches = torch.split(torch.randperm(18, generator=torch.Generator().manual_seed(0)), 5)
    for batch, following in zip(batches, [*batches[1:], batches[0]], strict=True):
        workbench.expect(["weak"], 1, following)
        assert torch.equal(workbench.images("weak", 1, batch), plain.images("weak", 1, batch))


def test_a_file_that_goes_is_named_when_its_batch_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(tmp_path / "pictures")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = load_training(config_of(root))
    workbench, rows = workbench_of(data, (CROP,)), torch.arange(4)
    gone = files_of(data.train).path(2)
    gone.unlink()
    workbench.expect(["weak"], 1, rows)
    with pytest.raises(DataError, match=rf"1 of 4 images cannot be read: {gone} \(.*No such file"):
        workbench.images("weak", 1, rows)


def test_the_sources_of_mixed_images_are_the_same_in_files_and_in_memory(in_files: TrainingData) -> None:
    split, rows = in_files.train, torch.tensor([4, 4, 9, 0])
    in_memory = replace(split, images=files_of(split)[torch.arange(len(split.ids))])
    sources = [Viewer(one, (CROP, MIXUP), 7, 1, CPU).sources(rows) for one in (split, in_memory)]
    assert all(torch.equal(*pair) for pair in zip(*sources, strict=True))
    rows_BK, shares_BK = sources[0]
    assert torch.equal(rows_BK[:, 0], rows)
    torch.testing.assert_close(shares_BK.sum(dim=1), torch.ones(4))
    alone_BK, whole_BK = Viewer(split, (CROP,), 7, 1, CPU).sources(rows)
    assert torch.equal(alone_BK, rows[:, None])
    assert torch.equal(whole_BK, torch.ones(4, 1))
