from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.unit.full_disk import largest_file
from trainables.cache.node.npy_file import ArrayFile


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64])
@pytest.mark.parametrize("tail", [(), (5,)])
def test_parts_in_any_order_become_the_array(
    tmp_path: Path, dtype: npt.DTypeLike, tail: tuple[int, ...]
) -> None:
    whole = np.random.default_rng(0).integers(-100, 100, (2, 7, *tail)).astype(dtype)
    with ArrayFile(tmp_path / "a.npy", whole.shape, dtype) as file:
        for view, first, last in ((1, 4, 7), (0, 0, 4), (1, 0, 4), (0, 4, 7)):
            file.put(view, first, whole[view, first:last])
    found = np.load(tmp_path / "a.npy", mmap_mode="r", allow_pickle=False)
    assert found.dtype == dtype
    assert np.array_equal(found, whole)


def test_values_of_another_dtype_or_layout_are_written_as_the_files(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float64).reshape(4, 3).T
    with ArrayFile(tmp_path / "a.npy", (1, 3, 4), np.float32) as file:
        file.put(0, 0, values)
    assert np.array_equal(np.load(tmp_path / "a.npy")[0], values.astype(np.float32))


def test_a_disk_without_room_is_known_before_anything_is_written(tmp_path: Path) -> None:
    with largest_file(4000), pytest.raises(OSError, match="File too large"):
        ArrayFile(tmp_path / "a.npy", (1, 1000, 1000), np.float16)
