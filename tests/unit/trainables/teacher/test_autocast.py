"""A teacher under bf16 autocast: a teacher of its own, whose cache is proved against it alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.trainables.cache.tiny_caches import VIEWS, TinyCache, random_data, tiny_teacher
from trainables.config import CacheConfig, DataConfig, DataName, Precision
from trainables.data.splits import split_facts
from trainables.errors import CacheError
from trainables.teacher.alignment_proof import prove_alignment
from trainables.teacher.autocast import AutocastTeacher, autocast_digest
from trainables.teacher.cache_request import CacheRequest

DIGEST = "a" * 64


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCache:
    data = random_data()
    tiny = TinyCache(
        tmp_path, data, AutocastTeacher(tiny_teacher()), split_facts(data), precision=Precision.FP32
    )
    tiny.build()
    return tiny


def test_its_logits_are_float32_and_near_those_of_the_network(tiny: TinyCache) -> None:
    images = torch.rand(6, 1, 8, 8)
    assert isinstance(tiny.teacher, AutocastTeacher)
    with torch.inference_mode():
        coarse, fine = tiny.teacher.eval()(images), tiny.teacher.network(images)
    assert coarse.dtype is torch.float32
    assert not torch.equal(coarse, fine)
    torch.testing.assert_close(coarse, fine, atol=0.03, rtol=0.03)


def test_its_cache_is_proved_against_it_and_not_against_the_network_in_fp32(tiny: TinyCache) -> None:
    assert isinstance(tiny.teacher, AutocastTeacher)
    assert prove_alignment(tiny.open(), tiny.data, tiny.teacher, VIEWS, tiny.seed).pairs == 64
    with pytest.raises(CacheError, match="are not what the live teacher says"):
        prove_alignment(tiny.open(), tiny.data, tiny.teacher.network, VIEWS, tiny.seed)
    with pytest.raises(CacheError, match="are not what the live teacher says"):
        prove_alignment(tiny.open(), tiny.data, AutocastTeacher(tiny_teacher(seed=1)), VIEWS, tiny.seed)


def test_its_features_are_those_of_the_network_within_and_are_proved(tiny: TinyCache, tmp_path: Path) -> None:
    kitchen = tiny.but(folder=tmp_path / "kept", features={"weak": ("embedding", "stem")})
    kitchen.build(("weak",))
    rows = torch.arange(6)
    kept = kitchen.open().signal("weak", 0, rows, ("embedding", "stem")).features
    assert isinstance(tiny.teacher, AutocastTeacher)
    fine = kitchen.but(teacher=tiny.teacher.network).live()
    for name, said in fine.answers(VIEWS.weak.recipe, 0, rows, ("embedding", "stem")).features.items():
        assert kept[name].dtype is torch.float32
        assert not torch.equal(kept[name], said)
        torch.testing.assert_close(kept[name], said, atol=0.03, rtol=0.03)
    reader = kitchen.open()
    assert prove_alignment(reader, tiny.data, tiny.teacher, VIEWS, tiny.seed, banks=["weak"]).pairs == 64


def test_a_cache_of_it_is_another_cache_than_that_of_the_network(tiny: TinyCache) -> None:
    def request(cache: CacheConfig) -> CacheRequest:
        return CacheRequest(
            data=DataConfig(name=DataName.DIGITS),
            facts=tiny.facts,
            teacher=None,
            teacher_digest=DIGEST,
            views=VIEWS,
            banks=("weak",),
            view_seed=1,
            cache=cache,
            folder=str(tiny.folder),
        )

    plain, autocast = request(CacheConfig()), request(CacheConfig(autocast=True))
    assert (plain.identity.teacher, autocast.identity.teacher) == (DIGEST, autocast_digest(DIGEST))
    assert plain.uri != autocast.uri
