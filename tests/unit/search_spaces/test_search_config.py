"""By which figure a search ranks, what it may weigh against that, and with what."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import load_space
from orchestrator.config.schema_description import file_schema
from search_spaces.space import SpaceConfig
from trainables.config import OBJECTIVE_CONFIGS, Cost
from trainables.config.metrics import RankBy
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


@pytest.mark.parametrize("figure", ["knn_accuracy", "probe_accuracy"])
def test_a_space_names_the_figure_that_ranks(tmp_path: Path, figure: str) -> None:
    usual, space = load(tmp_path, "{algorithm: random}"), load(tmp_path, f"{{rank_by: {figure}}}")
    assert (usual.search.rank_by, space.search.rank_by) == (RankBy.ACCURACY, RankBy(figure))
    assert SpaceConfig.from_plain(space.plain()) == space
    assert space.digest() != usual.digest()
    assert load(tmp_path, "{rank_by: accuracy}").digest() == usual.digest()
    assert "rank_by" not in usual.plain()["search"]


def test_a_figure_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    words = r":4: search\.rank_by: found 'knn'; allowed: accuracy, knn_accuracy, probe_accuracy"
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, "{rank_by: knn}")
    schema = file_schema(SpaceConfig)["$defs"]["RankBy"]
    assert schema["enum"] == ["accuracy", "knn_accuracy", "probe_accuracy"]


def test_costs_are_weighed_against_the_figure_that_ranks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="random weighs no costs against kNN accuracy"):
        load(tmp_path, "{rank_by: knn_accuracy, minimise: [params]}")


def features_alone(folder: Path, objectives: str, search: str) -> SpaceConfig:
    path = folder / "space.yaml"
    path.write_text(f"name: features\nobjectives: {objectives}\nsearch: {search}\n")
    return load_space(str(path))


FEATURES_ALONE = "{simreg: {depth: {choice: [1, 2, 4]}}}"


def test_students_whose_answers_nothing_teaches_are_not_ranked_by_accuracy(tmp_path: Path) -> None:
    words = (
        r":3: search\.rank_by: found 'accuracy'; with these hyper-parameters simreg teaches the student "
        r"features and no classes, so its accuracy is that of chance; allowed: knn_accuracy or probe_accuracy"
        r", or a weight of the labels above 0"
    )
    with pytest.raises(ConfigError, match=words):
        features_alone(tmp_path, FEATURES_ALONE, "{rank_by: accuracy}")
    with pytest.raises(ConfigError, match=r"search\.rank_by: .*rkd, simreg teach the student features"):
        features_alone(tmp_path, "{simreg: {}, rkd: {ce_weight: 0}}", "{algorithm: random}")
    for figure in ("knn_accuracy", "probe_accuracy"):
        assert features_alone(tmp_path, FEATURES_ALONE, f"{{rank_by: {figure}}}")


@pytest.mark.parametrize(
    "objectives",
    [
        "{simreg: {ce_weight: {choice: [0, 1]}}}",
        "{simreg: {kd_weight: {choice: [0, 1]}}}",
        "{simreg: {depth: {choice: [1, 2, 4]}}, kd: {}}",
    ],
)
def test_some_that_are_taught_classes_are_enough_for_accuracy(tmp_path: Path, objectives: str) -> None:
    assert features_alone(tmp_path, objectives, "{algorithm: random}").search.rank_by is RankBy.ACCURACY


@pytest.mark.parametrize("name", OBJECTIVE_CONFIGS)
def test_weights_that_teach_classes_are_fields_and_with_all_at_zero_nothing_does(name: str) -> None:
    config = OBJECTIVE_CONFIGS[name]
    assert set(config.class_weights) <= set(config.model_fields)
    if config.class_weights:
        assert not config.from_plain(dict.fromkeys(config.class_weights, 0.0)).learns_classes
        for weight in config.class_weights:
            own = dict.fromkeys(config.class_weights, 0.0) | {weight: 0.5}
            assert config.from_plain(own).learns_classes


def test_points_to_try_first_go_with_costs(tmp_path: Path) -> None:
    space = load(
        tmp_path, "{algorithm: optuna, minimise: [params], points_to_evaluate: [{student.width: 7}]}"
    )
    assert [space.resolve(point).parameters for point in space.first_points()] == [{"student.width": 7}]
