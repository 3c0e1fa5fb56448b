"""The step quarter_turn: at the end of a recipe it turns what is shown, and changes no draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tests.unit.trainables.views.view_examples import CROP, IDS, N, chains, channels, pictures, view_of
from trainables.cache.format.identity import plain_recipe
from trainables.config import BankConfig, ViewsConfig
from trainables.config.views import QuarterTurnStep, RandomResizedCropStep, Recipe, base_of
from trainables.errors import DataError
from trainables.views.draw import draw, draw_boxes
from trainables.views.params import ViewParams

VIEWS = ViewsConfig(weak=BankConfig(recipe=(CROP,), views=3), strong=BankConfig(views=2))


def turn(turns: int) -> QuarterTurnStep:
    return QuarterTurnStep(op="quarter_turn", turns=turns)


def drawn(recipe: Recipe) -> ViewParams:
    return draw(recipe, IDS, seed=1, view=2, size=(12, 12), population=IDS)


@settings(max_examples=60, deadline=None)
@given(recipe=chains, turns=st.integers(1, 3), channels=channels, view=st.integers(0, 5))
def test_a_recipe_with_a_turn_at_its_end_shows_what_it_shows_without_turned(
    recipe: Recipe, turns: int, channels: int, view: int
) -> None:
    batch, rows = pictures(channels)[..., :12], torch.arange(0, N, 3)
    plain, turned = (view_of(steps, batch, rows, view) for steps in (recipe, (*recipe, turn(turns))))
    assert torch.equal(turned, plain.rot90(turns, (2, 3)))


def test_turns_within_a_recipe_are_part_of_what_its_draws_are_made_from() -> None:
    first, last, none = (drawn(steps) for steps in ((turn(1), CROP), (CROP, turn(1)), (CROP,)))
    assert torch.equal(last.parts[0].top_B, none.parts[0].top_B)  # type: ignore[union-attr]
    assert not torch.equal(first.parts[1].top_B, none.parts[0].top_B)  # type: ignore[union-attr]


def test_several_turns_at_the_end_add_up() -> None:
    batch, rows = pictures(3)[..., :12], torch.arange(8)
    plain, turned = (view_of(steps, batch, rows, 0) for steps in ((CROP,), (CROP, turn(3), turn(2))))
    assert torch.equal(turned, plain.rot90(1, (2, 3)))


def test_boxes_of_files_are_those_of_the_view_that_is_turned() -> None:
    box = RandomResizedCropStep(op="random_resized_crop")
    sides = np.full((N, 2), 40, dtype=np.int32)
    plain, turned = (
        draw_boxes(steps, IDS, seed=1, view=0, sides_B2=sides) for steps in ((box,), (box, turn(2)))
    )
    assert plain is not None
    assert turned is not None
    assert torch.equal(plain, turned)


def test_images_that_are_not_square_are_not_turned() -> None:
    with pytest.raises(
        DataError, match="the step quarter_turn needs square images, these have 12 x 15 pixels"
    ):
        draw((turn(1),), IDS, seed=1, view=0, size=(12, 15))


@pytest.mark.parametrize("turns", [0, 4])
def test_turns_are_one_to_three(turns: int) -> None:
    with pytest.raises(ValidationError, match="turns"):
        QuarterTurnStep(op="quarter_turn", turns=turns)


@pytest.mark.parametrize(
    ("name", "base", "turns"),
    [("weak", "weak", 0), ("weak90", "weak", 1), ("weak180", "weak", 2), ("strong270", "strong", 3)],
)
def test_a_turned_bank_is_its_base_with_a_turn_at_the_end(name: str, base: str, turns: int) -> None:
    bank, plain = VIEWS.bank(name), VIEWS.bank(base)
    assert base_of(name) == (base, turns)
    assert bank.views == plain.views
    assert bank.recipe == (plain.recipe if turns == 0 else (*plain.recipe, turn(turns)))
    assert TypeAdapter(Recipe).validate_python(plain_recipe(bank.recipe)) == bank.recipe


@pytest.mark.parametrize("name", ["weak0", "weak360", "weak45", "mild90", "90"])
def test_other_names_are_no_banks(name: str) -> None:
    with pytest.raises(KeyError):
        VIEWS.bank(name)
