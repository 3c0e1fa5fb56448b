"""A `.npy` file that is filled part by part with plain writes.

Through a memory map the page cache would be filled page by page: gathers from it are a quarter slower than
from what was written in one piece, and a disk that runs full would end the process instead of raising.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

# V = views, N = training samples

Array = npt.NDArray[Any]
ROW_AXES: Final = 2


class ArrayFile:
    """Context manager over the file of one VxN or VxNx... array; on leaving, it is on disk."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Make the file with all its blocks.

        Raises:
            OSError: there is no room.
        """
        self._dtype = np.dtype(dtype)
        self._n_rows = shape[1]
        self._row_bytes = math.prod(shape[ROW_AXES:]) * self._dtype.itemsize
        self._file = path.open("x+b")
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        try:
            np.lib.format.write_array_header_1_0(self._file, header)
            self._begin = self._file.tell()
            size = self._begin + math.prod(shape) * self._dtype.itemsize
            os.posix_fallocate(self._file.fileno(), 0, size)
        except OSError:
            self._file.close()
            raise

    def put(self, view: int, first: int, rows: Array) -> None:
        """Write rows of a view, from row `first` on."""
        self._file.seek(self._place(view, first))
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def _place(self, view: int, row: int) -> int:
        return self._begin + (view * self._n_rows + row) * self._row_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
