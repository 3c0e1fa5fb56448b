"""Networks beside the student: what the file and the space say, and what does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import LoadedExperiment, load_experiment
from orchestrator.config.peers import every_peer, groups_of_peers, networks_in, peers_as_known
from orchestrator.search.trial_specs import Composer, repeat_specs
from trainables.config import ModelConfig, ModelName, TrialSpec, WorkbenchSpec
from trainables.errors import ConfigError

EXPERIMENT = """\
name: mine
data: {name: digits}
teacher: {model: {name: resnet20}}
student: {name: convnet, width: 4}
views:
  weak:
    views: 2
    recipe: [{op: crop_flip}]
space: space.yaml
"""
ONE_LIST = "peers: [{name: resnet8, width: 4}, {name: convnet, width: 8}]\n"
LISTS = "peers: {wide: [{name: convnet, width: 8}], many: [{name: resnet8}, {name: vgg8}, {name: convnet}]}\n"


def loaded(folder: Path, objectives: str, more: str = "") -> LoadedExperiment:
    (folder / "space.yaml").write_text(f"name: together\nobjectives:\n  {objectives}\n")
    path = folder / "mine.yaml"
    path.write_text(EXPERIMENT.replace("space.yaml", str(folder / "space.yaml")) + more)
    return load_experiment(str(path))


def trial(experiment: LoadedExperiment, **values: object) -> TrialSpec:
    return composed(experiment, {"objective": "dml", "dml": values})


def composed(experiment: LoadedExperiment, sample: dict[str, object]) -> TrialSpec:
    config = experiment.config
    workbench = WorkbenchSpec(
        data=config.data,
        views=config.views,
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints="students",
    )
    return Composer(config, experiment.space, workbench, "s" * 64)(sample).job.trial


def of_convnet(width: int) -> ModelConfig:
    return ModelConfig(name=ModelName.CONVNET, width=width)


@pytest.mark.parametrize(
    ("more", "count", "widths"),
    [("", 2, [4]), ("peers: 4\n", 4, [4, 4, 4]), (ONE_LIST, 3, [4, 8])],
    ids=["nothing said", "a number", "a list"],
)
def test_the_file_says_which_networks_learn_together(
    tmp_path: Path, more: str, count: int, widths: list[int]
) -> None:
    found = trial(loaded(tmp_path, "dml: {kl_weight: {uniform: [0.5, 2]}}", more), kl_weight=1.0)
    assert found.objective.plain()["peers"] == count
    assert [peer.width for peer in found.peers] == widths


def test_the_space_may_choose_how_many_and_which(tmp_path: Path) -> None:
    experiment = loaded(tmp_path, "dml: {peers: {choice: [2, 3, wide, many]}}", LISTS)
    by_choice = {choice: trial(experiment, peers=choice) for choice in (2, 3, "wide", "many")}
    assert by_choice[3].peers == (of_convnet(4),) * 2
    assert by_choice["wide"].peers == (of_convnet(8),)
    assert [peer.name for peer in by_choice["many"].peers] == ["resnet8", "vgg8", "convnet"]
    assert len({spec.trial_id for spec in by_choice.values()}) == 4
    again = repeat_specs(by_choice["many"], experiment.config)
    assert all(spec.peers == by_choice["many"].peers for spec in again)


def test_the_number_of_the_space_counts_before_that_of_the_file(tmp_path: Path) -> None:
    experiment = loaded(tmp_path, "dml: {peers: 3, kl_weight: {uniform: [0.5, 2]}}", "peers: 5\n")
    assert len(trial(experiment, kl_weight=1.0).peers) == 2


def test_copies_have_the_shape_of_the_trials_own_student(tmp_path: Path) -> None:
    experiment = loaded(tmp_path, "dml: {}\nstudent: {width: {choice: [2, 6]}}")
    assert composed(experiment, {"student": {"width": 6}}).peers == (of_convnet(6),)


def test_another_list_is_another_trial(tmp_path: Path) -> None:
    space = "dml: {kl_weight: {uniform: [0.5, 2]}}"
    one = trial(loaded(tmp_path, space, ONE_LIST), kl_weight=1.0)
    other = trial(loaded(tmp_path, space, ONE_LIST.replace("resnet8", "vgg8")), kl_weight=1.0)
    assert one.trial_id != other.trial_id
    assert one.seed != other.seed


@pytest.mark.parametrize(
    ("objectives", "more", "problem"),
    [
        (
            "kd: {temperature: {uniform: [1, 4]}}",
            "peers: 2\n",
            "mine.yaml:10: peers: found some; no objective of",
        ),
        (
            "dml: {kl_weight: {uniform: [0.5, 2]}}",
            LISTS,
            r"space.yaml:3: objectives.dml: .* must choose one of",
        ),
        ("dml: {peers: {choice: [2, odd]}}", LISTS, r"found 'odd'; .* among its `peers`; known: wide, many"),
        ("dml: {peers: {choice: [2, odd]}}", "", "give it there: `peers: {NAME:"),
        (
            "dml: {peers: {choice: [2, 3]}}",
            ONE_LIST,
            r"mine.yaml:10: peers: found a list without a name, and space together gives dml .* name it, "
            r"`peers: {NAME: \[...\]}`, and let .* `objectives: {dml: {peers: {choice: \[2, 3, NAME\]}}}`",
        ),
        ("dml: {peers: 3}\n  mfef: {peers: 2}", ONE_LIST, "gives dml, mfef a `peers` that counts before it"),
        (
            "dml: {peers: {choice: [2, wide]}}",
            LISTS,
            r"mine.yaml:10: peers.many: found a list that no objective of space together can choose: let .* "
            r"{choice: \[2, wide, many\]}",
        ),
        ("dml: {peers: {choice: [1, 2]}}", "", "objectives.dml.peers.*reaches 1, which peers refuses"),
        ("dml: {peers: {choice: [2, 99]}}", "", "reaches 99, which peers refuses"),
        ("dml: {kl_weight: {uniform: [0.5, 2]}}", "peers: 1\n", "mine.yaml:10: peers"),
        ("dml: {kl_weight: {uniform: [0.5, 2]}}", "peers: []\n", "mine.yaml:10: peers"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_stands(
    tmp_path: Path, objectives: str, more: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        loaded(tmp_path, objectives, more)


def test_listed_networks_are_known_for_what_they_are(tmp_path: Path) -> None:
    space = "dml: {peers: {choice: [2, wide, many]}}"
    several = loaded(tmp_path, space, LISTS)
    assert [peer.name for peer in networks_in(several.config.peers)] == [
        "convnet",
        "resnet8",
        "vgg8",
        "convnet",
    ]
    roles = [role for role, _, _ in every_peer(several.config.peers, several.space)]
    assert roles == ["peer 1 of wide", "peer 1 of many", "peer 2 of many", "peer 3 of many"]
    assert set(peers_as_known(several.config.peers)) == {"wide", "many"}
    assert peers_as_known(3) == 3
    assert networks_in(3) == ()


def test_each_listed_network_is_told_with_the_objectives_that_may_train_it(tmp_path: Path) -> None:
    space = "dml: {peers: {choice: [2, wide]}}\n  mfef: {peers: many}\n  kd: {}"
    several = loaded(tmp_path, space, LISTS)
    by_role = {role: askers for role, _, askers in every_peer(several.config.peers, several.space)}
    assert by_role["peer 1 of wide"] == ("dml",)
    assert by_role["peer 3 of many"] == ("mfef",)
    student, peers = of_convnet(4), several.config.peers
    beside = {name: groups_of_peers(peers, several.space, name, student) for name in ("dml", "mfef", "kd")}
    assert beside["dml"] == [("", (student,)), (" with its peers wide", (of_convnet(8),))]
    assert [(words, len(networks)) for words, networks in beside["mfef"]] == [(" with its peers many", 3)]
    assert beside["kd"] == [("", ())]
    one = loaded(tmp_path, "dml: {}\n  mfef: {peers: 2}", ONE_LIST)
    assert [(role, askers) for role, _, askers in every_peer(one.config.peers, one.space)] == [
        ("peer 1", ("dml",)),
        ("peer 2", ("dml",)),
    ]
    (words, networks), *more = groups_of_peers(one.config.peers, one.space, "dml", student)
    assert (words, networks, more) == (" with its peers", one.config.peers, [])
    assert groups_of_peers(one.config.peers, one.space, "mfef", student) == [("", (student,))]
    chosen = one.space.with_overrides(objectives={"mfef": {"peers": {"choice": [2, 3]}}})
    assert [*every_peer(one.config.peers, chosen)] == []


def test_a_factory_among_the_peers_is_code_of_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef build(n_classes, in_channels):\n    return nn.Linear(1, n_classes)\n"
    )
    more = 'peers: [{factory: "nets:build"}]\n'
    found = loaded(tmp_path, "dml: {kl_weight: {uniform: [0.5, 2]}}", more)
    assert found.config.factories == ("nets:build",)
    assert "nets:build" in found.code
