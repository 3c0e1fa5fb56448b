from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from trainables.seeds import derive_seed

PURPOSES = ("views", "teacher", "teacher views", "weights", "order", "forward", "repeat", "search")


@pytest.mark.parametrize(
    ("parts", "seed"),
    [
        ((), 8238016292129134938),
        ((0, "views"), 4610226666887260412),
        ((0, "order", 1), 5288543681127824561),
        (("0", "order", 1), 5627781006493503719),
        ((7, "weights"), 7117081299881798994),
    ],
)
def test_seeds_never_change_between_versions(parts: tuple[int | str, ...], seed: int) -> None:
    assert derive_seed(*parts) == seed


def test_every_purpose_epoch_and_experiment_has_a_seed_of_its_own() -> None:
    parts = list(itertools.product(range(5), PURPOSES, range(50)))
    seeds = {derive_seed(*each) for each in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, "2"), (1, 2)), (("a", "b"), ("ab",)), ((1, 23), (12, 3)), (("a",), ("a", "")), ((1,), (True,))],
)
def test_parts_that_only_look_alike_give_different_seeds(
    one: tuple[int | str, ...], other: tuple[int | str, ...]
) -> None:
    assert derive_seed(*one) != derive_seed(*other)


def test_another_process_with_another_hash_seed_derives_the_same() -> None:
    code = "from trainables.seeds import derive_seed; print(derive_seed(0, 'views'))"
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(child.stdout) == derive_seed(0, "views")
