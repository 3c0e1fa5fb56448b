"""Hyper-parameters of the objectives without a teacher."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainables.config.base import FiniteFloat
from trainables.config.objective_base import ObjectiveBase


class CeConfig(ObjectiveBase):
    """Cross-entropy with the labels alone: the control that every gain is measured against."""

    banks = ("weak",)
    teacher_banks = ()
    paper = "none (control)"

    name: Literal["ce"] = "ce"


class LsConfig(ObjectiveBase):
    """Label smoothing (Szegedy et al., CVPR 2016): part of each label is spread over all classes."""

    banks = ("weak",)
    teacher_banks = ()
    paper = "Szegedy et al., CVPR 2016, arXiv 1512.00567"

    name: Literal["ls"] = "ls"
    smoothing: FiniteFloat = Field(
        0.1, ge=0, le=1, description="part of a label that is spread over all classes"
    )
