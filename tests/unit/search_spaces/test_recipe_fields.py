"""Recipes: what they leave out, what they refuse, and that a space may search it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from search_spaces.space import SpaceConfig
from trainables.config import TrainingConfig

LATER = ("label_smoothing", "clip_norm", "ema")


def test_what_a_recipe_does_not_use_is_no_part_of_what_it_is_known_by() -> None:
    """So trials of a version that did not know these fields keep their ids."""
    assert not set(LATER) & TrainingConfig().plain().keys()
    used = TrainingConfig(label_smoothing=0.1, clip_norm=1.0, ema=0.99)
    assert TrainingConfig.from_plain(used.plain()) == used
    assert len({recipe.digest() for recipe in (used, TrainingConfig(), TrainingConfig(ema=0.99))}) == 3


def test_what_a_recipe_used_can_be_taken_back() -> None:
    used = TrainingConfig(label_smoothing=0.1, clip_norm=1.0, ema=0.99)
    plain = used.with_overrides(label_smoothing=0, clip_norm=None, ema=0)
    assert plain.digest() == TrainingConfig().digest()


@pytest.mark.parametrize("bad", [{"label_smoothing": 1}, {"clip_norm": 0}, {"ema": 1}, {"ema": -0.1}])
def test_numbers_out_of_bounds_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig.from_plain(bad)


def test_a_space_may_search_them_with_none_of_it_among_the_choices() -> None:
    space = SpaceConfig.from_plain(
        {
            "name": "recipes",
            "objectives": {"ce": {}},
            "training": {
                "label_smoothing": {"uniform": [0, 0.2]},
                "clip_norm": {"loguniform": [0.5, 10]},
                "ema": {"choice": [0, 0.99, 0.999]},
            },
        }
    )
    recipes = [TrainingConfig().with_overrides(**corner) for corner in space.training.corners()]
    assert {recipe.ema for recipe in recipes} == {0, 0.99, 0.999}
    assert {recipe.clip_norm for recipe in recipes} == {0.5, 10}
