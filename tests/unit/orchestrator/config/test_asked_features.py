from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.asked_features import asked_features, asks_classifier
from orchestrator.config.loading import load_experiment, load_space
from orchestrator.config.overrides import Overrides
from orchestrator.pipeline.cache_stage import cache_request, require_cache_room, unmade_teacher
from orchestrator.pipeline.context import quiet_run
from orchestrator.terminal.console import Console
from trainables.config.objective_base import ROTATED
from trainables.data import load_training
from trainables.errors import CacheError, ConfigError

EXPERIMENT = """\
name: asked
out: OUT
data: {name: digits, train_limit: 40}
teacher: {model: {name: convnet, width: 8}, training: {epochs: 1}}
student: {name: convnet, width: 4}
views: {weak: {views: 1, recipe: []}}
space: kd
"""
ONE = "{model: {name: mlp}, training: {epochs: 1}}"
TEACHERS = {
    "imported logits": ("teacher: {imported: true}", "teacher.imported: found true"),
    "an ONNX file": ("teacher: {checkpoint: t.onnx}", r"teacher.checkpoint: found '.*t\.onnx'"),
    "several teachers": (
        f"teachers: [{ONE}, {ONE}]",
        "teachers: found 2 teachers",
    ),
}


def write(folder: Path, teacher: str | None = None, more: str = "") -> str:
    path = folder / "asked.yaml"
    text = EXPERIMENT.replace("OUT", str(folder / "out"))
    if teacher is not None:
        text = (
            "\n".join(teacher if line.startswith("teacher:") else line for line in text.splitlines()) + "\n"
        )
    path.write_text(text + more)
    return str(path)


@pytest.mark.parametrize(
    ("space", "features", "classifier"),
    [
        ("kd", {}, False),
        ("cbd", {"weak": ("embedding",)}, False),
        ("fitnet", {"weak": ("stage2",)}, False),
        ("mlkd", dict.fromkeys(ROTATED, ("embedding",)), False),
        ("srd", {"weak": ("embedding",)}, True),
    ],
)
def test_what_the_objectives_of_a_space_ask_of_the_network(
    space: str, features: dict[str, tuple[str, ...]], classifier: bool
) -> None:
    found = load_space(space)
    assert asked_features(found) == features
    assert asks_classifier(found) is classifier


def test_a_run_asks_its_cache_for_what_is_small_and_for_maps_that_are_named(tmp_path: Path) -> None:
    more = "cache: {feature_precision: fp32}\n"
    loaded = load_experiment(write(tmp_path, more=more), overrides=Overrides(space="fitnet"))
    named = load_experiment(
        write(tmp_path, more="cache: {features: [stage2], rows_per_map: 16}\n"),
        overrides=Overrides(space="fitnet"),
    )
    whole = load_experiment(write(tmp_path), overrides=Overrides(space="srd"))
    data = load_training(loaded.config.data)
    requests = []
    for one in (loaded, named, whole):
        with quiet_run(one, Console()) as run:
            requests.append(cache_request(run, unmade_teacher(data)))
    assert [request.origin.features for request in requests] == [
        {},
        {"weak": ("stage2",)},
        {"weak": ("embedding",), "teacher": ("classifier",)},
    ]
    assert requests[1].origin.rows_per_map == 16
    assert requests[0].uri != requests[1].uri  # fp32 has a folder of its own
    assert requests[1].uri == requests[2].uri


@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize(
    ("space", "asks"),
    [
        ("rkd", r"objective rkd of space rkd compares the teacher's embedding, and "),
        ("at", r"objective at of space at compares the teacher's energy\.stage1, .*, and "),
    ],
)
def test_a_teacher_of_logits_alone_is_refused_by_the_objective_that_asks_for_more(
    tmp_path: Path, kind: str, space: str, asks: str
) -> None:
    teacher, place = TEACHERS[kind]
    with pytest.raises(ConfigError, match=rf"{place}; {asks}{kind}.*take one network of PyTorch"):
        load_experiment(write(tmp_path, teacher), overrides=Overrides(space=space), check_paths=False)


@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("{embedding: true}", "embedding: found true"),
        ("{features: [stage2, last]}", r"features: found \[stage2, last\]"),
    ],
)
def test_a_teacher_of_logits_alone_keeps_no_features(
    tmp_path: Path, kind: str, more: str, found: str
) -> None:
    teacher, _ = TEACHERS[kind]
    with pytest.raises(ConfigError, match=rf"cache\.{found}; {kind} .*: leave it out"):
        load_experiment(write(tmp_path, teacher, f"cache: {more}\n"), check_paths=False)


@pytest.mark.parametrize("more", ["", "cache: {online: true}\n", "cache: {features: [stage2]}\n"])
def test_a_teacher_that_lacks_a_feature_is_refused_before_anything_runs(tmp_path: Path, more: str) -> None:
    teacher = "teacher: {model: {name: mlp}, training: {epochs: 1}}"
    loaded = load_experiment(write(tmp_path, teacher, more), overrides=Overrides(space="fitnet"))
    data = load_training(loaded.config.data)
    with (
        quiet_run(loaded, Console()) as run,
        pytest.raises(CacheError, match="has no feature 'stage2'; it has embedding"),
    ):
        require_cache_room(run, None, data)


@pytest.mark.parametrize(
    ("feature", "kind", "space"), [("ss_head", "ss_head", "sskd"), ("branch1", "branches", "hsakd")]
)
def test_what_only_a_prepared_teacher_has_is_kept_where_an_objective_prepares_it(
    tmp_path: Path, feature: str, kind: str, space: str
) -> None:
    path = write(tmp_path, more=f"cache:\n  features: [stage2, {feature}]\n")
    other = "hsakd" if space == "sskd" else "sskd"
    for name in ("kd", other):
        with pytest.raises(ConfigError) as refused:
            load_experiment(path, overrides=Overrides(space=name))
        assert str(refused.value) == (
            f"{path}:9: cache.features[1]: found {feature!r}, which a teacher that is prepared ({kind}) has, "
            f"and no objective of space {name} asks for that: leave it out, or take a space with {space}"
        )
    load_experiment(path, overrides=Overrides(space=space))


def test_branches_that_a_teacher_is_trained_with_are_kept_whoever_asks(tmp_path: Path) -> None:
    teacher = "teacher: {model: {name: convnet}, training: {epochs: 1}, prepared: joint_branches}"
    assert load_experiment(write(tmp_path, teacher, "cache: {features: [branch1]}\n")).config.cache.features
    with pytest.raises(ConfigError, match=r"cache\.features\[0\]: found 'ss_head'"):
        load_experiment(write(tmp_path, teacher, "cache: {features: [ss_head]}\n"))
