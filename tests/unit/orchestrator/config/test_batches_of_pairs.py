"""`training.sampling: pairs` and the batches of a space: what both files together cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

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
