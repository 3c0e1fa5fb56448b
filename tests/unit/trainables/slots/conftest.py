"""What a slot is given in its tests: a few digits, and no teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.config import DataConfig, DataName, ViewsConfig, WorkbenchSpec

N_TRAIN = 60


@pytest.fixture
def spec(tmp_path: Path) -> WorkbenchSpec:
    return WorkbenchSpec(
        data=DataConfig(name=DataName.DIGITS, train_limit=N_TRAIN),
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(tmp_path),
    )
