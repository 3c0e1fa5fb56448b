"""The ranges of setup.cfg: from the lowest version that is tested up to the next major one."""

from __future__ import annotations

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.unit.no_ray import environment_without

REPOSITORY = Path(__file__).parents[2]
EXTRAS = ("timm", "transformers", "datasets", "webdataset")
WITHOUT_EXTRAS = """
import orchestrator.pipeline.run, orchestrator.cache_tools.plan, trainables.slots.worker
from trainables.config import DataConfig, ModelConfig
from trainables.data import load_training
from trainables.errors import ConfigError
from trainables.models import build_model

data = load_training(DataConfig.from_plain({"name": "digits"}))
build_model(ModelConfig.from_plain({"name": "resnet8"}), n_classes=len(data.classes), in_channels=1)
for name in ("timm", "transformers"):
    try:
        build_model(ModelConfig(name=name, variant="resnet18"), n_classes=9, in_channels=3)
    except ConfigError as error:
        print(error)
"""


def requirements() -> list[Requirement]:
    settings = ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    return [Requirement(line) for line in settings["options"]["install_requires"].split("\n") if line]


def pins(file: str) -> dict[str, Version]:
    lines = (REPOSITORY / file).read_text().splitlines()
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {canonicalize_name(name): Version(version.partition(" ")[0]) for name, _, version in pairs}


@pytest.mark.parametrize("needed", requirements(), ids=lambda needed: needed.name)
def test_a_range_goes_from_the_lowest_tested_version_to_the_next_major_one(needed: Requirement) -> None:
    name = canonicalize_name(needed.name)
    lowest, newest = pins("constraints-oldest.txt")[name], pins("constraints.txt")[name]
    bounds = {bound.operator: Version(bound.version) for bound in needed.specifier}
    assert bounds == {">=": lowest, "<": Version(str(newest.major + 1))}


def test_extras_are_of_what_is_imported_only_where_used(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS],
        env=environment_without(tmp_path, EXTRAS),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    timm, transformers = done.stdout.splitlines()
    assert "pip install 'stillhouse[timm]'" in timm
    assert "pip install 'stillhouse[transformers]'" in transformers


def test_the_extras_are_those_that_documents_name() -> None:
    settings = ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    assert {*EXTRAS, "test", "dev"} == set(settings["options.extras_require"])
    needed = {canonicalize_name(requirement.name) for requirement in requirements()}
    assert not needed & set(EXTRAS)
