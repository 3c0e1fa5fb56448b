"""Hashed ids: known values, and decisions that other samples do not touch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainables.seeds import falls_below, first_by_hash, hashed_ids, salt_of


def test_hashes_are_the_published_outputs_of_splitmix64() -> None:
    # Seed 0 as in the reference programme's comments, seed 1234567 as on Rosetta Code.
    assert hashed_ids(np.arange(3), salt=0).tolist() == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    assert hashed_ids(np.arange(5), salt=1234567).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_a_salt_is_the_head_of_blake2b() -> None:
    assert salt_of("data/selection") == 14008892497741451998
    assert salt_of("data/selection") != salt_of("data/train_limit")


@given(n=st.integers(1, 300), more=st.integers(0, 300), fraction=st.floats(0, 1))
def test_more_samples_leave_the_earlier_decisions_as_they_were(n: int, more: int, fraction: float) -> None:
    few = falls_below(np.arange(n), fraction, salt=5)
    many = falls_below(np.arange(n + more), fraction, salt=5)
    assert many[:n].tolist() == few.tolist()


@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_larger_fraction_keeps_what_a_smaller_one_took(low: float, high: float) -> None:
    low, high = sorted((low, high))
    smaller = falls_below(np.arange(500), low, salt=9)
    larger = falls_below(np.arange(500), high, salt=9)
    assert not np.any(smaller & ~larger)


def test_the_share_below_a_fraction_is_that_fraction() -> None:
    # Binomial: three standard deviations of 0.2 at 100,000 samples are 0.0038.
    assert abs(falls_below(np.arange(100_000), 0.2, salt=3).mean() - 0.2) < 0.0038


@given(n=st.integers(1, 200), count=st.integers(0, 250))
def test_the_first_by_hash_are_ascending_and_nested(n: int, count: int) -> None:
    ids = np.arange(n) * 3
    chosen = first_by_hash(ids, count, salt=1)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == min(n, count)
    assert set(first_by_hash(ids, max(count - 1, 0), salt=1)) <= set(chosen)
    left_out = np.setdiff1d(ids, chosen)
    if len(chosen) and len(left_out):
        assert hashed_ids(chosen, salt=1).max() < hashed_ids(left_out, salt=1).min()
