"""Mixup and cutmix: torchvision's images, partners by address, labels that follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from trainables.config.views import CropFlipStep, CutmixStep, MixupStep, Recipe
from trainables.views.crop_flip import CropFlipParams
from trainables.views.draw import draw
from trainables.views.mixing import CutmixParams, MixupParams
from trainables.views.params import MixingParams, ViewParams
from trainables.views.portable import SHARE_STEPS
from trainables.views.render import render

CROP = CropFlipStep(op="crop_flip")
MIXUP = MixupStep(op="mixup")
CUTMIX = CutmixStep(op="cutmix")
N = 300
IDS = 7 * np.arange(N) + 3
SIZE = (20, 28)


def pictures(channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (N, channels, *SIZE), generator=generator, dtype=torch.uint8)


def drawn(recipe: Recipe, *, view: int = 0) -> ViewParams:
    return draw(recipe, IDS, seed=1, view=view, size=SIZE, population=IDS)


def mixing_of(params: ViewParams) -> MixingParams:
    (part,) = (part for part in params.parts if isinstance(part, MixingParams))
    return part


@pytest.mark.parametrize("channels", [1, 3])
def test_mixup_is_torchvisions(channels: int) -> None:
    batch, params = pictures(channels), drawn((MIXUP,))
    part = mixing_of(params)
    assert isinstance(part, MixupParams)
    result = render(batch, params, lambda rows: batch[rows])
    theirs = v2.MixUp(num_classes=2)
    for row, partner in enumerate(part.partner_row_B.tolist()):
        # torchvision mixes each image with the one before it.
        pair = torch.stack([batch[partner], batch[row]]).float()
        expected = theirs.transform(pair, {"lam": float(part.share_B[row]), "labels": None, "batch_size": 2})
        assert float((result[row] - expected[1]).abs().max()) <= 0.5 + 1e-4


@pytest.mark.parametrize("channels", [1, 3])
def test_cutmix_is_torchvisions(channels: int) -> None:
    batch, params = pictures(channels), drawn((CUTMIX,))
    part = mixing_of(params)
    assert isinstance(part, CutmixParams)
    result = render(batch, params, lambda rows: batch[rows])
    theirs = v2.CutMix(num_classes=2)
    for row, partner in enumerate(part.partner_row_B.tolist()):
        box = tuple(part.box_B4[row].tolist())
        pair = torch.stack([batch[partner], batch[row]])
        expected = theirs.transform(pair, {"box": box, "labels": None, "batch_size": 2})
        assert torch.equal(result[row], expected[1])


def test_cutmix_draws_boxes_as_torchvision_does_and_counts_what_is_left() -> None:
    part = mixing_of(drawn((CUTMIX,)))
    assert isinstance(part, CutmixParams)
    left, top, right, bottom = part.box_B4.double().unbind(1)
    area = (right - left) * (bottom - top)
    height, width = SIZE
    assert torch.equal(part.share_B, (1 - area / (height * width)).float())
    inside = (left > 0) & (top > 0) & (right < width) & (bottom < height)
    # Sides are twice floor(sqrt(1 - share) / 2 * side): even, and in the image's proportion but for rounding.
    assert torch.equal((right - left)[inside] % 2, torch.zeros(int(inside.sum()), dtype=torch.float64))
    apart = ((right - left) / width - (bottom - top) / height)[inside].abs()
    assert float(apart.max()) < 2 / height
    assert (left == 0).any()
    assert (bottom == height).any()


@pytest.mark.parametrize("step", [MIXUP, CUTMIX], ids=lambda step: step.op)
def test_partners_are_other_samples_all_alike(step: MixupStep | CutmixStep) -> None:
    partners = torch.stack([mixing_of(drawn((step,), view=view)).partner_row_B for view in range(40)])
    assert not (partners == torch.arange(N)).any()
    counts = torch.bincount(partners.flatten(), minlength=N)
    assert float((counts - 40.0).abs().max()) < 5 * 40**0.5


def test_two_samples_are_each_others_partners_and_one_is_its_own() -> None:
    for count, wanted in ((2, [1, 0]), (1, [0])):
        ids = IDS[:count]
        params = draw((MIXUP,), ids, seed=1, view=0, size=SIZE, population=ids)
        assert mixing_of(params).partner_row_B.tolist() == wanted


def test_a_partner_is_shown_as_in_its_own_view_up_to_the_mixing_step() -> None:
    params = drawn((CROP, MIXUP, CROP))
    part = mixing_of(params)
    (before,) = part.partners.parts
    own = params.parts[0]
    assert isinstance(before, CropFlipParams)
    assert isinstance(own, CropFlipParams)
    assert torch.equal(before.top_B, own.top_B[part.partner_row_B])
    assert torch.equal(before.flip_B, own.flip_B[part.partner_row_B])
    assert torch.equal(part.partners.sample_ids_B, torch.from_numpy(IDS)[part.partner_row_B])


def test_mixup_after_cutmix_mixes_four_samples_by_their_shares() -> None:
    # Flat images, each of its own level: the mean level of a view tells the shares of all four.
    levels = torch.randint(0, 256, (N,), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    batch = levels[:, None, None, None].expand(N, 1, *SIZE).contiguous()
    params = drawn((CUTMIX, MIXUP))
    rows, shares = params.sources(torch.arange(N))
    assert rows.shape == shares.shape == (N, 4)
    assert torch.equal(rows[:, 0], torch.arange(N))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(N))
    result = render(batch, params, lambda places: batch[places]).float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(result, (levels[rows] * shares).sum(dim=1), atol=0.51, rtol=0)


def test_an_unmixed_view_is_made_of_its_own_sample() -> None:
    rows, shares = drawn((CROP,)).sources(torch.arange(N))
    assert torch.equal(rows, torch.arange(N)[:, None])
    assert torch.equal(shares, torch.ones(N, 1))


@pytest.mark.parametrize("step", [MIXUP, CUTMIX], ids=lambda step: step.op)
@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_samples_are_mixed_at_their_rate(step: MixupStep | CutmixStep, probability: float) -> None:
    batch, params = pictures(), drawn((step.with_overrides(probability=probability, alpha=8.0),))
    part = mixing_of(params)
    whole = part.share_B == 1
    assert float((~whole).float().mean()) == pytest.approx(probability, abs=0.13)
    result = render(batch, params, lambda rows: batch[rows])
    assert torch.equal(result[whole], batch[whole])


def test_an_image_that_is_wholly_its_partners_shows_nothing_else() -> None:
    batch, part = pictures(), mixing_of(drawn((MIXUP,)))
    assert isinstance(part, MixupParams)
    for steps, expected in ((0, batch.flip(0)), (SHARE_STEPS, batch)):
        whole = MixupParams(
            part.partner_row_B, part.partners, part.share_B, torch.full((N,), steps, dtype=torch.int32)
        )
        assert torch.equal(whole.mix(batch, batch.flip(0)), expected)


def test_a_mixing_step_without_samples_to_draw_from_is_refused() -> None:
    with pytest.raises(ValueError, match="step mixup mixes samples; give the ids of all training samples"):
        draw((MIXUP,), IDS, seed=1, view=0, size=SIZE)
    for population in (IDS[:-1], IDS[::-1].copy()):
        with pytest.raises(ValueError, match="lack some of the samples of this view"):
            draw((MIXUP,), IDS, seed=1, view=0, size=SIZE, population=population)


def test_a_mixed_view_without_images_to_mix_in_is_refused() -> None:
    with pytest.raises(ValueError, match="give render the images of the training samples"):
        render(pictures(), drawn((MIXUP,)))


def test_these_partners_and_shares_never_change() -> None:
    """A promise to every cache of mixed images: if this fails, the version of the scheme must go up."""
    mixed, cut = drawn((MIXUP,)).parts[0], drawn((CROP, CUTMIX), view=5).parts[1]
    assert isinstance(mixed, MixupParams)
    assert isinstance(cut, CutmixParams)
    assert mixed.partner_row_B[:4].tolist() == [280, 279, 75, 150]
    assert mixed.steps_B[:4].tolist() == [234, 352, 448, 619]
    assert cut.partner_row_B[:4].tolist() == [72, 117, 168, 231]
    assert cut.box_B4[:4].tolist() == [[2, 12, 14, 20], [7, 10, 25, 20], [0, 8, 17, 20], [0, 0, 16, 12]]
