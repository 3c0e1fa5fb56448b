"""What images that stay in their files cost: a view of a batch, and the second start on a node."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from tests.benchmarks.figures import Bound, Figure
from tests.benchmarks.surroundings import surroundings
from trainables.config import DataConfig
from trainables.config.data import DataName
from trainables.config.views import RandomResizedCropStep
from trainables.data import load_training
from trainables.views.showing import show

VIEW: Final = Bound(0.85, at_least=True)
SECOND_START: Final = Bound(0.2)
SIDE: Final = 224
WIDTH, HEIGHT = 500, 375
BATCH: Final = 64


def folder_view_over_torchvision(rounds: int = 15) -> Figure:
    """Images/s of random-resized crops from files, over Pillow and torchvision, image by image."""
    torch.set_num_threads(1)
    with _folder(n_images=640) as config:
        split = load_training(config).train
        files = split.files
        if files is None:
            raise RuntimeError("the folder was loaded whole")
        crop = v2.RandomResizedCrop(SIDE, antialias=True)

        def ours(rows_B: Tensor, view: int) -> None:
            recipe = (RandomResizedCropStep(op="random_resized_crop"),)
            show(split, rows_B, recipe, seed=1, view=view, device=torch.device("cpu"))

        def theirs(rows_B: Tensor, _view: int) -> None:
            images = [crop(Image.open(files.path(row)).convert("RGB")) for row in rows_B.tolist()]
            torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])

        ratios, speeds = [], []
        for number in range(rounds + 1):
            rows_B = torch.randperm(len(split.ids), generator=torch.Generator().manual_seed(number))[:BATCH]
            times = {}
            for turn in (ours, theirs)[:: 1 if number % 2 else -1]:
                began = time.perf_counter()
                turn(rows_B, number)
                times[turn] = time.perf_counter() - began
            if number > 0:  # the first round starts threads
                ratios.append(times[theirs] / times[ours])
                speeds.append(BATCH / times[ours])
    how = (
        f"median of the ratios of {rounds} batches of {BATCH} in one process with 1 thread, JPEGs of "
        f"{WIDTH}x{HEIGHT} to random-resized crops of {SIDE}x{SIDE} "
        f"({statistics.median(speeds):.0f} images/s), over Pillow and torchvision's "
        f"RandomResizedCrop, image by image; {surroundings('torch', 'pillow')}"
    )
    return Figure(statistics.median(ratios), "x", how, VIEW)


def folder_second_start_share(n_images: int = 4000) -> Figure:
    """Time to load a folder that this node knows, over that of the first look at it."""
    torch.set_num_threads(1)
    with _folder(n_images=n_images) as config:
        seconds = []
        for _ in range(6):
            began = time.perf_counter()
            load_training(config)
            seconds.append(time.perf_counter() - began)
    second_s = statistics.median(seconds[1:])
    how = (
        f"loading a folder of {n_images:,} JPEGs of {WIDTH}x{HEIGHT} that stays in its files, mean and std "
        f"given: {second_s:.2f} s (median of 5) over {seconds[0]:.2f} s for the first look, files in the "
        f"page cache; {surroundings('torch', 'pillow')}"
    )
    return Figure(second_s / seconds[0], "x", how, SECOND_START)


@contextmanager
def _folder(*, n_images: int) -> Iterator[DataConfig]:
    """Photographs of some detail in ten classes, and scratch of their own."""
    generator, before = np.random.default_rng(0), tempfile.tempdir
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for index in range(n_images):
            coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            folder = root / "train" / str(index % 10)
            folder.mkdir(parents=True, exist_ok=True)
            photograph = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            photograph.save(folder / f"{index}.jpg", quality=90)
        tempfile.tempdir = name
        try:
            yield DataConfig(
                name=DataName.IMAGE_FOLDER,
                root=name,
                image_size=SIDE,
                memory_gb=0,
                mean=(0.5, 0.5, 0.5),
                std=(0.25, 0.25, 0.25),
            )
        finally:
            tempfile.tempdir = before
