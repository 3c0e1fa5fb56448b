"""The ranges of setup.cfg: from the lowest version that is tested up to the next major one."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]


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
