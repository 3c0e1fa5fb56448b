"""ONNX Runtime's answers, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import onnxruntime
import torch
from torch import Tensor

from trainables.errors import CheckpointError
from trainables.foreign_files import foreign_file

INPUT: Final = "images"
PICTURE: Final = "picture"
"""The input of a file that prepares images itself."""
OUTPUT: Final = "logits"
RUNTIME: Final = "onnxruntime"
_ERRORS_ALONE: Final = 3

# B = images, C = channels or classes, H, W = height and width

Forward = Callable[[Tensor], Tensor]
"""float32 logits BxC of normalised float32 images BxCxHxW; or of one uint8 picture HxWxC."""


def onnx_forward(path: Path, *, threads: int | None = None) -> Forward:
    """What a student's ONNX file answers; with so many threads, by default as many as the runtime chooses.

    Raises:
        CheckpointError: it is no ONNX model, or one with another input than an exported student's.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ALONE  # which are raised too
    if threads is not None:
        options.intra_op_num_threads = threads
    with foreign_file(lambda why: CheckpointError(f"{path} cannot be read: {why}; export the student again")):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
    if names not in ([INPUT], [PICTURE]):
        raise CheckpointError(f"{path} takes {', '.join(names) or 'nothing'}; a student's file takes {INPUT}")

    def forward(given: Tensor) -> Tensor:
        found: list[Any] = session.run([OUTPUT], {names[0]: given.contiguous().numpy()})
        return torch.from_numpy(found[0])

    return forward
