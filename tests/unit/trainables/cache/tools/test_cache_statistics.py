from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.unit.trainables.cache.tiny_caches import TinyCache
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.storage import open_place
from trainables.cache.tools.export_table import export_plain
from trainables.cache.tools.statistics import bank_figures
from trainables.config import Precision, ViewsConfig
from trainables.errors import CacheError, ConfigError
from trainables.teacher.live import LiveTeacher


def live_logits(tiny: TinyCache, bank: str, view: int) -> torch.Tensor:
    live = LiveTeacher(tiny.teacher, tiny.data, seed=tiny.seed, batch_size=64, device=torch.device("cpu"))
    return live.logits(tiny.views.bank(bank).recipe, view, torch.arange(40))


def test_the_figures_of_a_bank_are_those_of_the_teacher_on_its_views(tiny: TinyCache) -> None:
    tiny.but(precision=Precision.FP32).build()
    place = open_place(tiny.uri)
    manifest, _ = read_manifest(place)
    steps: list[tuple[int, int]] = []
    figures = {bank.bank: bank for bank in bank_figures(place, manifest, progress=lambda *s: steps.append(s))}
    assert {name: (bank.rows, len(bank.views)) for name, bank in figures.items()} == {
        "weak": (80, 2),
        "strong": (40, 1),
    }
    assert figures["strong"].steps == ("crop_flip", "randaugment")
    assert sum(bank.bytes for bank in figures.values()) == manifest.bytes
    assert steps[-1] == (9, 9)
    for view in range(2):
        probabilities = live_logits(tiny, "weak", view).softmax(dim=1)
        found = figures["weak"].views[view]
        assert found.accuracy == pytest.approx(
            (probabilities.argmax(1) == tiny.data.train.labels).float().mean().item()
        )
        assert found.confidence == pytest.approx(probabilities.amax(1).mean().item(), rel=1e-5)
        entropy = -(probabilities * probabilities.log()).sum(1).mean().item()
        assert found.entropy == pytest.approx(entropy, rel=1e-5)
    weak = figures["weak"]
    assert weak.mean("accuracy") == pytest.approx(sum(v.accuracy for v in weak.views) / 2)


def test_a_damaged_file_is_named_by_whoever_reads_it(tiny: TinyCache) -> None:
    tiny.build()
    path = next(Path(tiny.uri).rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:50])
    place = open_place(tiny.uri)
    with pytest.raises(CacheError, match=rf"cannot read {path}: .*verify EXPERIMENT --deep --repair"):
        bank_figures(place, read_manifest(place)[0])


@pytest.mark.parametrize(
    ("name", "precision"), [("plain.parquet", Precision.FP16), ("plain.csv", Precision.FP32)]
)
def test_an_export_is_one_table_of_plain_columns(
    tiny: TinyCache, tmp_path: Path, name: str, precision: Precision
) -> None:
    tiny.but(precision=precision).build()
    place = open_place(tiny.uri)
    path = tmp_path / name
    assert export_plain(place, read_manifest(place)[0], path, banks=["weak", "strong"]) == 120
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    assert list(frame.groupby(["bank", "view"]).size().items()) == [
        (("strong", 0), 40),
        (("weak", 0), 40),
        (("weak", 1), 40),
    ]
    rows = frame[(frame["bank"] == "weak") & (frame["view"] == 1)]
    assert rows["sample_id"].tolist() == tiny.data.train.ids.tolist()
    assert rows["label"].tolist() == tiny.data.train.labels.tolist()
    logits = rows[[f"logit_{index}" for index in range(5)]].to_numpy()
    bound = 2e-3 if precision is Precision.FP16 else 1e-6
    np.testing.assert_allclose(logits, live_logits(tiny, "weak", 1).numpy(), atol=bound)
    assert not list(tmp_path.glob(".*.part"))


def test_one_bank_can_be_exported_alone(tiny: TinyCache, tmp_path: Path) -> None:
    tiny.build(("strong",))
    place = open_place(tiny.uri)
    assert export_plain(place, read_manifest(place)[0], tmp_path / "a.parquet", banks=["strong"]) == 40


@pytest.mark.parametrize(
    ("file", "bank", "message"),
    [
        ("a.xlsx", "weak", "suffix '.xlsx'; allowed: .parquet or .csv"),
        ("a.csv", "wek", "no bank 'wek'; allowed: "),
    ],
)
def test_an_export_of_another_kind_or_bank_is_refused(
    tiny: TinyCache, tmp_path: Path, file: str, bank: str, message: str
) -> None:
    tiny.but(views=ViewsConfig()).build(("weak",))
    place = open_place(tiny.uri)
    with pytest.raises(ConfigError, match=message):
        export_plain(place, read_manifest(place)[0], tmp_path / file, banks=[bank])


def test_an_export_that_breaks_off_leaves_what_was_there(tiny: TinyCache, tmp_path: Path) -> None:
    tiny.build(("weak",))
    (tmp_path / "a.csv").write_text("before")
    place = open_place(tiny.uri)
    (Path(tiny.uri) / "bank=weak/view=0001/shard-00002.parquet").write_bytes(b"")
    with pytest.raises(CacheError, match="cannot read"):
        export_plain(place, read_manifest(place)[0], tmp_path / "a.csv", banks=["weak"])
    assert [(path.name, path.read_text()) for path in tmp_path.glob("*a.csv*")] == [("a.csv", "before")]
