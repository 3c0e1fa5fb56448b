"""Images without labels: where they come from, which are left out, and how they are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tests.unit.trainables.data.image_folders import config_of, picture, write_folder
from tests.unit.trainables.data.unlabelled_task import N_OWN, dataset
from trainables.config import DataConfig
from trainables.config.data import UnlabelledConfig
from trainables.data import ImageSplit, TrainingData, load_test, load_training
from trainables.data.inspection import inspect_data
from trainables.data.splits import FIRST_UNLABELLED_ID, NO_LABEL, Unlabelled, split_facts
from trainables.errors import DataError, UnreadableData

TASK = "tests.unit.trainables.data.unlabelled_task"


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def task(factory: str = "unlabelled", **changes: Any) -> DataConfig:
    unlabelled = UnlabelledConfig(factory=f"{TASK}:{factory}", **changes)
    return DataConfig(factory=f"{TASK}:dataset", unlabelled=unlabelled)


def digits(**changes: Any) -> DataConfig:
    return DataConfig.from_plain({"name": "digits", **changes})


def found(data: TrainingData) -> Unlabelled:
    assert data.unlabelled is not None
    return data.unlabelled


def contents(split: ImageSplit) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images[:]}


def test_images_of_selection_and_test_split_are_left_out_and_counted() -> None:
    data = load_training(task())
    facts = found(data).facts
    assert (facts.in_selection, facts.in_test) == (len(data.selection.ids), 24)
    assert facts.count == N_OWN + len(data.train.ids)
    own = contents(found(data).split)
    assert not own & contents(data.selection)
    assert not own & contents(load_test(task()))
    assert contents(data.train) <= own


def test_an_id_is_the_place_in_the_source_whatever_is_left_out() -> None:
    data = load_training(task())
    places = (found(data).split.ids - FIRST_UNLABELLED_ID).numpy()
    assert (np.diff(places) > 0).all()
    everything = torch.cat([dataset(split).tensors[0] for split in ("test", "train")])
    assert places[:N_OWN].tolist() == list(range(N_OWN))
    for row in range(N_OWN, len(places)):
        assert torch.equal(found(data).split.images[row : row + 1][0], everything[places[row] - N_OWN])


def test_rows_of_all_that_is_answered_are_labelled_first() -> None:
    data = load_training(task())
    n_train = len(data.train.ids)
    assert torch.equal(data.labels_M[:n_train], data.train.labels)
    assert (data.labels_M[n_train:] == NO_LABEL).all()
    assert (data.ids_M.diff() > 0).all()
    assert split_facts(data).n_rows == len(data.ids_M) == n_train + found(data).facts.count


def test_what_is_known_of_labelled_data_is_the_same_beside_unlabelled_images() -> None:
    alone, beside = load_training(task().labelled), load_training(task())
    assert beside.digest == alone.digest
    assert (beside.mean, beside.std) == (alone.mean, alone.std)
    plain = split_facts(alone).plain()
    assert "unlabelled" not in plain
    assert {k: v for k, v in split_facts(beside).plain().items() if k != "unlabelled"} == plain


def test_other_unlabelled_images_have_another_digest() -> None:
    digests = {found(load_training(config)).facts.images_digest for config in (task(), task("fresh"))}
    assert len(digests) == 2
    assert found(load_training(task())).facts.images_digest in digests


def test_what_a_limit_leaves_out_is_used_without_its_labels() -> None:
    limited = load_training(digits(train_limit=100, unlabelled={"rest": True}))
    whole = load_training(digits())
    rest = found(limited)
    # scikit-learn's digits hold no image twice across these splits
    assert rest.facts.count + rest.facts.in_selection + rest.facts.in_test == len(whole.train.ids) - 100
    own = (rest.split.ids - FIRST_UNLABELLED_ID).numpy()
    assert not np.isin(own, limited.train.ids.numpy()).any()
    rows = torch.from_numpy(np.searchsorted(whole.train.ids.numpy(), own))
    assert torch.equal(rest.split.images[:], whole.train.images[rows])


def test_a_folder_of_grey_copies_of_test_images_is_recognised(tmp_path: Path) -> None:
    test = load_test(digits())
    folder = tmp_path / "found" / "deep" / "deeper"
    folder.mkdir(parents=True)
    for number, image in enumerate(test.images[:5]):
        Image.fromarray(image[0].numpy()).save(folder / f"test-{number}.png")
    other = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    for number, pixels in enumerate(other):
        Image.fromarray(pixels).save(tmp_path / "found" / f"{number}.png")
    data = load_training(digits(unlabelled={"root": str(tmp_path / "found")}))
    facts = found(data).facts
    assert (facts.count, facts.in_test, facts.in_selection) == (3, 5, 0)
    assert np.array_equal(found(data).split.images[:].numpy()[:, 0], other)


@pytest.mark.parametrize("memory_gb", [0.0, 4.0])
def test_folders_are_compared_in_files_and_in_memory(tmp_path: Path, memory_gb: float) -> None:
    root = write_folder(tmp_path / "data")
    pool = tmp_path / "pool"
    (pool / "inner").mkdir(parents=True)
    for name in ("rose/more/0.tif", "daisy/1.tif"):
        (pool / name.replace("/", "_")).write_bytes((root / "test" / name).read_bytes())
    for number in range(4):
        picture(1000 + number, 20, 14).save(pool / "inner" / f"{number}.png")
    config = config_of(root, memory_gb=memory_gb, unlabelled=UnlabelledConfig(root=str(pool)))
    data = load_training(config)
    facts = found(data).facts  # the folder's test pictures are among its training pictures too
    assert (facts.count, facts.in_test + facts.in_selection) == (4, 2)
    assert (found(data).split.files is None) == (memory_gb > 0)
    assert found(data).split.images[:].shape == (4, 3, 8, 8)


def test_unlabelled_images_stay_in_files_beside_labelled_ones_in_memory(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", suffix="png")
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "copy.png").write_bytes((root / "test" / "rose" / "1.png").read_bytes())
    for number in range(60):
        picture(1000 + number, 8, 8).save(pool / f"{number:02d}.png")
    limit = 40 * 3 * 8 * 8 / 1e9
    config = config_of(root, memory_gb=limit, unlabelled=UnlabelledConfig(root=str(pool)))
    data = load_training(config)
    assert data.train.files is None
    assert found(data).split.files is not None
    facts = found(data).facts  # the folder's test pictures are among its training pictures too
    assert (facts.count, facts.in_test + facts.in_selection) == (60, 1)


def test_unreadable_pictures_stop_or_are_counted(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", suffix="png")
    pool = tmp_path / "pool"
    pool.mkdir()
    picture(5000).save(pool / "a.png")
    (pool / "b.png").write_bytes(b"no picture")
    unlabelled = UnlabelledConfig(root=str(pool))
    with pytest.raises(UnreadableData, match=r"b\.png"):
        load_training(config_of(root, memory_gb=4.0, unlabelled=unlabelled))
    skipping = config_of(root, memory_gb=4.0, unlabelled=unlabelled, skip_unreadable=True)
    facts = found(load_training(skipping)).facts
    assert (facts.count, facts.unreadable) == (1, 1)


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("of_another_shape", r"have the shape \(1, 6, 6\), labelled ones \(1, 8, 8\).*image_size"),
        ("all_known", "all 24 unlabelled images .* are in the selection or test split too; give others"),
    ],
)
def test_images_that_cannot_be_used_are_refused_in_one_line(factory: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        load_training(task(factory))


def test_a_folder_that_is_not_there_or_holds_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, told in (("gone", "is not a folder"), ("empty", "holds no image")):
        with pytest.raises(DataError, match=told):
            load_training(digits(unlabelled={"root": str(tmp_path / name)}))


@pytest.mark.parametrize(
    ("plain", "told"),
    [
        ({}, "exactly one of `root`, `factory` and `rest: true`"),
        ({"root": "a", "rest": True}, "exactly one"),
        ({"root": "a", "arguments": {"n": 1}}, "`arguments` are for a `factory`"),
        ({"root": "a", "share": 0}, "greater than 0"),
        ({"rest": True}, "leaves out: give one"),
    ],
)
def test_a_section_that_means_nothing_is_refused(plain: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        digits(unlabelled=plain)


@pytest.mark.parametrize(
    ("share", "batch_size", "rows"), [(0.5, 64, 32), (0.5, 5, 2), (0.01, 8, 1), (0.99, 8, 7), (1.0, 8, 8)]
)
def test_a_batch_holds_its_share(share: float, batch_size: int, rows: int) -> None:
    assert UnlabelledConfig(root="a", share=share).rows_of(batch_size) == rows


def test_the_counts_are_one_sentence() -> None:
    data = load_training(task(share=0.25))
    told = found(data).facts.in_words(found(data).config)
    n_train, n_selection = len(data.train.ids), len(data.selection.ids)
    assert told == (
        f"{N_OWN + n_train} unlabelled images of {TASK}:unlabelled, 0.25 of each batch of objectives with a "
        f"teacher; left out: {n_selection} in the selection split too, 24 in the test split too"
    )


def test_a_factory_that_draws_anew_is_told_before_anything_runs() -> None:
    looked = inspect_data(task("drawn_anew"), lambda *_: None)
    (problem,) = looked.problems
    assert "of unlabelled images: called twice, it gave other samples the second time" in str(problem)
    assert inspect_data(task(), lambda *_: None).problems == []
