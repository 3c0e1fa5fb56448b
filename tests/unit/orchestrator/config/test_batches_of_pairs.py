"""`training.sampling: pairs` and the batches of a space: what both files together cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.config.budget_problems import batch_notes
from orchestrator.config.loading import LoadedExperiment, load_experiment
from trainables.config.training import Sampling
from trainables.errors import ConfigError

EXPERIMENT = """\
name: mine
data: {name: digits, train_limit: 100MORE}
teacher: {model: {name: resnet20}}
student: {name: mlp}
views: {weak: {views: 1, recipe: []}}
training: {sampling: pairs, batch_size: SIZE}
space: SPACE
"""


def loaded(
    folder: Path, batches: str | None = None, *, size: int = 32, more: str = "", sampling: str = "pairs"
) -> LoadedExperiment:
    searched = "lr: {loguniform: [0.01, 0.1]}" + (f", batch_size: {batches}" if batches else "")
    (folder / "space.yaml").write_text(f"name: few\nobjectives: {{kd: {{}}}}\ntraining: {{{searched}}}\n")
    path = folder / "mine.yaml"
    text = EXPERIMENT.replace("MORE", more).replace("SIZE", str(size)).replace("pairs", sampling)
    path.write_text(text.replace("SPACE", str(folder / "space.yaml")))
    return load_experiment(str(path))


@pytest.mark.parametrize(
    "batches", [None, "64", "{choice: [16, 64]}", "{qrandint: [16, 64, 2]}", "{qlograndint: [16, 64, 4]}"]
)
def test_even_batches_are_accepted(tmp_path: Path, batches: str | None) -> None:
    assert loaded(tmp_path, batches).config.training.sampling is Sampling.PAIRS


def test_an_odd_batch_in_the_file_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml:6: training.*needs an even `batch_size`, and 33"):
        loaded(tmp_path, size=33)


@pytest.mark.parametrize("batches", ["33", "{choice: [16, 33]}"])
def test_an_odd_end_of_what_is_searched_is_refused(tmp_path: Path, batches: str) -> None:
    told = r"space\.yaml:3: training: .*batch_size 33.* does not fit the experiment: .*even `batch_size`"
    with pytest.raises(ConfigError, match=told):
        loaded(tmp_path, batches)


@pytest.mark.parametrize(
    "batches",
    ["{randint: [16, 65]}", "{randint: [16, 34]}", "{qrandint: [18, 66, 3]}", "{lograndint: [16, 65]}"],
)
def test_odd_numbers_between_even_ends_are_refused(tmp_path: Path, batches: str) -> None:
    told = r"space\.yaml:3: training\.batch_size: found q?(log)?randint, which gives odd"
    with pytest.raises(ConfigError, match=told):
        loaded(tmp_path, batches)
    assert loaded(tmp_path, batches, sampling="class_balanced")


def test_a_batch_of_one_pair_has_no_place_for_unlabelled_images(tmp_path: Path) -> None:
    unlabelled = ", unlabelled: {rest: true}"
    with pytest.raises(ConfigError, match=r"data\.unlabelled\.share: found 0\.5; a batch of one pair cannot"):
        loaded(tmp_path, size=2, more=unlabelled)
    config = loaded(tmp_path, size=6, more=unlabelled).config
    assert config.unlabelled_in_words.endswith(": 4 of each batch of 6")


CIFAR100 = [500] * 100
MCL = "mcl: {peers: {choice: [2, 3]}}"


def notes(
    folder: Path,
    objectives: str = MCL,
    *,
    counts: Sequence[int] = CIFAR100,
    training: str = "batch_size: 64",
    space: str = "",
    more: str = "",
) -> list[str]:
    """What is said of batches in which few images have another one of their class."""
    (folder / "space.yaml").write_text(f"name: few\nobjectives: {{{objectives}}}\n{space}")
    path = folder / "mine.yaml"
    path.write_text(
        "name: mine\ndata: {name: digits}\nstudent: {name: mlp}\nviews: {weak: {views: 1, recipe: []}}\n"
        f"training: {{{training}}}\nspace: {folder / 'space.yaml'}\n{more}"
    )
    found = load_experiment(str(path))
    return batch_notes(found.config, found.space, counts)


@pytest.mark.parametrize(
    ("size", "counts", "alone"),
    [
        (64, CIFAR100, 53),  # 0.99^63 = 0.531
        (128, CIFAR100, 28),  # 0.99^127 = 0.279
        (400, CIFAR100, None),
        (128, [6000] * 10, None),
        (16, [6000] * 10, 21),  # 0.9^15 = 0.206
        (16, [900, 100], None),  # 0.9 * 0.1^15 + 0.1 * 0.9^15 = 0.021
        (3, [500, 500, 0], 25),  # 0.5^2; a class without samples counts for nothing
    ],
)
def test_batches_in_which_images_are_alone_of_their_class_are_told(
    tmp_path: Path, size: int, counts: list[int], alone: int | None
) -> None:
    found = notes(tmp_path, counts=counts, training=f"batch_size: {size}")
    assert [f"of the {size} that" in note and f"about {alone} %" in note for note in found] == [True] * (
        alone is not None
    )
    assert all(note.startswith("warning: objective mcl of space few compares the images") for note in found)
    assert all("`training: {sampling: pairs}` draws two of a class at a time" in note for note in found)


def test_the_smallest_share_of_a_worker_counts(tmp_path: Path) -> None:
    of_ten, searched = [6000] * 10, "training: {batch_size: {choice: [16, 128]}}\n"
    assert "of the 16 that" in notes(tmp_path, counts=of_ten, space=searched)[0]
    several = "cluster: {workers_per_slot: 4}\n"
    assert "of the 16 that" in notes(tmp_path, counts=of_ten, more=several)[0]


def test_classes_count_as_often_as_they_are_drawn(tmp_path: Path) -> None:
    """Of ten classes one has nine tenths of the samples."""
    counts = [810] + [10] * 9
    assert notes(tmp_path, counts=counts, training="batch_size: 8") == []  # 0.1 * 0.989^7 + 0.9 * 0.1^7
    (told,) = notes(tmp_path, counts=counts, training="batch_size: 8, sampling: class_balanced")
    assert "about 48 % are the only one of their class (sampling class_balanced)" in told  # 0.9^7 = 0.478


@pytest.mark.parametrize(
    ("objectives", "training"),
    [
        (MCL, "batch_size: 64, sampling: pairs"),
        ("mcl: {form: bank, peers: {choice: [2, 3]}}", "batch_size: 64"),
        ("mcl: {vcl_weight: 0, icl_weight: 0, peers: {choice: [2, 3]}}", "batch_size: 64"),
        ("dml: {}, ls: {}", "batch_size: 64"),
    ],
    ids=["pairs", "bank", "no contrast", "no mcl"],
)
def test_nothing_is_said_where_no_partner_is_wanted(tmp_path: Path, objectives: str, training: str) -> None:
    assert notes(tmp_path, objectives, training=training) == []
    assert notes(tmp_path) != []
