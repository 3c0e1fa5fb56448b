"""What a worker on a GPU shows and hears is what one on the CPU does, wherever the bytes lie."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from tests.gpu.compared_courses import bench_on
from tests.unit.trainables.cache.tiny_caches import EMBEDDED, TinyCache
from tests.unit.trainables.data.image_folders import config_of, write_folder
from tests.unit.trainables.training.small_courses import CPU, VIEWS, separable_data, small_student
from trainables.config import BankConfig, CropFlipStep, ViewsConfig
from trainables.config.views import MixupStep, RandomResizedCropStep
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.tensors import to_device
from trainables.training.workbench import Workbench, render_budget

pytestmark = pytest.mark.gpu

ROWS = torch.tensor([3, 41, 0, 3, 17])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    data, folder = separable_data(), tmp_path_factory.mktemp("lab")
    tiny = TinyCache(folder, data, small_student(seed=9), split_facts(data), views=VIEWS, features=EMBEDDED)
    tiny.build()
    return tiny


@pytest.mark.parametrize("rows_on", ["cpu", "device"])
def test_images_that_do_not_fit_on_a_gpu_are_shown_as_those_that_do(
    device: torch.device, rows_on: str
) -> None:
    rows = ROWS if rows_on == "cpu" else ROWS.to(device)
    resident, hosted = bench_on(device), bench_on(device, render_budget_bytes=0)
    for epoch in (1, 2, 3):
        shown = hosted.images("strong", epoch, rows)
        assert shown.device.type == device.type
        assert torch.equal(shown, resident.images("strong", epoch, rows))
        assert torch.equal(hosted.labels(rows), resident.labels(rows))


def test_normalised_images_are_those_of_the_cpu_to_the_last_bits(device: torch.device) -> None:
    there, here = bench_on(device), bench_on(CPU)
    for bank in ("weak", "strong", "weak90", "strong180"):
        shown = there.images(bank, 2, ROWS)
        torch.testing.assert_close(shown.cpu(), here.images(bank, 2, ROWS), rtol=1e-6, atol=1e-6)


def test_a_gpu_is_shown_from_files_what_a_cpu_is_shown(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    in_files = load_training(config_of(write_folder(tmp_path / "pictures")))
    box = RandomResizedCropStep(op="random_resized_crop", scale=(0.2, 0.9))
    recipe = (box, CropFlipStep(op="crop_flip", padding=1), MixupStep(op="mixup"))
    views = ViewsConfig(weak=BankConfig(recipe=recipe, views=2))
    bench = Workbench(in_files, views, view_seed=7, device=device)
    plain = Workbench(in_files, views, view_seed=7, device=CPU)
    rows = torch.tensor([5, 0, 17])
    for following in (rows.flip(0), rows):
        bench.expect(["weak"], 2, following)
        shown = bench.images("weak", 2, rows)
        assert shown.device.type == device.type
        torch.testing.assert_close(shown.cpu(), plain.images("weak", 2, rows), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("budget", [1 << 20, 0], ids=["resident", "mapped"])
def test_a_gpu_hears_the_answers_of_the_cache_to_the_bit(
    device: torch.device, tiny: TinyCache, budget: int
) -> None:
    reader = tiny.open()
    bench = bench_on(device, data=tiny.data, cache=reader, render_budget_bytes=budget)
    for bank, epoch, view in (("weak", 1, 0), ("weak", 4, 0), ("strong", 2, 1)):
        heard = bench.teacher(bank, epoch, ROWS, ("embedding",))
        expected = reader.signal(bank, view, ROWS, ("embedding",))
        assert heard.logits_BC.device.type == heard.confidence_B.device.type == device.type
        assert torch.equal(heard.logits_BC.cpu(), expected.logits_BC)
        assert torch.equal(heard.confidence_B.cpu(), expected.confidence_B)
        assert torch.equal(heard.features["embedding"].cpu(), expected.features["embedding"])
        assert heard.logit_max_B is not None
        assert expected.logit_max_B is not None
        assert torch.equal(heard.logit_max_B.cpu(), expected.logit_max_B)


def test_batches_on_their_way_are_not_overwritten(device: torch.device) -> None:
    """Copies are not waited for, so the pinned memory of one must not be used again before it is done."""
    batches = [torch.full((1 << 16,), number) for number in range(300)]
    sent = [to_device(batch.clone(), device) for batch in batches]
    assert all(torch.equal(there.cpu(), batch) for there, batch in zip(sent, batches, strict=True))


def test_a_gpus_room_for_views_is_a_part_of_its_free_memory(device: torch.device) -> None:
    budget = render_budget(device)
    assert budget >= 1 << 30
    if device.type == "cuda":
        assert budget <= max(1 << 30, torch.cuda.get_device_properties(device).total_memory // 8)
