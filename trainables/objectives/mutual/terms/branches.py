"""Branches at the earlier stages of networks that are trained together, made of their own later stages."""

# B = samples in the batch, C = classes, D = numbers in an embedding, H, W = height and width of a map

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from torch import nn

from trainables.config.objective_base import EMBEDDING
from trainables.errors import TrialFailed
from trainables.objectives.mutual.networks import as_the_student
from trainables.signals import Setting, Signals, student_feature
from trainables.tensors import at_least_fp32

_STAGE: Final = re.compile(r"stage(\d+)")


def compared_stages(shapes: Sequence[Mapping[str, tuple[int, ...]]]) -> list[tuple[str, ...]]:
    """The stages at which networks get branches, the earliest first: of each its name in each network.

    The last stage is the network itself. Where networks have not equally many, those of equal distance from
    the last one stand together, and what some networks have besides at the front gets no branch.

    Raises:
        TrialFailed: a network has one stage, or none.
    """
    stages = [stages_of(own) for own in shapes]
    for number, own in enumerate(stages):
        if len(own) < 2:
            whose = "the student" if number == 0 else f"peer {number}"
            raise TrialFailed(
                f"{whose} has {len(own)} stages, and branches stand at the stages before the last; choose a "
                "network of two stages or more, or set `layers: false`"
            )
    fewest = min(len(own) for own in stages)
    return list(zip(*(own[-fewest:-1] for own in stages), strict=True))


def branches_for(setting: Setting, stages: Sequence[tuple[str, ...]]) -> nn.ModuleList:
    """For each of `compared_stages` a list of modules, one for each network, with fresh weights.

    Raises:
        ValueError: the setting does not say how they are made.
    """
    make = setting.later_stages
    if not stages:
        return nn.ModuleList()
    if make is None:
        raise ValueError("branches are made of a network's later stages; give the setting `later_stages`")
    return nn.ModuleList(
        nn.ModuleList(make(stage, number) for number, stage in enumerate(names)) for names in stages
    )


def seen_at_branches(
    branches: nn.Module,
    networks: Sequence[Signals],
    names: Sequence[str],
    setting: Setting,
) -> list[Signals]:
    """The signals of each network as its branch answers: logits and embedding, fp32 and with gradient.

    `names` are the stages.
    """
    seen = []
    for branch, network, name in zip(branches.children(), networks, names, strict=True):
        map_BCHW = student_feature(network, "weak", name)
        with as_the_student(setting, map_BCHW.device):
            logits_BC, features = branch(map_BCHW)
        held = {"weak": {EMBEDDING: at_least_fp32(features[EMBEDDING])}}
        seen.append(replace(network, student={"weak": at_least_fp32(logits_BC)}, features=held))
    return seen


def stages_of(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The names of a network's stages among those of its features, the earliest first."""
    found = {int(match[1]): name for name in shapes if (match := _STAGE.fullmatch(name))}
    return [found[number] for number in sorted(found)]
