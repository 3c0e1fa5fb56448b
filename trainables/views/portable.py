"""Functions whose values are the same on every machine, to the last bit.

numpy's own `exp` and `log` come from libraries that differ in the last bit from one processor to the next.
What is used here does not: sums, products and quotients of doubles, one operation at a time, are exact up to
a rounding that IEEE 754 prescribes, and `ln` and `exp` of Python's `decimal` up to one that it prescribes.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

# B = samples, Q = steps in which a share is counted

SHARE_BITS: Final = 10
SHARE_STEPS: Final = 1 << SHARE_BITS
"""A share of an image is a whole number of 1024ths: four for each level."""
EXP_TERMS: Final = 32
LARGEST_EXPONENT: Final = 3.0
_DECIMAL: Final = Context(prec=24)


def exp(exponents_B: NDArray[np.float64]) -> NDArray[np.float64]:
    """e to the power of numbers from -3 to 3, to about 13 digits.

    Raises:
        ValueError: a number is outside that range, where the series would need more terms.
    """
    if len(exponents_B) and float(np.abs(exponents_B).max()) > LARGEST_EXPONENT:
        raise ValueError(f"exponents from -{LARGEST_EXPONENT} to {LARGEST_EXPONENT} are allowed")
    series_B = np.ones_like(exponents_B)
    for n in range(EXP_TERMS, 0, -1):
        series_B = series_B * exponents_B / n + 1.0
    return series_B


def ln(value: float) -> float:
    """The natural logarithm of a positive number."""
    return float(_DECIMAL.ln(Decimal(value)))


def beta_steps(units_B: NDArray[np.float64], alpha: float) -> NDArray[np.int64]:
    """Beta(alpha, alpha) from uniform numbers in [0, 1), in whole steps, 0 .. SHARE_STEPS.

    It is the inverse of the distribution function, rounded: q steps where u lies between the function at
    (q - 1/2) and at (q + 1/2) steps.
    """
    return np.searchsorted(_beta_edges(alpha), units_B, side="right").astype(np.int64)


@lru_cache(maxsize=32)
def _beta_edges(alpha: float) -> NDArray[np.float64]:
    """The distribution function of Beta(a, a) at (q + 1/2) / SHARE_STEPS, q = 0 .. SHARE_STEPS - 1.

    I_x(a, a) = x^a (1 - x)^a · S(x) / (a B(a, a)) with S(x) = Σ_n x^n Π_{m<n} (2a + m) / (a + 1 + m), all
    terms positive (DLMF 8.17.8). What does not depend on x follows from I_{1/2} = 1/2, and the upper half
    from I_{1-x} = 1 - I_x.
    """
    x_Q = (np.arange(SHARE_STEPS // 2) + 0.5) / SHARE_STEPS
    values_Q = _powers(x_Q * (1.0 - x_Q), alpha) * _series(x_Q, alpha)
    half = np.array([0.5])
    middle = _powers(half * half, alpha) * _series(half, alpha)
    lower_Q = values_Q / middle * 0.5
    return np.concatenate([lower_Q, (1.0 - lower_Q)[::-1]])


def _series(x_Q: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    term_Q, sum_Q = np.ones_like(x_Q), np.ones_like(x_Q)
    # x is 1/2 at most, so that a term is at last half of the one before; large alphas begin with growth.
    for n in range(64 + 8 * math.ceil(alpha)):
        term_Q = term_Q * x_Q * (2.0 * alpha + n) / (alpha + 1.0 + n)
        sum_Q = sum_Q + term_Q
    return sum_Q


def _powers(bases_Q: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    exponent = Decimal(alpha)
    logs = (_DECIMAL.ln(Decimal(base)) for base in bases_Q.tolist())
    return np.array([float(_DECIMAL.exp(_DECIMAL.multiply(exponent, log))) for log in logs])
