"""The recorded figures by which a champion may be chosen; those of the test split are none of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

ACCURACY: Final = "selection_accuracy"
"""The mean, over the seeds of a finalist, of the figure that ranks, as the table shows it; a fraction."""


@dataclass(frozen=True)
class Figure:
    """One figure of a finalist."""

    meaning: str
    unit: str = ""
    """As it may stand behind a number; `%` is allowed where the figure is a fraction."""
    higher_is_better: bool = False
    is_of_costs: bool = False
    """Whether it is known of a student before that is trained with several seeds."""
    is_fraction: bool = False
    """Whether it lies between 0 and 1."""

    @property
    def units(self) -> tuple[str, ...]:
        """What may stand behind a number that it is compared with."""
        return tuple(unit for unit in (self.unit, "%" if self.is_fraction else "") if unit)


FIGURES: Final[Mapping[str, Figure]] = MappingProxyType(
    {
        "params": Figure("parameters of the network", is_of_costs=True),
        "size_bytes": Figure("of the safetensors file", unit="bytes", is_of_costs=True),
        "latency_ms": Figure("median, one image at a time", unit="ms", is_of_costs=True),
        "latency_p95_ms": Figure("its 95th percentile", unit="ms", is_of_costs=True),
        ACCURACY: Figure("mean over the seeds", higher_is_better=True, is_fraction=True),
        "selection_std": Figure("its standard deviation over the seeds", is_fraction=True),
        "selection_nll": Figure("negative log-likelihood in nats, mean over the seeds"),
        "selection_ece": Figure("calibration error, mean over the seeds", is_fraction=True),
        "selection_agreement": Figure(
            "share of the images with the teacher's class, mean over the seeds",
            higher_is_better=True,
            is_fraction=True,
        ),
        "selection_kl_to_teacher": Figure("KL(teacher || student) in nats, mean over the seeds"),
        "selection_gain": Figure("gain in selection_accuracy over its control", higher_is_better=True),
        "selection_gain_low": Figure("lower end of its 95 % interval", higher_is_better=True),
        "seconds": Figure("of a training, mean over the seeds", unit="s"),
        "epochs": Figure("of a training"),
        "compute_over_ce": Figure("operations of an epoch over those of cross-entropy"),
    }
)
ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "accuracy": ACCURACY,
        "nll": "selection_nll",
        "ece": "selection_ece",
        "agreement": "selection_agreement",
        "kl_to_teacher": "selection_kl_to_teacher",
        "gain": "selection_gain",
        "gain_low": "selection_gain_low",
    }
)
_OF_TEST: Final = frozenset({"gain_over_control", "gain_same_compute", "answered_classes"})
"""What is recorded of the test split without having it in its name."""


def figure_named(name: str) -> str:
    """The full name of a figure by which students may be chosen.

    Raises:
        ValueError: there is no such figure, or it is one of the test split.
    """
    full = ALIASES.get(name, name)
    if full in FIGURES:
        return full
    known = ", ".join(FIGURES)
    if name.startswith("test") or name in _OF_TEST:
        own = "gain" if name.startswith("gain") else name.removeprefix("test").lstrip("_")
        instead = ALIASES.get(own, f"selection_{own}")
        use = instead if instead in FIGURES else ACCURACY
        raise ValueError(
            f"{name!r} is a figure of the test split, which chooses nobody: a student that was chosen by it "
            f"looks better than it is; use {use}"
        )
    near = difflib.get_close_matches(name, (*FIGURES, *ALIASES), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown figure {name!r}; known: {known}{hint}")


def figures_named(text: str) -> tuple[str, ...]:
    """The full names of two or more figures, separated by commas.

    Raises:
        ValueError: as `figure_named`; or there are fewer than two different ones.
    """
    names = tuple(dict.fromkeys(figure_named(name.strip()) for name in text.split(",") if name.strip()))
    if len(names) < 2:
        raise ValueError(f"{text!r}: a front needs two figures or more, as accuracy,latency_ms")
    return names


def cost_of(name: str, value: float) -> float:
    """The value as something of which less is better."""
    return -value if FIGURES[name].higher_is_better else value
