"""What is waited for while Ray starts on a busy machine."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.starting import WAITS, while_it_lives


class Node:
    """Is there when it was asked for so many times."""

    def __init__(self, asked_before: int) -> None:
        self.left = asked_before
        self.about: list[Any] = []

    def __call__(self, *about: Any) -> dict[str, Any]:
        self.about.append(about)
        self.left -= 1
        if self.left >= 0:
            raise RuntimeError("no node yet")
        return {"node_id": "n"}


def test_a_slow_process_is_waited_for_while_it_lives() -> None:
    node = Node(2)
    assert while_it_lives(node, lambda: True)("address", "id") == {"node_id": "n"}
    assert node.about == [("address", "id")] * 3


def test_a_process_that_died_is_not_waited_for() -> None:
    node = Node(2)
    with pytest.raises(RuntimeError, match="no node yet"):
        while_it_lives(node, lambda: False)("address", "id")
    assert len(node.about) == 1


def test_patience_has_an_end() -> None:
    with pytest.raises(RuntimeError, match="no node yet"):
        while_it_lives(Node(10**6), lambda: True, patience_s=0.0)("address", "id")


def test_ray_is_told_to_wait_by_its_own_settings_alone() -> None:
    assert all(name.startswith("RAY_") and int(value) >= 100 for name, value in WAITS.items())
