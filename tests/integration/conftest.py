from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.head_node import HeadNode, start_head_node


@pytest.fixture(scope="session")
def head_node() -> Iterator[HeadNode]:
    """One cluster for all tests that submit jobs; it takes half a minute to start."""
    with start_head_node() as head:
        yield head
