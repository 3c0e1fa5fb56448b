from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import torch

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in a fixed order, for all tests of a file and what they share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
