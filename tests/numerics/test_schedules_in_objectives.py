"""Every objective with a teacher: weights that warm up, and temperatures that change, in an epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from tests.numerics import random_signals
from tests.numerics.feature_stand_ins import features_of
from tests.numerics.reference import all_views, logits
from trainables.config import OBJECTIVE_CONFIGS, ObjectiveBase
from trainables.signals import Losses, Signals

WARMED: Final = tuple(name for name, config in OBJECTIVE_CONFIGS.items() if config.teacher_weights)
TEMPERED: Final = tuple(
    name for name, config in OBJECTIVE_CONFIGS.items() if "final_temperature" in config.model_fields
)
# CRLD's gates are closed on the worked numbers at its own threshold.
OPEN: Final[dict[str, dict[str, float]]] = {"crld": {"weak_threshold": 0.3, "strong_threshold": 0.1}}


def config_of(name: str) -> ObjectiveBase:
    return OBJECTIVE_CONFIGS[name]().with_overrides(warmup_epochs=1, **OPEN.get(name, {}))


def losses_of(config: ObjectiveBase, signals: Signals) -> Losses:
    return random_signals.losses_of(config, signals, epochs=5)


def terms_of(losses: Losses) -> dict[str, float]:
    return {name: term.item() for name, term in losses.terms.items()}


@pytest.mark.parametrize(("epoch", "share"), [(1, 0.25), (3, 0.75), (4, 1.0), (5, 1.0)])
@pytest.mark.parametrize("name", WARMED)
def test_a_warm_up_scales_all_that_the_teacher_says_and_nothing_else(
    name: str, epoch: int, share: float
) -> None:
    signals, full = all_views(epoch=epoch), config_of(name)
    none = full.with_overrides(**dict.fromkeys(full.teacher_weights, 0.0))
    alone, whole = losses_of(none, signals).total.item(), losses_of(full, signals).total.item()
    warm = losses_of(full.with_overrides(warmup_epochs=4), signals)
    assert abs(whole - alone) > 1e-3
    assert warm.total.item() == pytest.approx(alone + share * (whole - alone), rel=1e-9)
    assert terms_of(warm) == terms_of(losses_of(full, signals))  # as they are before their weights


@pytest.mark.parametrize("name", WARMED)
def test_without_its_weights_the_teacher_is_not_heard(name: str) -> None:
    full = config_of(name)
    none = full.with_overrides(**dict.fromkeys(full.teacher_weights, 0.0))
    signals, other_BC = all_views(), logits([[0.0, 5.0, 1.0, 2.0], [7.0, 0.0, 0.0, 1.0], [0.0] * 4])
    teacher = {
        bank: replace(signal, logits_BC=other_BC, features=features_of(other_BC))
        for bank, signal in signals.teacher.items()
    }
    other = replace(signals, teacher=teacher)
    assert losses_of(none, signals).total.item() == losses_of(none, other).total.item()
    assert losses_of(full, signals).total.item() != losses_of(full, other).total.item()


@pytest.mark.parametrize(("epoch", "temperature"), [(1, 4.0), (3, 3.0), (5, 2.0)])
@pytest.mark.parametrize("name", TEMPERED)
def test_a_temperature_that_changes_is_that_of_its_epoch(name: str, epoch: int, temperature: float) -> None:
    signals, config = all_views(epoch=epoch, epochs=5), config_of(name).with_overrides(temperature=4.0)
    changing = losses_of(config.with_overrides(final_temperature=2.0), signals)
    constant = losses_of(config.with_overrides(temperature=temperature), signals)
    assert changing.total.item() == constant.total.item()
    assert terms_of(changing) == terms_of(constant)
    assert (terms_of(changing) == terms_of(losses_of(config, signals))) == (epoch == 1)


@pytest.mark.parametrize("base", ["dkd", "dist", "mlld"])
def test_a_temperature_that_changes_reaches_the_loss_that_crld_compares_by(base: str) -> None:
    signals = all_views(epoch=3, epochs=5)
    config = config_of("crld").with_overrides(base=base)
    changing = losses_of(config.with_overrides(final_temperature=2.0), signals)
    constant = losses_of(config.with_overrides(temperature=3.0), signals)
    assert changing.total.item() == constant.total.item()
    assert changing.total.item() != losses_of(config, signals).total.item()


def test_signals_that_do_not_say_how_long_the_course_is_are_refused() -> None:
    config = config_of("kd").with_overrides(final_temperature=2.0)
    with pytest.raises(ValueError, match="needs the epochs of the course"):
        losses_of(config, all_views(epoch=1))
