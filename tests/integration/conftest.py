from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.integration.head_node import HeadNode, start_head_node


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_reaches_children() -> None:
    """A shell that runs the tests in the background has them, and so their children, ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def head_node() -> Iterator[HeadNode]:
    """One cluster for all tests that submit jobs; it takes half a minute to start."""
    with start_head_node() as head:
        yield head
