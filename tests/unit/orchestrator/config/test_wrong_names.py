"""Keys that a mapping of free names does not take: told as unknown, with those that it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.loading import load_experiment
from trainables.errors import ConfigError

EXPERIMENT = """\
name: mine
data: {name: digits}
teacher: {model: {name: convnet}}
student:
  name: resnet20
  features:
    stage1: layer1
    WRONG: layer2
views: {weak: {views: 1, recipe: []}}
space: kd
"""


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("stag2", "stage2"), ("stage2_pre", "stage2.pre"), ("embeding", "embedding"), ("Tokens", "tokens")],
)
def test_a_feature_of_no_such_name_is_told_with_the_names_there_are(
    tmp_path: Path, wrong: str, meant: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT.replace("WRONG", wrong))
    with pytest.raises(ConfigError) as refused:
        load_experiment(str(path))
    assert str(refused.value) == (
        f"{path}:8: student.features.{wrong}: unknown key; allowed: stem, stage1 and so on, stage1.pre and "
        "so on, last, embedding, first_conv, tokens, class_logits, distillation_logits; "
        f"did you mean {meant!r}?"
    )


def test_a_feature_whose_part_is_no_text_is_told_by_its_value(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(EXPERIMENT.replace("WRONG: layer2", "stage2: [layer2]"))
    with pytest.raises(
        ConfigError, match=r":8: student\.features\.stage2: found \[\"layer2\"\]; allowed: text"
    ):
        load_experiment(str(path))
