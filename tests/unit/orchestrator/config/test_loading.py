"""Reading experiment and search-space files: what is accepted, and a line about each thing that is not."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
import yaml

from orchestrator.config.asked_features import taught_objectives
from orchestrator.config.cross_checks import max_epochs
from orchestrator.config.loading import (
    EXPERIMENTS_FOLDER,
    SPACES_FOLDER,
    load_experiment,
    load_space,
    shipped,
)
from orchestrator.config.overrides import Overrides
from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.schema_description import file_schema
from tests.unit.trainables.models.onnx_files import write
from trainables.config import OBJECTIVE_CONFIGS
from trainables.errors import ConfigError
from trainables.views.draw import MIXING_STEPS, STEPS

EXPERIMENT = """\
name: mine
data:
  name: digits
teacher:
  model: {name: resnet20}
  training:
    epochs: 3
student: {name: resnet8, width: 4}
views:
  weak:
    recipe:
      - {op: crop_flip, padding: 1}
    views: 4
space: kd
"""

SPACE = """\
name: mine
objectives:
  kd:
    temperature: {uniform: [1, 8]}
    kd_weight: 2.0
  dkd:
    beta:
      choice: [1, 8]
search:
  algorithm: random
  points_to_evaluate: defaults
scheduler: {name: fifo}
"""


EVERY_OBJECTIVE = ", ".join(OBJECTIVE_CONFIGS)
EVERY_STEP = ", ".join(sorted({*STEPS, *MIXING_STEPS}))
EMPTY_SAFETENSORS = (2).to_bytes(8, "little") + b"{}"


@dataclass(frozen=True)
class Bad:
    """One change that spoils a good file, and what the message about it says."""

    replaced: str
    by: str
    line: int
    says: tuple[str, ...]


def bad(replaced: str, by: str, line: int, *says: str) -> Bad:
    return Bad(replaced, by, line, says)


BAD_EXPERIMENTS = {
    "misspelt key": bad("student:", "studnt:", 8, "studnt: unknown key", "did you mean 'student'?"),
    "misspelt nested key": bad(
        "padding: 1", "pading: 1", 12, "views.weak.recipe[0].pading: unknown key", "'padding'"
    ),
    "unknown network": bad(
        "name: resnet8", "name: ResNet80", 8, "student.name: found 'ResNet80'", "resnet8x4", "mean 'resnet8'"
    ),
    "unknown data set": bad(
        "digits", "digit", 3, "data.name: found 'digit'", "allowed: digits, fashion_mnist", "mean 'digits'"
    ),
    "unknown step": bad(
        "op: crop_flip",
        "op: cropflip",
        12,
        "views.weak.recipe[0].op: found 'cropflip'",
        f"allowed: {EVERY_STEP}",
        "mean 'crop_flip'",
    ),
    "bounds in the wrong order": bad(
        "op: crop_flip, padding: 1",
        "op: random_resized_crop, scale: [1, 0.5]",
        12,
        "views.weak.recipe[0].scale: found [1, 0.5]",
        "the lower bound comes first",
    ),
    "step without its name": bad(
        "op: crop_flip, ", "", 12, "views.weak.recipe[0].op: found nothing", EVERY_STEP
    ),
    "step that is no mapping": bad(
        "{op: crop_flip, padding: 1}", "crop_flip", 12, "recipe[0]: found 'crop_flip'", "mapping with `op`"
    ),
    "mapping in place of a list": bad(
        "- {op: crop_flip, padding: 1}", "op: crop_flip", 11, "views.weak.recipe: found", "allowed: a list"
    ),
    "number below its bound": bad(
        "epochs: 3", "epochs: 0", 7, "teacher.training.epochs: found 0", "a whole number, at least 1"
    ),
    "number above its bound": bad("views: 4", "views: 10000", 13, "found 10000", "at most 9999"),
    "number on an open bound": bad("epochs: 3", "lr: 0", 7, "training.lr: found 0", "a number, above 0"),
    "number in quotes": bad(
        "epochs: 3", "lr: '0.1'", 7, "training.lr: found '0.1'", "a number", "write it without quotes"
    ),
    "fraction of an epoch": bad("epochs: 3", "epochs: 2.5", 7, "found 2.5", "a whole number"),
    "word in place of a number": bad("epochs: 3", "epochs: many", 7, "found 'many'", "a whole number"),
    "infinity": bad("epochs: 3", "lr: .inf", 7, "training.lr: found Infinity", "a number"),
    "not a number": bad("epochs: 3", "lr: .nan", 7, "training.lr: found NaN", "a number"),
    "truth in place of a number": bad("epochs: 3", "lr: true", 7, "training.lr: found true", "a number"),
    "number in place of truth": bad(
        "epochs: 3", "nesterov: 1", 7, "training.nesterov: found 1", "true or false"
    ),
    "unknown optimiser": bad(
        "epochs: 3", "optimizer: adamV", 7, "optimizer: found 'adamV'", "sgd, adamw", "mean 'adamw'"
    ),
    "number in place of text": bad(
        "name: mine", "name: 2024", 1, "name: found 2024", "allowed: text", "put it in quotes"
    ),
    "name with a blank": bad("name: mine", "name: my own", 1, "name: found 'my own'", "text that matches"),
    "empty value": bad("{name: resnet8, width: 4}", "", 8, "student: found nothing", "name, factory"),
    "missing key": bad("data:\n  name: digits\n", "", 1, "data: found nothing", "a mapping", "name, factory"),
    "missing nested key": bad(
        "model: {name: resnet20}\n  training", "training", 4, "teacher: give a `model`, or `imported: true`"
    ),
    "text in place of a mapping": bad(
        "{name: resnet20}", "resnet20", 5, "teacher.model: found 'resnet20'", "mapping"
    ),
    "two sources": bad(
        "name: resnet20}", "name: resnet20, factory: a:b}", 5, "teacher.model: give exactly one", "`factory`"
    ),
    "factory without its function": bad(
        "name: resnet8, width: 4", "factory: mymodule", 8, "student.factory: found 'mymodule'", "matches"
    ),
    "data set without its folder": bad(
        "name: digits", "name: cifar10", 2, "data: ", "cifar10 needs `root`, the folder with its files"
    ),
    "folder that does not exist": bad(
        "name: digits", "name: cifar10\n  root: none", 4, "data.root: found 'none'", "an existing folder"
    ),
    "checkpoint that does not exist": bad(
        "  training:\n    epochs: 3",
        "  checkpoint: t.safetensors",
        6,
        "teacher.checkpoint: found 't.safetensors'",
        "an existing file",
    ),
    "list of too few values": bad(
        "{op: crop_flip, padding: 1}",
        "{op: cutout, fill: [1, 2]}",
        12,
        "recipe[0].fill: found [1, 2]",
        "3 values",
    ),
    "list of too many values": bad(
        "name: digits", "name: digits\n  mean: [1, 2, 3, 4, 5]", 4, "data.mean: found", "a list of 1 to 4"
    ),
    "argument that is no plain value": bad(
        "name: resnet8, width: 4",
        "factory: 'a:b', arguments: {depth: [1]}",
        8,
        "student.arguments.depth: found [1]",
        "true or false or a whole number or a number or text",
    ),
    "unknown figure in a constraint": bad(
        "space: kd", "space: kd\npick:\n  where: latncy_ms <= 2", 16, "pick.where: found", "mean 'latency_ms'"
    ),
    "constraint that is none": bad(
        "space: kd", "space: kd\npick: {where: small}", 15, "pick.where: found 'small'", "FIGURE <= NUMBER"
    ),
    "unknown shipped space": bad(
        "space: kd", "space: kdd", 14, "space: no shipped search space 'kdd'", "allowed: ", "mean"
    ),
    "space file that does not exist": bad(
        "space: kd", "space: my_space.yaml", 14, "space: found 'my_space.yaml'", "an existing file"
    ),
    "key given twice": bad("space: kd", "space: kd\nspace: dkd", 15, "space: given twice", "line 14"),
    "key that is no text": bad("views: 4", "4: views", 13, "found the key '4'; allowed: text"),
    "open bracket": bad("width: 4}", "width: 4", 9, "not YAML: "),
    "tab": bad("  name: digits", "\tname: digits", 3, "not YAML: found character '\\t'"),
    "tag that names code": bad(
        "name: digits",
        "name: !!python/object/apply:os.getcwd []",
        3,
        "python/object/apply:os.getcwd",
        "not allowed",
    ),
    "second document": bad("space: kd", "space: kd\n---\nname: other", 15, "another document"),
    "list at the top": bad(EXPERIMENT, "- name: mine\n", 1, "found a list", "`key: value` lines"),
    "text at the top": bad(EXPERIMENT, "mine\n", 1, "found 'mine'", "`key: value` lines"),
    "nothing but comments": bad(EXPERIMENT, "# soon\n", 1, "the file is empty", "stillhouse init"),
    "alias to nothing": bad("name: digits", "name: *digits", 3, "undefined alias 'digits'"),
    "alias that contains itself": bad("{name: resnet20}", "&m {name: *m}", 5, "contains itself"),
    "control character": bad("name: digits", "name: \x07", 3, "character #x0007 is not allowed"),
    "number beyond 64 bits": bad("epochs: 3", "epochs: 1" + 20 * "0", 7, "beyond 64 bits"),
    "deep nesting": bad(EXPERIMENT, 5000 * "[", 1, "nested deeper than 50 levels"),
}

BAD_SPACES = {
    "misspelt hyper-parameter": bad(
        "temperature:",
        "temprature:",
        4,
        "objectives.kd.temprature: unknown key",
        "allowed: temperature, ce_weight, kd_weight",
        "mean 'temperature'",
    ),
    "hyper-parameter of another objective": bad(
        "kd_weight: 2.0", "beta: 2.0", 5, "objectives.kd.beta: unknown key", "kd_weight"
    ),
    "unknown objective": bad(
        "  dkd:", "  dkdd:", 6, "objectives.dkdd: unknown key", EVERY_OBJECTIVE, "mean 'dkd'"
    ),
    "objective without a mapping": bad(
        "  dkd:\n    beta:\n      choice: [1, 8]", "  dkd:", 6, "objectives.dkd: found nothing", "alpha, beta"
    ),
    "unknown domain": bad(
        "uniform:",
        "unifrom:",
        4,
        "temperature.unifrom: found 'unifrom'",
        "uniform, quniform",
        "mean 'uniform'",
    ),
    "constant in a mapping": bad(
        "{uniform: [1, 8]}", "{constant: 4}", 4, "kd.temperature: found {", "a plain"
    ),
    "domain with two keys": bad(
        "{uniform: [1, 8]}",
        "{uniform: [1, 8], q: 1}",
        4,
        "kd.temperature: found",
        "one key of uniform, quniform",
    ),
    "bare list": bad("{uniform: [1, 8]}", "[1, 8]", 4, "found [1, 8]", "a plain value, or a mapping"),
    "empty hyper-parameter": bad("{uniform: [1, 8]}", "", 4, "kd.temperature: found nothing", "plain value"),
    "bounds the wrong way round": bad(
        "[1, 8]}", "[8, 1]}", 4, "uniform: found [8, 1]", "lower bound 8 must lie below the upper bound 1"
    ),
    "one bound": bad("[1, 8]}", "[1]}", 4, "temperature.uniform: found [1]", "a list of 2 values"),
    "three bounds": bad("[1, 8]}", "[1, 2, 8]}", 4, "found [1, 2, 8]", "a list of 2 values"),
    "bound that is no number": bad("[1, 8]}", "[one, 8]}", 4, "uniform[0]: found 'one'", "a number"),
    "logarithm of zero": bad("{uniform: [1, 8]}", "{loguniform: [0, 8]}", 4, "lower bound above 0"),
    "bound off its step": bad(
        "{uniform: [1, 8]}", "{quniform: [1, 8, 3]}", 4, "bound 1 must be a multiple of the step 3"
    ),
    "corner that the objective refuses": bad(
        "[1, 8]}",
        "[0, 8]}",
        4,
        "kd.temperature: found",
        "reaches 0.0, which temperature refuses",
        "greater than 0",
    ),
    "constant that the objective refuses": bad(
        "kd_weight: 2.0", "kd_weight: -1", 5, "kd.kd_weight: found -1; refused", "greater than or equal to 0"
    ),
    "real numbers for a whole one": bad(
        "scheduler:", "student:\n  width: {uniform: [4, 8]}\nscheduler:", 13, "student.width", "valid integer"
    ),
    "bell beyond a bound": bad("{uniform: [1, 8]}", "{normal: [4, 2]}", 4, "reaches -2.0", "refuses"),
    "bell without a width": bad("{uniform: [1, 8]}", "{randn: [4, 0]}", 4, "deviation 0 must be above 0"),
    "step of one": bad("{uniform: [1, 8]}", "{qrandint: [1, 8, 1]}", 4, "for 1 drop the q"),
    "empty choice": bad("choice: [1, 8]", "choice: []", 8, "beta.choice: found []", "a list of 1 to 1000"),
    "same choice twice": bad("choice: [1, 8]", "choice: [1, 1]", 8, "the list holds 1 twice"),
    "default outside": bad(
        "[1, 8]}",
        "[5, 8]}",
        4,
        "kd.temperature",
        "paper's default 4.0 lies outside",
        "points_to_evaluate to []",
    ),
    "default that is no choice": bad("choice: [1, 8]", "choice: [1, 2]", 7, "dkd.beta", "default 8.0 lies"),
    "grid_search in a random search": bad(
        "choice:",
        "grid_search:",
        7,
        "objectives.dkd.beta: found",
        "grid_search is for algorithm grid",
        "choice",
    ),
    "grid of a range": bad(
        "algorithm: random", "algorithm: grid", 4, "kd.temperature: found", "a grid cannot enumerate uniform"
    ),
    "bell with optuna": bad(
        SPACE.partition("scheduler")[0],
        "name: mine\nsearch: {algorithm: optuna}\nobjectives:\n  kd: {temperature: {normal: [4, 1]}}\n",
        4,
        "optuna does not draw from normal",
    ),
    "unknown algorithm": bad(
        "algorithm: random", "algorithm: randm", 10, "found 'randm'", "random, grid, optuna", "mean 'random'"
    ),
    "unknown word for the points": bad(
        "evaluate: defaults",
        "evaluate: default",
        11,
        "search.points_to_evaluate: found 'default'",
        "mean 'defaults'",
    ),
    "point with a misspelt parameter": bad(
        "evaluate: defaults",
        "evaluate:\n    - {objective: kd, temprature: 2}",
        12,
        "search.points_to_evaluate[0].temprature: found 2",
        "allowed: temperature",
    ),
    "point outside": bad(
        "evaluate: defaults",
        "evaluate: [{objective: kd, temperature: 9}]",
        11,
        "points_to_evaluate[0].temperature: found 9",
        "outside uniform [1.0, 8.0]",
    ),
    "point without its objective": bad(
        "evaluate: defaults",
        "evaluate: [{temperature: 2}]",
        11,
        "[0].objective: found nothing; allowed: kd, dkd",
    ),
    "unknown scheduler": bad(
        "name: fifo", "name: ahsa", 12, "scheduler.name: found 'ahsa'", "allowed: asha, fifo", "mean 'asha'"
    ),
    "scheduler without its name": bad("name: fifo", "grace_period: 2", 12, "scheduler.name: found nothing"),
    "reduction by one": bad(
        "name: fifo", "name: asha, reduction_factor: 1", 12, "reduction_factor: found 1", "at least 2"
    ),
    "nothing to search": bad(
        SPACE,
        "name: mine\nobjectives:\n  kd: {temperature: 4}\n",
        1,
        "nothing to search",
        "{uniform: [1, 8]}",
    ),
    "no objective": bad(
        SPACE, "name: mine\nobjectives: {}\n", 2, "objectives: give one or several of", EVERY_OBJECTIVE
    ),
}


@pytest.mark.parametrize("case", BAD_EXPERIMENTS.values(), ids=list(BAD_EXPERIMENTS))
def test_a_bad_experiment_gets_one_line_that_tells_where_and_what(case: Bad, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError) as caught:
        load_experiment(_spoilt(EXPERIMENT, case, path))
    _tells(str(caught.value), path, case)


@pytest.mark.parametrize("case", BAD_SPACES.values(), ids=list(BAD_SPACES))
def test_a_bad_space_gets_one_line_that_tells_where_and_what(case: Bad, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(ConfigError) as caught:
        load_space(_spoilt(SPACE, case, path))
    _tells(str(caught.value), path, case)


NASTY = (
    "", "~", "0", "-1", "1e400", ".nan", "true", "''", "[]", "{}", "[1]", "[[1]]", "{a: 1}", "{name: 1}",
    "{uniform: x}", "{choice: {a: 1}}", "{op: {}}", '"\\ud800"', "9223372036854775807", "{1: 2}", "!x 1",
)  # fmt: skip


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize("good", [EXPERIMENT, SPACE], ids=["experiment", "space"])
def test_whatever_stands_at_a_key_the_file_loads_or_one_line_names_it(
    good: str, nasty: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    lines = good.splitlines()
    n_refused = 0
    for index, line in enumerate(lines):
        spoilt = f"{line.partition(':')[0]}: {nasty}"
        deeper = " " * (len(line) - len(line.lstrip()) + 1)
        below = list(itertools.dropwhile(functools.partial(_starts, deeper), lines[index + 1 :]))
        path.write_text("\n".join([*lines[:index], spoilt, *below]))
        try:
            load_space(str(path)) if good is SPACE else load_experiment(str(path))
        except ConfigError as error:
            n_refused += 1
            assert str(error)
            for line in str(error).splitlines():
                assert re.fullmatch(re.escape(str(path)) + r":\d+: [^\n]+", line), (spoilt, str(error))
    assert n_refused > len(lines) / 2


def test_the_files_that_the_cases_spoil_are_good(tmp_path: Path) -> None:
    experiment, space = tmp_path / "experiment.yaml", tmp_path / "space.yaml"
    experiment.write_text(EXPERIMENT.replace("space: kd", "space: space.yaml"))
    space.write_text(SPACE)
    loaded = load_experiment(str(experiment))
    assert loaded.space == load_space(str(space))
    assert loaded.config.teacher.training.epochs == 3
    assert loaded.space_source == space


def test_every_problem_of_a_file_and_of_its_space_is_told_in_the_order_of_the_lines(tmp_path: Path) -> None:
    path, space = tmp_path / "mine.yaml", tmp_path / "space.yaml"
    spoilt = EXPERIMENT.replace("epochs: 3", "epochs: 0").replace("views: 4", "views: 0\n    veiws: 3")
    path.write_text(spoilt.replace("space: kd", "space: space.yaml"))
    space.write_text(SPACE.replace("name: mine", "nmae: mine"))
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(path))
    assert [problem.split(": found")[0].split(": unknown")[0] for problem in caught.value.problems] == [
        f"{path}:7: teacher.training.epochs",
        f"{path}:13: views.weak.views",
        f"{path}:14: views.weak.veiws",
        f"{space}:1: nmae",
    ]
    assert str(caught.value).splitlines() == list(caught.value.problems)
    again = copy.copy(caught.value)  # by what pickle uses too, when a worker sends an error
    assert (type(again), again.problems) == (ConfigError, caught.value.problems)


def test_every_combination_that_cannot_run_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    changed = EXPERIMENT.replace("space: kd", "space: cbd")
    path.write_text(changed + "cache: {precision: topk, top_k: 2}\ncluster: {workers_per_slot: 512}\n")
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(path))
    told = [problem.removeprefix(f"{path}:").split(": ")[1] for problem in caught.value.problems]
    assert told == ["student.cosine_head", "cluster.workers_per_slot"]


def test_keys_that_begin_with_x_are_free_for_anchors(tmp_path: Path) -> None:
    plain, anchored = tmp_path / "plain.yaml", tmp_path / "anchored.yaml"
    plain.write_text(EXPERIMENT)
    anchors = "x-note: !anything [what, ever]\nx-net: &net\n  x-inner: 1\n  name: resnet8\n"
    student = "student: {name: resnet8, width: 4}"
    assert student in EXPERIMENT
    anchored.write_text(anchors + EXPERIMENT.replace(student, "student: {<<: *net, width: 4}"))
    assert load_experiment(str(anchored)).config == load_experiment(str(plain)).config
    schema = file_schema(ExperimentConfig)
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors({**yaml.safe_load(EXPERIMENT), "x-net": {"name": 1}})) == []
    assert len(list(validator.iter_errors({**yaml.safe_load(EXPERIMENT), "y-net": {}}))) == 1


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        EXPERIMENT.replace("epochs: 3", "lr: 1e-3\n    weight_decay: 5E-4\n    batch_size: 1_024")
    )
    training = load_experiment(str(path)).config.teacher.training
    assert (training.lr, training.weight_decay, training.batch_size) == (1e-3, 5e-4, 1024)


def test_an_anchor_is_shared_and_a_merged_key_gives_way_to_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        EXPERIMENT.replace("weak:", "weak: &bank").replace(
            "space: kd", "  strong: {<<: *bank, views: 2}\nspace: kd"
        )
    )
    views = load_experiment(str(path)).config.views
    assert views.strong.recipe == views.weak.recipe
    assert (views.weak.views, views.strong.views) == (4, 2)


def test_paths_start_at_the_file_and_become_absolute(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "files").mkdir(parents=True)
    (folder / "t.safetensors").write_bytes(EMPTY_SAFETENSORS)
    path = folder / "mine.yaml"
    path.write_text(
        EXPERIMENT.replace("name: digits", "{name: cifar10, root: files}")
        .replace("  training:\n    epochs: 3", "  checkpoint: t.safetensors\n  normalisation: data")
        .replace("space: kd", "space: kd\ncache: {uri: ../cache}")
    )
    config = load_experiment(str(path)).config
    assert config.data.root == str(folder / "files")
    assert config.teacher.checkpoint == str(folder / "t.safetensors")
    assert config.cache.uri == str(tmp_path / "cache")


def test_a_location_with_a_scheme_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT + "cache: {uri: s3://bucket/cache}\n")
    assert load_experiment(str(path)).config.cache.uri == "s3://bucket/cache"


def test_what_another_machine_holds_need_not_be_here(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT.replace("name: digits", "{name: cifar10, root: /not/here}"))
    assert load_experiment(str(path), check_paths=False).config.data.root == "/not/here"


def test_overrides_of_the_command_line_win(tmp_path: Path) -> None:
    overrides = Overrides(space="crld", out=tmp_path, trials=3, where="params <= 10", finalists=7)
    loaded = load_experiment("digits", overrides=overrides)
    assert loaded.space.objective_names == ("crld",)
    assert (loaded.config.space, loaded.config.out, loaded.config.budget.trials) == ("crld", str(tmp_path), 3)
    assert loaded.config.pick.where == "params <= 10"
    assert (loaded.config.budget.finalists, loaded.config.budget.seeds) == (7, 12)


WITHOUT_TEACHER = ("digits_without_teacher", "methods_together")


@pytest.mark.parametrize("name", list(shipped(EXPERIMENTS_FOLDER)))
# cbd needs a student with a cosine head; test_objective_table holds its refusal.
@pytest.mark.parametrize("space", [space for space in shipped(SPACES_FOLDER) if "cbd" not in space])
def test_every_shipped_experiment_loads_with_every_shipped_space(name: str, space: str) -> None:
    # A grid may have more points than the budget of an experiment that was not made for it, and a comparison
    # of objectives more of these.
    found = load_space(space)
    count = len(found.objective_names) if found.search.each_objective else 32
    overrides = Overrides(space=space, trials=count, finalists=count)
    if name in WITHOUT_TEACHER and taught_objectives(found):
        with pytest.raises(ConfigError, match="found no section `teacher`"):
            load_experiment(name, overrides=overrides, check_paths=False)
        return
    loaded = load_experiment(name, overrides=overrides, check_paths=False)
    assert (loaded.config.name, loaded.space.name) == (name, space)


def test_the_comparison_of_methods_has_what_cbd_needs() -> None:
    overrides = Overrides(space="methods_cbd", trials=2, finalists=2)
    loaded = load_experiment("methods_fashion_mnist", overrides=overrides, check_paths=False)
    assert loaded.config.cache.embedding
    assert loaded.space.student.constants() == {"cosine_head": 64}


def test_a_grace_period_beyond_the_epochs_is_refused_at_its_line(tmp_path: Path) -> None:
    path = _with_space(tmp_path, SPACE.replace("name: fifo", "name: asha, grace_period: 30"))
    with pytest.raises(
        ConfigError, match=r"space.yaml:12: scheduler.grace_period: found 30; allowed: at most 20"
    ):
        load_experiment(str(path))


def test_a_grid_beyond_the_budget_is_refused(tmp_path: Path) -> None:
    grid = SPACE.replace("{uniform: [1, 8]}", "{grid_search: [1, 2, 4]}").replace("random", "grid")
    path = _with_space(tmp_path, grid)
    with pytest.raises(ConfigError, match=r"mine.yaml:1: budget.trials: found 4; the grid .* has 5 points"):
        load_experiment(str(path), overrides=Overrides(trials=4))


def test_an_override_that_the_student_cannot_take_is_refused(tmp_path: Path) -> None:
    path = _with_space(tmp_path, SPACE + "student: {width: {choice: [4, 8]}}\n")
    path.write_text(path.read_text().replace("{name: resnet8, width: 4}", "{factory: 'a:b'}"))
    with pytest.raises(ConfigError, match=r"space.yaml:13: student: width 4 does not fit .*`width` is for"):
        load_experiment(str(path))


@pytest.mark.parametrize(("workers", "fits"), [(1, True), (3, True), (4, False)])
def test_each_worker_of_a_slot_needs_two_samples_of_the_smallest_batch(
    workers: int, fits: bool, tmp_path: Path
) -> None:
    path = _with_space(tmp_path, SPACE + "training: {batch_size: {choice: [6, 64]}}\n")
    path.write_text(path.read_text() + f"cluster: {{workers_per_slot: {workers}}}\n")
    if fits:
        load_experiment(str(path))
    else:
        wanted = r"mine.yaml:15: cluster.workers_per_slot: found 4, which share batches of 6 .* at most 3"
        with pytest.raises(ConfigError, match=wanted):
            load_experiment(str(path))


def test_a_recipe_that_mixes_samples_is_refused_with_an_objective_that_needs_one_label(
    tmp_path: Path,
) -> None:
    path = _with_space(tmp_path, SPACE)
    mixed = "      - {op: crop_flip, padding: 1}\n      - {op: mixup, alpha: 0.2}\n"
    path.write_text(path.read_text().replace("      - {op: crop_flip, padding: 1}\n", mixed))
    wanted = (
        r"mine.yaml:13: views.weak.recipe\[1\].op: found 'mixup'; objective dkd of space mine .* one label"
    )
    with pytest.raises(ConfigError, match=wanted):
        load_experiment(str(path))
    kd_alone = SPACE.replace("  dkd:\n    beta:\n      choice: [1, 8]\n", "")
    (tmp_path / "space.yaml").write_text(kd_alone)
    assert load_experiment(str(path)).config.views.weak.mixes == "mixup"


@pytest.mark.parametrize(
    ("objectives", "refused"),
    [
        ("kd: {temperature: {uniform: [1, 8]}}", None),
        ("crld: {temperature: {uniform: [1, 8]}}", None),
        ("kd: {temperature: {uniform: [1, 8]}, standardise: true}", "kd"),
        ("kd: {temperature: {uniform: [1, 8]}, standardise: {choice: [false, true]}}", "kd"),
        ("{kd: {}, dkd: {beta: {choice: [1, 8]}}}", "dkd"),
        ("dist: {temperature: {uniform: [1, 8]}}", "dist"),
    ],
)
def test_a_top_k_cache_is_refused_with_an_objective_that_needs_every_class(
    objectives: str, refused: str | None, tmp_path: Path
) -> None:
    path = _with_space(tmp_path, f"name: mine\nobjectives:\n  {objectives}\n")
    path.write_text(path.read_text() + "cache:\n  precision: topk\n")
    if refused is None:
        assert load_experiment(str(path)).config.cache.top_k == 100
        return
    wanted = (
        rf"mine.yaml:16: cache.precision: found 'topk'; objective {refused} of space mine needs .* of every "
        "class; allowed: fp16, fp32, int8, or a space without it"
    )
    with pytest.raises(ConfigError, match=wanted):
        load_experiment(str(path))
    path.write_text(path.read_text().replace("topk", "int8"))
    load_experiment(str(path))


def test_the_longest_trial_counts_where_epochs_are_searched(tmp_path: Path) -> None:
    path = _with_space(tmp_path, SPACE + "training: {epochs: {randint: [5, 31]}}\n")
    loaded = load_experiment(str(path))
    assert max_epochs(loaded.config, loaded.space) == 30


def test_a_missing_file_a_folder_and_foreign_bytes_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: no such file"):
        load_experiment(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="is a folder"):
        load_experiment(str(tmp_path) + "/")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: mine\nspace: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin.yaml:2: byte 0xe9 is not UTF-8"):
        load_experiment(str(latin))


def test_aliases_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]" for i in range(1, 6)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="unfolds to more than 100000 values"):
        load_experiment(str(path))


def test_an_unknown_shipped_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no shipped experiment 'digit'; allowed: .*digits.*mean 'digits'"):
        load_experiment("digit")


def test_options_are_named_in_what_they_break() -> None:
    with pytest.raises(ConfigError, match=r"^--space: no shipped search space 'dk'.*did you mean 'dkd'"):
        load_experiment("digits", overrides=Overrides(space="dk"))
    with pytest.raises(ConfigError, match=r"^--where: unknown figure 'parms'.*did you mean 'params'"):
        load_experiment("digits", overrides=Overrides(where="parms <= 1"))


def _starts(prefix: str, line: str) -> bool:
    return line.startswith(prefix)


def _spoilt(good: str, case: Bad, path: Path) -> str:
    assert good.count(case.replaced) >= 1, case.replaced
    path.write_text(good.replace(case.replaced, case.by, 1))
    return str(path)


def _tells(message: str, path: Path, case: Bad) -> None:
    assert message.startswith(f"{path}:{case.line}: "), message
    assert "\n" not in message
    for part in case.says:
        assert part in message, message


def _with_space(folder: Path, space: str) -> Path:
    (folder / "space.yaml").write_text(space)
    path = folder / "mine.yaml"
    path.write_text(EXPERIMENT.replace("space: kd", "space: space.yaml"))
    return path


@pytest.mark.parametrize(
    ("name", "content", "allowed"),
    [
        ("teacher.safetensors", b"", "an intact safetensors file"),
        ("teacher.safetensors", b"not a checkpoint at all", "an intact safetensors file"),
        ("teacher.safetensors", EMPTY_SAFETENSORS + b"more", "an intact safetensors file"),
        ("teacher.safetensors", (9).to_bytes(8, "little") + b'{"a": []}', "an intact safetensors file"),
        ("teacher.pt", b"\x80\x04\x95 some pickle", "a file that torch.save wrote"),
        ("teacher.ckpt", b"x", "a file that ends in .safetensors, .pt, .pth"),
    ],
)
def test_an_unreadable_checkpoint_is_one_line_with_its_place(
    tmp_path: Path, name: str, content: bytes, allowed: str
) -> None:
    (tmp_path / name).write_bytes(content)
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT.replace("  training:\n    epochs: 3", f"  checkpoint: {name}"))
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(path))
    assert str(caught.value).startswith(f"{path}:6: teacher.checkpoint: found '{name}'; allowed: {allowed}")
    assert "\n" not in str(caught.value)


TOLD = {"normalisation": '{"mean": [0.5], "std": [0.25]}'}


@pytest.mark.parametrize(
    ("name", "metadata", "lines", "is_told"),
    [
        ("t.safetensors", {}, "", False),
        ("t.safetensors", {"normalisation": "as ever"}, "", False),
        ("t.safetensors", {"normalisation": '{"mean": [0.5], "std": [0]}'}, "", False),
        ("t.safetensors", TOLD, "", True),
        ("t.safetensors", {}, "\n  normalisation: data", True),
        ("t.safetensors", {}, "\n  normalisation: {mean: [0.5], std: [0.25]}", True),
    ],
)
def test_a_checkpoint_whose_normalisation_nobody_says_is_refused_with_the_line_to_write(
    tmp_path: Path, name: str, metadata: dict[str, str], lines: str, is_told: bool
) -> None:
    header = json.dumps({"__metadata__": metadata}).encode()
    (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header)
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT.replace("  training:\n    epochs: 3", f"  checkpoint: {name}{lines}"))
    if is_told:
        load_experiment(str(path))
        return
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(path))
    assert str(caught.value).startswith(f"{path}:6: teacher.checkpoint: it does not say how images were norm")
    assert "write it below `teacher`: `normalisation: {mean: [...], std: [...]}`" in str(caught.value)
    assert "or `normalisation: data`" in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("  normalisation: data", "`normalisation` is for weights that were trained elsewhere"),
        ("  output: logits", "`output` is for a `checkpoint` that is an ONNX file"),
        ("  checkpoint: t.onnx", "an ONNX file (`checkpoint`) holds its network: leave out `model`"),
        ("  classes: [a, b]", "`classes` is for weights that were trained elsewhere"),
        ("  checkpoint: t.pt\n  classes: [a, b, a]", "'a' stands there twice"),
        ("  pretrained: true", "`pretrained` is for a `model` by `factory` that brings its weights"),
        (
            "  expected_accuracy: 99.0",
            "expected_accuracy: found 99.0; allowed: a number, above 0 and at most 1",
        ),
        ("  checkpoint: t.pt\n  normalisation: {mean: [0.5], std: [0]}", "`std` must be above 0"),
        ("  checkpoint: t.pt\n  normalisation: measured", "teacher.normalisation: found 'measured'"),
    ],
)
def test_what_is_said_of_a_loaded_teacher_is_checked(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT.replace("  training:\n    epochs: 3", lines))
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(path), check_paths=False)
    assert message in str(caught.value)


def with_onnx(tmp_path: Path, more: str = "") -> Path:
    path = tmp_path / "mine.yaml"
    teacher = "teacher: {checkpoint: t.onnx, normalisation: data}\n"
    path.write_text(re.sub(r"teacher:\n(  .*\n)+", teacher, EXPERIMENT) + more)
    return path


def test_a_teacher_in_an_onnx_file_needs_no_model(tmp_path: Path) -> None:
    path = with_onnx(tmp_path)
    with pytest.raises(ConfigError, match=r"teacher\.checkpoint: found 't\.onnx'; allowed: an existing file"):
        load_experiment(str(path))
    write(tmp_path / "t.onnx")
    teacher = load_experiment(str(path)).config.teacher
    assert (teacher.is_onnx, teacher.model, teacher.source.model) == (True, None, None)


@pytest.mark.parametrize("key", ["embedding", "autocast"])
def test_what_only_a_network_of_pytorch_gives_is_not_asked_of_an_onnx_file(tmp_path: Path, key: str) -> None:
    path = with_onnx(tmp_path, f"cache: {{{key}: true}}\n")
    with pytest.raises(ConfigError, match=rf"cache\.{key}: found true; an ONNX file gives its logits alone"):
        load_experiment(str(path), check_paths=False)


def test_a_student_does_not_start_from_an_onnx_file(tmp_path: Path) -> None:
    write(tmp_path / "s.onnx")
    path = tmp_path / "mine.yaml"
    path.write_text(
        re.sub(r"student: (\{?)name: \w+", r"student: {name: mlp, checkpoint: s.onnx", EXPERIMENT)
    )
    with pytest.raises(ConfigError, match=r"allowed: a file that ends in \.safetensors, \.pt, \.pth"):
        load_experiment(str(path))


def test_a_students_checkpoint_starts_at_the_file_too_and_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        re.sub(r"student: (\{?)name: \w+", r"student: {name: mlp, checkpoint: s.safetensors", EXPERIMENT)
    )
    with pytest.raises(
        ConfigError, match=r"student\.checkpoint: found 's.safetensors'; allowed: an existing file"
    ):
        load_experiment(str(path))
    (tmp_path / "s.safetensors").write_bytes(EMPTY_SAFETENSORS)
    assert load_experiment(str(path)).config.student.checkpoint == str(tmp_path / "s.safetensors")


def test_a_search_over_other_students_cannot_start_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.safetensors").write_bytes(EMPTY_SAFETENSORS)
    (tmp_path / "widths.yaml").write_text(
        "name: widths\nobjectives: {kd: {temperature: {uniform: [1, 8]}}}\n"
        "student: {width: {choice: [4, 8]}}\n"
        "search: {algorithm: random}\nscheduler: {name: fifo}\n"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(
        re.sub(
            r"student: (\{?)name: \w+", r"student: {name: mlp, checkpoint: s.safetensors", EXPERIMENT
        ).replace("space: kd", "space: widths.yaml")
    )
    with pytest.raises(
        ConfigError, match=r"student\.checkpoint: found a file; space widths varies student\.width"
    ):
        load_experiment(str(path))
