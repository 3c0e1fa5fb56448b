"""Numbers that every machine must agree on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from trainables.views import portable
from trainables.views.portable import SHARE_STEPS, beta_steps

UNITS = (np.arange(20_000) + 0.5) / 20_000

# The distribution function of Beta(a, a) in closed form.
CLOSED: dict[float, Callable[[float], float]] = {
    0.5: lambda x: 2 / math.pi * math.asin(math.sqrt(x)),
    1.0: lambda x: x,
    2.0: lambda x: x * x * (3 - 2 * x),
    3.0: lambda x: x**3 * (10 - 15 * x + 6 * x * x),
}


def test_powers_of_e_are_right_to_thirteen_digits() -> None:
    exponents = np.linspace(-3, 3, 1001)
    assert np.allclose(portable.exp(exponents), np.exp(exponents), rtol=1e-13, atol=0)
    assert portable.exp(np.zeros(1)).tolist() == [1.0]


def test_a_power_beyond_the_series_is_refused() -> None:
    with pytest.raises(ValueError, match=r"exponents from -3\.0 to 3\.0"):
        portable.exp(np.array([3.01]))


@pytest.mark.parametrize("value", [0.1, 0.75, 1.0, 4 / 3, 10.0])
def test_logarithms_are_right_to_the_last_digit(value: float) -> None:
    assert portable.ln(value) == pytest.approx(math.log(value), rel=1e-15, abs=0)


@pytest.mark.parametrize("alpha", CLOSED)
def test_shares_are_those_of_the_beta_distribution(alpha: float) -> None:
    steps = beta_steps(UNITS, alpha)
    for unit, step in zip(UNITS[::97].tolist(), steps[::97].tolist(), strict=True):
        low, high = max(step - 0.5, 0) / SHARE_STEPS, min(step + 0.5, SHARE_STEPS) / SHARE_STEPS
        assert CLOSED[alpha](low) - 1e-12 <= unit <= CLOSED[alpha](high) + 1e-12


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 32.0])
def test_shares_keep_mean_and_spread_over_all_allowed_alphas(alpha: float) -> None:
    shares = beta_steps(UNITS, alpha) / SHARE_STEPS
    assert shares.mean() == pytest.approx(0.5, abs=1e-9)  # symmetric to the last unit
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=2e-3)


def test_these_shares_never_change() -> None:
    """A promise to every cache of mixed images: if this fails, the version of the scheme must go up."""
    assert beta_steps(np.array([0.0, 0.2, 0.4, 0.6, 0.999]), 0.2).tolist() == [0, 8, 222, 802, 1024]
    edges = portable._beta_edges(0.2)[[0, 100, 511, 1023]]
    texts = ["0x1.d523290d941cep-4", "0x1.576374a27d874p-2", "0x1.ffd729706048fp-2", "0x1.c55b9ade4d7c6p-1"]
    assert edges.tolist() == [float.fromhex(text) for text in texts]
