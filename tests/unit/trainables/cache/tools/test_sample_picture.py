from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.trainables.cache.tiny_caches import TinyCache
from trainables.cache.format import parquet
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.storage import open_place
from trainables.cache.tools.sample_picture import Shown, draw_picture, views_of_sample
from trainables.config import Precision
from trainables.errors import CacheError
from trainables.teacher.live import LiveTeacher
from trainables.teacher.speed_sample import sample_teacher
from trainables.views.showing import show

CPU = torch.device("cpu")


def views_of(tiny: TinyCache, sample: int) -> list[Shown]:
    place = open_place(tiny.uri)
    return views_of_sample(
        place, read_manifest(place)[0], tiny.data, tiny.views, sample=sample, seed=tiny.seed
    )


@pytest.mark.parametrize("row", [0, 17, 39])
def test_a_picture_shows_the_very_views_and_what_the_live_teacher_says_of_them(
    tiny: TinyCache, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MAX_GROUP_ROWS", 4)  # so that the row has to be found among groups
    tiny.but(precision=Precision.FP32).build()
    live = LiveTeacher(tiny.teacher, tiny.data, seed=tiny.seed, batch_size=8, device=CPU)
    shown = views_of(tiny, 3 * row + 1)
    assert [(view.bank, view.view) for view in shown] == [("strong", 0), ("weak", 0), ("weak", 1)]
    for view in shown:
        recipe, rows = tiny.views.bank(view.bank).recipe, torch.tensor([row])
        image = show(tiny.data.train, rows, recipe, seed=tiny.seed, view=view.view, device=CPU)[0]
        assert np.array_equal(view.image_HWC, image.permute(1, 2, 0).numpy())
        probabilities = live.logits(recipe, view.view, rows)[0].softmax(0)
        top = probabilities.topk(3)
        assert [name for name, _ in view.top] == [tiny.data.classes[index] for index in top.indices.tolist()]
        assert [found for _, found in view.top] == pytest.approx(top.values.tolist(), abs=1e-5)


def test_a_file_that_lacks_the_row_is_named(tiny: TinyCache) -> None:
    tiny.build()
    file = Path(tiny.uri) / "bank=weak/view=0001/shard-00000.parquet"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CacheError, match=r"cannot read .*view=0001/shard-00000.parquet"):
        views_of(tiny, 1)


def test_grey_and_coloured_views_are_drawn(tmp_path: Path) -> None:
    top = (("cat", 0.5), ("dog", 0.3), ("a very long name of a class", 0.2))
    grey, blue = np.full((8, 8, 1), 200, np.uint8), np.full((8, 8, 3), (10, 20, 230), np.uint8)
    views = [Shown("weak", 0, grey, top), Shown("strong", 0, blue, top)]
    path = tmp_path / "sample.png"
    draw_picture(views, path, title="sample 1: cat", label="cat")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    green, red = (0x1A, 0x7F, 0x37), (0xB3, 0x26, 0x1E)
    for colour in (green, red, (200, 200, 200), (10, 20, 230)):
        assert (pixels == colour).all(axis=1).any(), colour


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    shown = Shown("weak", 0, np.zeros((8, 8, 1), dtype=np.uint8), (("cat", 1.0),))
    with pytest.raises(CacheError, match=r"cannot write .*give another place"):
        draw_picture([shown], tmp_path / "no" / "folder.png", title="", label="cat")


def test_the_speed_of_a_teacher_leaves_out_the_batch_that_warms_up(tiny: TinyCache) -> None:
    live = LiveTeacher(tiny.teacher, tiny.data, seed=tiny.seed, batch_size=8, device=CPU)
    times = iter([10.0, 11.0, 12.0, 15.0])  # the clock at the start, then after each batch that counts
    sample = sample_teacher(live, tiny.views.weak.recipe, n_rows=40, batch_size=16, clock=lambda: next(times))
    assert sample.images_per_s == (16 + 8 + 16) / 5.0
    expected = live.logits(tiny.views.weak.recipe, 0, torch.arange(40))
    torch.testing.assert_close(sample.logits_BC, expected)
