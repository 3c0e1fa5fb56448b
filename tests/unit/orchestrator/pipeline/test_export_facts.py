"""What a model card says of how images were prepared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from orchestrator.pipeline.export import preparation
from trainables.config import DataConfig
from trainables.data.resizing import resized


@pytest.mark.parametrize(
    ("data", "n_channels", "channels"),
    [
        ({"name": "digits"}, 1, "grey"),
        ({"name": "cifar10", "root": "somewhere"}, 3, "RGB"),
        ({"factory": "package.module:function"}, 3, "as the data set's factory gives them"),
    ],
)
def test_the_card_names_the_channels_in_their_order(
    data: dict[str, str], n_channels: int, channels: str
) -> None:
    said = preparation(DataConfig.from_plain(data), (n_channels, 8, 8))
    assert (said.channels, said.resizing, said.layout) == (channels, None, "NCHW float32")


def test_the_cards_rule_of_resizing_is_that_of_the_data() -> None:
    said = preparation(DataConfig.from_plain({"name": "digits", "image_size": 24}), (3, 24, 24)).resizing
    assert said is not None
    assert said.interpolation == "bilinear, antialiased"
    picture = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    scaled = resize(Image.fromarray(picture), said.shorter_side, InterpolationMode.BILINEAR, antialias=True)
    by_the_rule = np.asarray(center_crop(scaled, [said.centre_crop]))
    ours = resized(torch.from_numpy(picture).permute(2, 0, 1)[None], 24)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(by_the_rule, ours)
