"""MLflow's saved views: what each lists, in which order, and in a form that its menu and its links read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.tracking.views import VIEW_TAG, shared_views, view_names

PREFIX = "mlflow.sharedViewState."
KEYS = ["best", "pareto", "within_budget", "finalists", "failed"]


def states(**asked: Any) -> dict[str, dict[str, Any]]:
    """By key what the page is told by the menu."""
    views = shared_views(["temperature", "student.width"], **asked)
    return {tag.removeprefix(PREFIX): json.loads(json.loads(value)["state"]) for tag, value in views.items()}


def test_each_view_is_an_envelope_as_the_menu_reads_it() -> None:
    views = shared_views([])
    assert [tag.removeprefix(PREFIX) for tag in views] == KEYS
    for value, name in zip(views.values(), view_names(), strict=True):
        envelope = json.loads(value)
        assert envelope["name"] == name
        assert isinstance(envelope["createdAt"], int)
        assert isinstance(envelope["state"], str)


def test_the_menu_lists_the_newest_first_which_is_the_best_ones() -> None:
    times = [json.loads(value)["createdAt"] for value in shared_views([]).values()]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == len(KEYS)


def test_an_earlier_mlflow_finds_the_same_fields_beside_the_envelope() -> None:
    for value in shared_views(["temperature"]).values():
        envelope = json.loads(value)
        state = json.loads(envelope["state"])
        assert {name: envelope[name] for name in state} == state


@pytest.mark.parametrize("key", ["best", "within_budget", "finalists"])
def test_students_stand_by_their_rank_once_they_have_one(key: str) -> None:
    ranked, going_on = states()[key], states(is_ranked=False)[key]
    assert (ranked["orderByKey"], ranked["orderByAsc"]) == ("metrics.`rank`", True)
    assert (going_on["orderByKey"], going_on["orderByAsc"]) == ("metrics.`acc`", False)


def test_students_alone_are_listed_and_broken_ones_apart() -> None:
    found = states()
    alone = "tags.kind != 'experiment' and tags.kind != 'group' and attributes.status = "
    assert found["best"]["searchFilter"] == f"metrics.rank <= 100 and {alone}'FINISHED'"
    assert found["pareto"]["searchFilter"] == f"{alone}'FINISHED' and metrics.pareto = 1"
    assert (
        found["within_budget"]["searchFilter"]
        == f"metrics.rank <= 100 and {alone}'FINISHED' and metrics.within_budget = 1"
    )
    assert found["failed"]["searchFilter"] == f"{alone}'FAILED'"
    assert found["finalists"]["searchFilter"] == "tags.kind = 'group'"


def test_each_view_shows_what_was_searched_and_what_it_is_about() -> None:
    found = {key: set(state["selectedColumns"]) for key, state in states().items()}
    for columns in found.values():
        assert {"params.`student.width`", "params.`temperature`", "tags.`objective`"} <= columns
    assert {"metrics.`acc`", "metrics.`gain_over_control`", "tags.`champion`"} <= found["best"]
    assert {"metrics.`acc_std`", "metrics.`gain_low`", "metrics.`gain_high`"} <= found["finalists"]
    assert "tags.`reason`" in found["failed"]


def test_a_view_fits_a_tag_however_much_is_searched() -> None:
    many = [f"student.argument_{number:04d}" + "x" * 200 for number in range(900)]
    assert all(len(value) < 20_000 for value in shared_views(many).values())


def test_the_link_opens_the_first_view() -> None:
    assert f"{PREFIX}{KEYS[0]}" == VIEW_TAG
