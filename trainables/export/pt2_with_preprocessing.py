"""The same for torch.export: a program that takes a picture as it is, and resizes, cuts and normalises it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.errors import StillhouseError
from trainables.export.pt2_archive import open_archive
from trainables.export.stated import STATED, StudentDocument, document_of
from trainables.export.tracing import drop_places, quiet_exporter
from trainables.foreign_files import foreign_file

# H, W = height and width of a picture, C = channels, S = side of the student's input


def write_pt2_with_preprocessing(source: Path, target: Path) -> None:
    """Write a student's archive anew so that it takes one picture, uint8 HxWxC of any size.

    It does what `write_with_preprocessing` does for ONNX; torch resizes in floating point and rounds, where
    Pillow computes in whole numbers, so a level of grey may differ.

    Raises:
        StillhouseError: the student's input is not square, or the whole cannot be traced.
        CheckpointError: the file does not say how images are prepared for it, or cannot be opened.
    """
    document = document_of(source)
    channels, height, width = document.input_shape
    if height != width:
        raise StillhouseError(
            f"{source.name} takes images of {width}x{height} pixels, and only square ones are cut out; "
            "prepare images in your own program, and give them to the file as it is"
        )
    taking = document.with_overrides(takes="a picture")
    # Two sides that differ, or they would be traced as one.
    picture = torch.zeros(2 * width + 1, 3 * width + 2, channels, dtype=torch.uint8)
    of_any_size = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    with (
        foreign_file(
            lambda why: StillhouseError(f"{source.name} cannot be joined with its preprocessing: {why}")
        ),
        quiet_exporter(),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        whole = _Preparing(open_archive(source), document)
        program = torch.export.export(whole, (picture,), dynamic_shapes=of_any_size)
        drop_places(program.graph_module)
        torch.export.save(program, target, extra_files={STATED: json.dumps(taking.plain())})


class _Preparing(nn.Module):
    """A network behind the preparation of one picture."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, document: StudentDocument) -> None:
        super().__init__()
        self.network = network
        self.side = document.input_shape[1]
        resizing = None if document.preparation is None else document.preparation.resizing
        self.shorter = self.side if resizing is None else resizing.shorter_side
        own = document.normalisation
        self.register_buffer("mean", torch.tensor(own.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(own.std)[:, None, None])

    def forward(self, picture: Tensor) -> Tensor:
        pixels = picture.permute(2, 0, 1)[None].to(torch.float32)
        if self.shorter is None:  # stretched
            cut = _resized(pixels, self.side, self.side)
        else:
            height, width = picture.shape[0], picture.shape[1]
            shortest = torch.sym_min(height, width)  # type: ignore[no-untyped-call]
            high, wide = self.shorter * height // shortest, self.shorter * width // shortest
            rows, columns = _middle(high, self.side), _middle(wide, self.side)
            cut = _resized(pixels, high, wide).index_select(2, rows).index_select(3, columns)
        logits: Tensor = self.network((cut / 255.0 - self.mean) / self.std)
        return logits


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    found = F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return found.round()


def _middle(length: int, side: int) -> Tensor:
    """Places of the middle; half of what is left over, a half rounded to the even number, lies before."""
    over = length - side
    half = over // 2
    return torch.arange(side) + half + (over % 2) * (half % 2)
