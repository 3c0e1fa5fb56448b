"""The lock on a run's folder: what the run meets is not taken for trouble with it."""

from __future__ import annotations

from pathlib import Path

import filelock
import pytest

from orchestrator.records.following.run_lock import locked
from trainables.errors import StillhouseError


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(2, "No such file", "x.png"), ConnectionResetError(), filelock.Timeout("other")],
)
def test_what_a_run_raises_passes_and_the_folder_is_free_again(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(type(error)) as caught, locked(tmp_path):
        raise error
    assert caught.value is error
    with locked(tmp_path):
        pass


def test_a_folder_that_is_held_or_no_folder_is_told(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(StillhouseError, match=f"another run is writing into {tmp_path}"),
        locked(tmp_path),
    ):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StillhouseError, match="cannot write into"), locked(tmp_path / "file"):
        pass
