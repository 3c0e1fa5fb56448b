"""A loaded teacher that is right by chance alone stops the run, and what it is told to look at."""

from __future__ import annotations

import pytest

from orchestrator.records.teacher_checks import require_better_than_chance
from trainables.errors import StillhouseError
from trainables.evaluation.chance import AgainstChance

BY_CHANCE = AgainstChance(images=1000, right=103, by_chance=0.1)


def test_a_teacher_that_is_right_by_chance_is_suspected_of_order_normalisation_and_file() -> None:
    with pytest.raises(StillhouseError) as caught:
        require_better_than_chance(BY_CHANCE, expected=None)
    text = str(caught.value)
    assert text.startswith(
        "the teacher is right on 10.30 % of 1,000 images of the selection split, no more often than by "
        "chance (10.00 %); its classes may be in another order"
    )
    assert all(word in text for word in ("`classes: [...]`", "`normalisation`", "checkpoint"))


def test_an_accuracy_that_is_expected_and_reached_takes_the_place_of_the_suspicion() -> None:
    require_better_than_chance(BY_CHANCE, expected=0.1)
    with pytest.raises(StillhouseError, match="no more often than by chance"):
        require_better_than_chance(BY_CHANCE, expected=0.2)
