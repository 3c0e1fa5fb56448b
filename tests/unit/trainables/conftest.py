from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from tests.unit.trainables.cache.tiny_caches import TinyCache, random_data, tiny_teacher
from trainables.data.splits import split_facts


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCache:
    data = random_data()
    return TinyCache(tmp_path, data, tiny_teacher(), split_facts(data))


@pytest.fixture
def other_teacher() -> nn.Module:
    return tiny_teacher(seed=1)
