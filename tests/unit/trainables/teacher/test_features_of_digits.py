"""On digits, with networks of ours: what a cache in fp32 keeps is what the teacher says beside a student."""

from __future__ import annotations

import pytest
import torch

from tests.unit.trainables.cache.tiny_caches import TinyCache
from trainables.config import (
    BankConfig,
    CropFlipStep,
    DataConfig,
    DataName,
    ModelConfig,
    ModelName,
    Precision,
    ViewsConfig,
)
from trainables.config.cache import FeaturePrecision
from trainables.config.objective_base import ROTATED, Preparation
from trainables.data import load_training
from trainables.data.splits import split_facts
from trainables.models import build_model
from trainables.models.embedding import classifier_of
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.online import OnlineTeacher
from trainables.teacher.prepared import extended

MAP = "stage2"
FEATURES = ("embedding", MAP, "energy.stage2")
KEPT = {
    "weak": FEATURES,
    **dict.fromkeys(ROTATED[1:], ("embedding", "ss_head", "branch1", "branch2")),
    "teacher": ("classifier",),
}
ROWS = torch.tensor([23, 0, 11, 5, 0])
VIEWS = ViewsConfig(weak=BankConfig(recipe=(CropFlipStep(op="crop_flip", padding=1),), views=2))


@pytest.fixture(scope="module", params=[ModelName.CONVNET, ModelName.RESNET8], ids=str)
def kitchen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyCache:
    """Asked about one image at a time, so that no batch can make the sums differ."""
    data = load_training(DataConfig(name=DataName.DIGITS, train_limit=24))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(ModelConfig(name=request.param, width=8), n_classes=10, in_channels=1)
        kinds = [Preparation.SS_HEAD, Preparation.BRANCHES]
        teacher = extended(network, kinds, n_classes=10, input_shape=(1, 8, 8))
    tiny = TinyCache(
        tmp_path_factory.mktemp(str(request.param)),
        data,
        teacher.eval(),
        split_facts(data),
        views=VIEWS,
        precision=Precision.FP32,
        feature_precision=FeaturePrecision.FP32,
        features=KEPT,
        rows_per_map=10,
        batch_size=1,
    )
    tiny.build(ROTATED)
    return tiny


@pytest.mark.parametrize("bank", ROTATED)
def test_cached_is_online_to_the_bit(kitchen: TinyCache, bank: str) -> None:
    reader, online = kitchen.open(), OnlineTeacher(kitchen.live(), VIEWS)
    for view in (0, 1):
        kept = reader.signal(bank, view, ROWS, reader.features(bank))
        said = online.signal(bank, view, ROWS, reader.features(bank))
        assert torch.equal(kept.logits_BC, said.logits_BC)
        assert torch.equal(kept.confidence_B, said.confidence_B)
        assert kept.features.keys() == said.features.keys() == set(KEPT[bank])
        for name, feature in kept.features.items():
            assert torch.equal(feature, said.features[name]), name
            assert feature.dtype == torch.float32
    assert not torch.equal(kept.logits_BC, reader.signal("weak90", 0, ROWS).logits_BC)


def test_the_classifier_is_that_of_the_network_and_makes_the_logits(kitchen: TinyCache) -> None:
    reader = kitchen.open()
    classifier = reader.classifier()
    assert classifier is not None
    assert torch.equal(classifier.weight_CD, classifier_of(kitchen.teacher, 10).weight)
    said = OnlineTeacher(kitchen.live(), VIEWS).classifier()
    assert torch.equal(classifier.weight_CD, said.weight_CD)
    assert torch.equal(classifier.bias_C, said.bias_C)
    signal = reader.signal("weak180", 1, ROWS, ("embedding",))
    made_BC = signal.features["embedding"] @ classifier.weight_CD.T + classifier.bias_C
    torch.testing.assert_close(made_BC, signal.logits_BC, atol=1e-5, rtol=1e-5)


def test_the_shapes_are_those_of_the_network(kitchen: TinyCache) -> None:
    reader, online = kitchen.open(), OnlineTeacher(kitchen.live(), VIEWS)
    assert reader.feature_shapes("weak") == online.feature_shapes(FEATURES)
    channels, height, width = reader.feature_shapes("weak")[MAP]
    assert reader.feature_shapes("weak")["energy.stage2"] == (height, width)
    assert channels > 1


def test_all_of_it_is_proved(kitchen: TinyCache) -> None:
    summary = prove_alignment(kitchen.open(), kitchen.data, kitchen.teacher, VIEWS, kitchen.seed)
    assert summary.pairs == 64
    assert set(summary.accuracy) == set(ROTATED)
