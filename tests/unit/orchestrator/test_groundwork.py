from __future__ import annotations

import pytest

from orchestrator.groundwork import pace


@pytest.mark.parametrize(
    ("done", "seconds", "said"),
    [
        (0, 12.0, ""),
        (5_000, 2.0, "2,500 answers/s, 2 s left"),
        (10, 10.0, "1 answers/s, 2 h 47 min left"),
        (10_000, 4.0, "2,500 answers/s, 0 s left"),
    ],
)
def test_the_pace_of_the_teacher_tells_the_time_that_is_left(done: int, seconds: float, said: str) -> None:
    assert pace(done, 10_000, seconds) == said
