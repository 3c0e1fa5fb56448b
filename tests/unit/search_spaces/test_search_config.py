"""What a search may weigh against accuracy, and with what."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import load_space
from search_spaces.space import SpaceConfig
from trainables.config import Cost
from trainables.errors import ConfigError

SPACE = """\
name: widths
objectives: {ce: {}}
student: {width: {randint: [2, 40]}}
search: SEARCH
"""


def load(folder: Path, search: str, scheduler: str = "fifo") -> SpaceConfig:
    path = folder / "space.yaml"
    path.write_text(SPACE.replace("SEARCH", search) + f"scheduler: {{name: {scheduler}}}\n")
    return load_space(str(path))


def test_costs_are_weighed_in_the_order_of_the_file(tmp_path: Path) -> None:
    space = load(tmp_path, "{algorithm: optuna, minimise: [latency_ms, params]}")
    assert space.search.minimise == (Cost.LATENCY_MS, Cost.PARAMS)
    assert [cost.metric for cost in space.search.minimise] == ["student/latency_ms", "student/params"]
    assert SpaceConfig.from_plain(space.plain()) == space


def test_a_space_without_costs_keeps_the_plain_data_that_its_searches_are_known_by(tmp_path: Path) -> None:
    without = load(tmp_path, "{algorithm: optuna}")
    assert without.plain()["search"] == {"algorithm": "optuna", "points_to_evaluate": "defaults"}
    assert load(tmp_path, "{algorithm: optuna, minimise: []}").digest() == without.digest()
    assert load(tmp_path, "{algorithm: optuna, minimise: [params]}").digest() != without.digest()


@pytest.mark.parametrize(
    ("search", "scheduler", "words"),
    [
        ("{algorithm: optuna, minimise: [params, params]}", "fifo", r"minimise: .*holds 'params' twice"),
        ("{algorithm: optuna, minimise: [parms]}", "fifo", r"found 'parms'; allowed: params, latency_ms"),
        ("{algorithm: random, minimise: [params]}", "fifo", r":4: search\.algorithm: .* allowed: optuna"),
        ("{minimise: [params]}", "fifo", r"search\.algorithm: found nothing; random weighs no costs"),
        *(
            (
                "{algorithm: optuna, minimise: [latency_ms]}",
                scheduler,
                rf":5: scheduler\.name: found '{scheduler}'; .* small students .*minimise allowed: fifo",
            )
            for scheduler in ("asha", "median", "hyperband", "pbt")
        ),
    ],
)
def test_what_cannot_weigh_costs_is_refused_with_its_key(
    tmp_path: Path, search: str, scheduler: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, search, scheduler)


def test_points_to_try_first_go_with_costs(tmp_path: Path) -> None:
    space = load(
        tmp_path, "{algorithm: optuna, minimise: [params], points_to_evaluate: [{student.width: 7}]}"
    )
    assert [space.resolve(point).parameters for point in space.first_points()] == [{"student.width": 7}]
