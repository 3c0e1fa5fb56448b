"""Hyper-parameters that are not structural leave an objective's state and the features it asks for alone."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin

import pytest

from tests.numerics.random_signals import built, random_labels, random_logits, signals_of
from tests.unit.trainables.objective_variants import VARIANTS
from trainables.config import OBJECTIVE_CONFIGS, ObjectiveBase

SIGNALS: Final = signals_of(random_logits(1, 6, 5), random_logits(2, 6, 5), random_labels(3, 6, 5))
TEXTS: Final = {"stages": ("1,2,3", "2,3"), "hint": ("stage2", "embedding")}
"""Values of hyper-parameters that are texts."""
PEERS: Final = "peers"
"""How many networks there are is no part of an objective's own state, but of the course's: see its tests."""
Facts = tuple[dict[str, tuple[int, ...]], tuple[str, ...], tuple[str, ...]]


def facts(config: ObjectiveBase) -> Facts:
    """The shapes of its state, and what it asks of student and teacher."""
    state = built(config, SIGNALS).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    return shapes, config.student_features, config.teacher_features


def values(config: type[ObjectiveBase], name: str) -> list[Any]:
    """Two or more values of a hyper-parameter: all of a list; of numbers the least and a larger one too."""
    field = config.model_fields[name]
    kind: Any = field.annotation
    if kind is bool:
        return [False, True]
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [member.value for member in kind]
    if kind is str:
        return list(TEXTS[name])
    bounds = {
        key: getattr(mark, key) for mark in field.metadata for key in ("ge", "gt", "le") if hasattr(mark, key)
    }
    least = bounds["ge"] if "ge" in bounds else bounds["gt"] + 0.01
    most = bounds.get("le", field.default)
    return [kind(value) for value in (field.default, least, min(field.default + 1, most))]


def distinct(base: ObjectiveBase, name: str, *, zero: bool = True) -> list[Facts]:
    """The different facts of an objective at the values of one hyper-parameter."""
    found: list[Facts] = []
    for value in values(type(base), name):
        seen = facts(type(base).from_plain({**base.plain(), name: value})) if zero or value else None
        found += [] if seen is None or seen in found else [seen]
    return found


def fields() -> Iterator[tuple[str, str]]:
    """Each variant with each of its hyper-parameters of more than one value."""
    for variant, config in VARIANTS.items():
        for name in type(config).model_fields:
            if name not in ("name", PEERS):
                yield variant, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_hyper_parameters_that_are_not_structural_change_neither_state_nor_features(variant: str) -> None:
    config = VARIANTS[variant]
    changing = {
        name
        for of, name in fields()
        if of == variant
        and name not in config.structural
        and len(distinct(config, name, zero=name not in config.structural_at_zero)) > 1
    }
    assert not changing


@pytest.mark.parametrize("name", [name for name, config in OBJECTIVE_CONFIGS.items() if config.structural])
def test_each_structural_hyper_parameter_changes_one_of_them_with_some_variant(name: str) -> None:
    config = OBJECTIVE_CONFIGS[name]
    bases = [base for base in VARIANTS.values() if type(base) is config]
    for field in set(config.structural) - {PEERS}:
        assert any(len(distinct(base, field)) > 1 for base in bases), field


def test_weights_that_are_structural_at_zero_change_one_of_them_there() -> None:
    tried = 0
    for config in OBJECTIVE_CONFIGS.values():
        for field in config.structural_at_zero:
            assert len(distinct(config(), field)) == 2, field
            tried += 1
    assert tried == 3
