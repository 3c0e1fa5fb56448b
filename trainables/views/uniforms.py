"""Uniform numbers by address: a hash of (recipe, seed, view, sample id, step, field), and no state.

The scheme is a promise, since caches written with it must be read back view for view:

1. key = the first 64 bits of the sha256 of the canonical JSON of scheme version, recipe (without the quarter
   turns at its end), seed and view;
2. state(id) = mix(key + (id + 1) · γ), mod 2⁶⁴: each sample id has a SplitMix64 stream of its own;
3. word(id, n) = mix(state(id) + (n + 1) · γ): the n-th output of that stream, with
   n = FIELDS_PER_STEP · (step's place in the recipe) + (field within the step);
4. the number is the upper 53 bits of the word, times 2⁻⁵³: in [0, 1).

mix and γ are the finaliser and the increment of SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014). It is all integer arithmetic: every machine agrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.config.base import Config, digest_of
from trainables.seeds import GOLDEN, mix

# B = samples

SCHEME_VERSION = 1
FIELDS_PER_STEP = 64


def view_key(recipe: Sequence[Config], *, seed: int, view: int) -> int:
    """The 64 bits that set the draws of one view apart from those of every other."""
    identity = {
        "scheme": SCHEME_VERSION,
        "recipe": [step.plain() for step in recipe],
        "seed": seed,
        "view": view,
    }
    return int(digest_of(identity)[:16], 16)


@dataclass(frozen=True)
class Uniforms:
    """The uniform numbers of one step of a recipe, for each sample."""

    state_B: NDArray[np.uint64]
    step: int

    @classmethod
    def of(cls, key: int, sample_ids_B: NDArray[np.int64]) -> Uniforms:
        """The numbers of the first step, for these samples."""
        ids_B = sample_ids_B.astype(np.uint64)
        return cls(mix(np.uint64(key) + (ids_B + np.uint64(1)) * GOLDEN), step=0)

    def at_step(self, step: int) -> Uniforms:
        """The numbers of another step of the same view."""
        return Uniforms(self.state_B, step)

    def of_rows(self, rows: NDArray[np.int64]) -> Uniforms:
        """The numbers of some of the samples: those at these places."""
        return Uniforms(self.state_B[rows], self.step)

    def unit(self, field: int) -> NDArray[np.float64]:
        """One number in [0, 1) for each sample.

        Raises:
            ValueError: if the field is outside 0 .. FIELDS_PER_STEP - 1, where another step's begin.
        """
        if not 0 <= field < FIELDS_PER_STEP:
            raise ValueError(f"field {field} is outside 0..{FIELDS_PER_STEP - 1}, the fields of one step")
        place = np.uint64(self.step * FIELDS_PER_STEP + field + 1)
        offset = np.full(1, place) * GOLDEN  # an array: only scalars warn when they wrap
        bits_B: NDArray[np.uint64] = mix(self.state_B + offset) >> np.uint64(11)
        return bits_B.astype(np.float64) * 2.0**-53

    def below(self, field: int, count: int) -> NDArray[np.int64]:
        """One whole number in 0 .. count - 1 for each sample."""
        return np.floor(self.unit(field) * count).astype(np.int64)
