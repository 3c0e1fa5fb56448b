"""The device that is tried, and the settings under which what it computes can be compared to the bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

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
    """Sums of fp32 in an order that repeats: without TF32, and with deterministic kernels.

    An operation that has no deterministic kernel is warned about, and the test shows whether it matters.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
