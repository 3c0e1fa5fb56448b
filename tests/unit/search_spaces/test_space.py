"""Search spaces: shipped ones build at every corner; samples mean what the file says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from orchestrator.config.loading import SPACES_FOLDER, load_space, shipped
from search_spaces.domains import Dimension, Domain, Range
from search_spaces.sections import MAX_CORNERS, OBJECTIVE_SECTIONS
from search_spaces.space import ResolvedSample, SpaceConfig
from trainables.config import OBJECTIVE_CONFIGS, ModelConfig, ObjectiveConfig, TrainingConfig
from trainables.errors import ConfigError

SHIPPED = list(shipped(SPACES_FOLDER))
KD = {"temperature": {"quniform": [1, 8, 0.5]}, "kd_weight": 2.0}
DKD = {"beta": {"choice": [1, 8]}}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_corner_of_a_shipped_space_builds_its_configurations(name: str) -> None:
    space = load_space(name)
    n_corners = 0
    for objective, section in space.objectives.given().items():
        for corner in section.corners():
            built = OBJECTIVE_CONFIGS[objective].from_plain({"name": objective, **corner})
            assert built.plain().items() >= {"name": objective, **corner}.items()
            n_corners += 1
    for corner in space.student.corners():
        ModelConfig.from_plain({"name": "convnet", **corner})
    rates = [TrainingConfig.from_plain(corner) for corner in space.training.corners()]
    assert (len(rates) if name == "ce" else n_corners) > 1  # ce has no hyper-parameters


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in {"lskd", "ce"}])
def test_a_shipped_space_tries_the_papers_values_first(name: str) -> None:
    space = load_space(name)
    points: dict[str, dict[str, Any]] = {}
    for point in space.first_points():  # kd has two in `methods`: its own values, then those of LSKD
        points.setdefault(str(point.get("objective", space.objective_names[0])), point)
    assert sorted(points) == sorted(space.objective_names)
    for objective, point in points.items():
        # What a searcher draws beside the papers' values: the recipe has none of theirs.
        drawn = {"training": next(iter(space.training.corners()))} if space.training.domains() else {}
        chosen = space.resolve(point | drawn)
        default = OBJECTIVE_CONFIGS[objective]().plain()
        searched = (
            set(chosen.parameters) - {"objective"} - {f"training.{key}" for key in drawn.get("training", {})}
        )
        assert chosen.objective["name"] == objective
        assert {key: chosen.objective[key] for key in searched} == {key: default[key] for key in searched}


def test_the_space_of_standardised_logits_tries_its_own_papers_values_first() -> None:
    space = load_space("lskd")
    (point,) = space.first_points()
    objective = {"name": "kd", "standardise": True, "temperature": 2, "kd_weight": 9.0, "ce_weight": 0.1}
    assert space.resolve(point).objective == objective


@pytest.mark.parametrize("name", SHIPPED)
def test_plain_data_of_a_space_reads_back(name: str) -> None:
    space = load_space(name)
    assert SpaceConfig.from_plain(space.plain()) == space


def test_every_hyper_parameter_of_every_objective_may_be_searched() -> None:
    for name, config in OBJECTIVE_CONFIGS.items():
        assert set(OBJECTIVE_SECTIONS[name].model_fields) == set(config.model_fields) - {"name"}


def test_a_sample_gives_searched_values_flat_and_constants_only_to_the_configuration() -> None:
    space = _space(
        {"kd": KD, "dkd": DKD},
        student={"width": {"choice": [4, 8]}},
        training={"lr": {"loguniform": [0.01, 0.1]}, "batch_size": 32},
    )
    sample = {
        "objective": "kd",
        "kd": {"temperature": 4.0},
        "student": {"width": 8},
        "training": {"lr": 0.05},
    }
    assert space.resolve(sample) == ResolvedSample(
        objective={"name": "kd", "kd_weight": 2.0, "temperature": 4.0},
        student={"width": 8},
        training={"batch_size": 32, "lr": 0.05},
        parameters={"objective": "kd", "temperature": 4.0, "student.width": 8, "training.lr": 0.05},
    )


def test_trials_of_one_search_may_have_different_shapes() -> None:
    space = _space(
        {"kd": KD},
        student={
            "name": {"choice": ["convnet", "resnet8"]},
            "width": {"choice": [4, 8]},
            "resolution": {"choice": [6, 12]},
        },
        training={
            "batch_size": {"choice": [32, 64]},
            "optimizer": {"choice": ["sgd", "adamw"]},
            "schedule": {"choice": ["constant", "cosine"]},
        },
    )
    for student in space.student.corners():
        assert ModelConfig.from_plain(student).plain().items() >= student.items()
    for training in space.training.corners():
        assert TrainingConfig.from_plain(training).plain().items() >= training.items()
    assert len(list(space.student.corners())) == len(list(space.training.corners())) == 8


def test_a_resolution_of_no_pixels_is_refused() -> None:
    with pytest.raises(ValidationError, match="reaches 0, which resolution refuses"):
        _space({"kd": KD}, student={"resolution": {"choice": [0, 8]}})


def test_a_single_objective_is_no_parameter() -> None:
    chosen = _space({"kd": KD}).resolve({"kd": {"temperature": 2.0}})
    assert chosen.objective["name"] == "kd"
    assert chosen.parameters == {"temperature": 2.0}


def test_values_of_objectives_that_were_not_drawn_are_passed_over() -> None:
    sample = {"objective": "dkd", "kd": {"temperature": 2.0}, "dkd": {"beta": 8}}
    assert _space({"kd": KD, "dkd": DKD}).resolve(sample).parameters == {"objective": "dkd", "beta": 8}


def test_a_sample_that_lacks_a_value_is_refused_by_name() -> None:
    space = _space({"kd": KD, "dkd": DKD})
    with pytest.raises(ConfigError, match=r"no kd\.temperature"):
        space.resolve({"objective": "kd", "kd": {}})
    with pytest.raises(ConfigError, match="objective 'crld' is none of kd, dkd"):
        space.resolve({"objective": "crld"})
    with pytest.raises(ConfigError, match=r"dkd\.beta is no value of its domain: 3 is none of \[1, 8\]"):
        space.resolve({"objective": "dkd", "dkd": {"beta": 3}})


def test_a_grid_is_the_union_of_each_objectives_product() -> None:
    space = _grid()
    configs = space.grid()
    assert len(configs) == (3 + 2) * 2
    resolved = [space.resolve({"grid": config}) for config in configs]
    assert len({str(sorted(choice.parameters.items())) for choice in resolved}) == len(configs)
    assert {choice.objective["name"] for choice in resolved} == {"kd", "dkd"}


def test_a_grid_begins_with_the_papers_values() -> None:
    first = [_grid().resolve({"grid": config}).parameters for config in _grid().grid()[:4]]
    assert [(p["objective"], p.get("temperature"), p.get("beta")) for p in first] == [
        ("kd", 4.0, None),
        ("kd", 4.0, None),
        ("dkd", None, 8),
        ("dkd", None, 8),
    ]


def test_points_of_ones_own_are_written_as_parameters_are_recorded() -> None:
    points = [{"objective": "kd", "temperature": 2.0, "student.width": 4}]
    space = _space(
        {"kd": KD, "dkd": DKD},
        student={"width": {"choice": [4, 8]}},
        search={"points_to_evaluate": points},
    )
    assert space.first_points() == [{"objective": "kd", "kd": {"temperature": 2.0}, "student": {"width": 4}}]
    assert space.resolve(space.first_points()[0]).parameters == points[0]


def test_no_points_means_that_a_default_may_lie_outside() -> None:
    space = _space({"kd": {"temperature": {"uniform": [5, 8]}}}, search={"points_to_evaluate": []})
    assert space.first_points() == []
    assert space.default_points() == [{"kd": {"temperature": 4.0}}]


def test_nothing_can_be_searched_but_what_a_configuration_takes() -> None:
    with pytest.raises(ValidationError, match=r"student\.factory"):
        _space({"kd": KD}, student={"factory": "mine:network"})
    with pytest.raises(ValidationError, match="refuses: schedule step needs `milestones`"):
        _space({"kd": KD}, training={"schedule": {"choice": ["step", "cosine"]}})


def test_corners_of_a_large_section_are_taken_one_domain_at_a_time() -> None:
    members = [round(0.1 * step, 1) for step in range(20)]
    weights = {name: {"choice": members} for name in ("ce_weight", "within_weight", "cross_weight")}
    space = _space(
        {"crld": {**weights, "temperature": {"choice": [2, 4]}}}, search={"points_to_evaluate": []}
    )
    corners = list(space.objectives.given()["crld"].corners())
    assert len(corners) == 3 * 20 + 2 < MAX_CORNERS
    for name in weights:
        assert {corner[name] for corner in corners} == set(members)


def test_bounds_of_whole_numbers_are_those_that_tune_draws() -> None:
    assert _domain({"randint": [1, 9]}).corners() == (1, 8)
    assert _domain({"lograndint": [1, 9]}).corners() == (1, 8)
    assert _domain({"qrandint": [2, 8, 2]}).corners() == (2, 8)
    assert not _domain({"randint": [1, 9]}).contains(9)
    assert not _domain({"randint": [1, 9]}).contains(2.0)
    assert _domain({"qrandint": [2, 8, 2]}).contains(8)


def test_a_bell_reaches_three_standard_deviations() -> None:
    bell = _domain({"normal": [4, 0.5]})
    assert bell.corners() == (2.5, 5.5)
    assert bell.contains(5.5)
    assert not bell.contains(5.6)


@given(st.floats(-10, 10), st.sampled_from([0.05, 0.1, 0.3, 0.5]))
def test_a_drawn_number_becomes_a_tidy_one_within_its_domain(drawn: float, step: float) -> None:
    domain = _domain({"quniform": [0, 30 * step, step]})
    value = domain.tidy(drawn)
    assert isinstance(domain, Range)
    assert domain.contains(value)
    assert domain.tidy(value) == value
    assert len(repr(value)) <= len("0.05") + 1


def test_a_member_keeps_the_type_that_the_file_gives_it() -> None:
    domain = _domain({"choice": [1, 2.5, "own_view", False]})
    assert [type(domain.tidy(member)) for member in (1.0, 2.5, "own_view", False)] == [int, float, str, bool]


def test_importing_spaces_brings_in_no_library_that_is_slow() -> None:
    code = (
        "import sys, search_spaces.space; sys.exit(any(n in sys.modules for n in ('torch', 'ray', 'mlflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _space(objectives: dict[str, Any], **fields: Any) -> SpaceConfig:
    space = SpaceConfig.from_plain({"name": "test", "objectives": objectives, **fields})
    for name, section in space.objectives.given().items():
        for corner in section.corners():
            TypeAdapter(ObjectiveConfig).validate_python({"name": name, **corner})
    return space


def _grid() -> SpaceConfig:
    return _space(
        {"kd": {"temperature": {"grid_search": [1, 2, 4]}}, "dkd": {"beta": {"grid_search": [1, 8]}}},
        student={"width": {"grid_search": [4, 8]}},
        search={"algorithm": "grid"},
    )


def _domain(plain: dict[str, Any]) -> Domain:
    domain = TypeAdapter(Dimension).validate_python(plain)
    assert isinstance(domain, Domain)
    return domain
