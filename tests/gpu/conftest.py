"""The device that is tried, and the settings under which what it computes can be compared to the bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.gpu.compared_courses import exact_sums
from tests.gpu.tried import TRIED, tried_device


@pytest.fixture(scope="session")
def device() -> Iterator[torch.device]:
    """The GPU, or the CPU in a rehearsal."""
    tried = tried_device()
    if tried.type == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"needs a GPU; to rehearse without one, set {TRIED}=cpu")
    with pytest.MonkeyPatch.context() as patch:
        # cuBLAS reads it when it is first used; without it, its sums are not repeatable.
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        yield tried


@pytest.fixture
def exact(device: torch.device) -> Iterator[None]:
    """See `exact_sums`."""
    with exact_sums():
        yield
