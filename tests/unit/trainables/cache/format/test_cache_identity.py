from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from trainables.cache.format.identity import (
    bank_fingerprint,
    differences,
    folder_name,
    make_identity,
    require_identity,
)
from trainables.config import CacheIdentity, CropFlipStep, Precision, Recipe
from trainables.config.data import SplitFacts
from trainables.errors import CacheError

FACTS = SplitFacts(
    data_digest="d" * 64,
    ids_digest="5" * 64,
    n_train=10,
    classes=("a", "b"),
    mean=(0.5,),
    std=(0.25,),
    input_shape=(1, 8, 8),
)
RECIPE: Recipe = (CropFlipStep(op="crop_flip"),)


def identity(teacher: str = "3f2a" * 16, **changes: Any) -> CacheIdentity:
    facts = FACTS.with_overrides(**changes)
    return make_identity(teacher, facts, seed=1, precision=Precision.FP16)


PARTS: list[tuple[dict[str, Any], str]] = [
    ({"schema_version": 99}, "cache has format 1, this version reads format 99"),
    ({"teacher": "91bc" * 16}, "written by teacher 3f2a3f2a…, this experiment uses 91bc91bc…"),
    ({"data": "e" * 64}, "made from data dddddddd…, this experiment has eeeeeeee…"),
    ({"split": "6" * 64}, "covers training split 55555555…, this experiment trains on 66666666…"),
    ({"preprocessing": "7" * 64}, r"preprocessing \(mean, std, image size\) .*uses 77777777…"),
    ({"seed": 2}, "views of seed 1, this experiment uses seed 2"),
    ({"n_classes": 3}, "has 2 classes, this experiment has 3"),
    ({"dtype": "fp32"}, "keeps fp16, this experiment asks for fp32"),
    (
        {"unlabelled": "8" * 64},
        "answers to no unlabelled images, this experiment uses unlabelled images 88888888…",
    ),
    ({"top_k": 5}, "keeps the largest None logits, this experiment asks for 5"),
]


def test_every_part_of_an_identity_has_its_difference_tested() -> None:
    assert {name for changes, _ in PARTS for name in changes} == set(CacheIdentity.model_fields)


@pytest.mark.parametrize(("changes", "message"), PARTS)
def test_a_differing_part_is_named_and_the_next_step_told(changes: dict[str, Any], message: str) -> None:
    wanted = identity().with_overrides(**changes)
    assert len(differences(identity(), wanted)) == 1
    with pytest.raises(CacheError, match=f"/there: .*{message}; point cache.uri elsewhere or remove it"):
        require_identity("/there", identity(), wanted)
    assert wanted.digest() != identity().digest()


def test_an_equal_identity_is_accepted() -> None:
    require_identity("/there", identity(), identity())
    assert differences(identity(), identity()) == []


def test_several_differences_are_all_named() -> None:
    wanted = identity("91bc" * 16).with_overrides(seed=2)
    with pytest.raises(CacheError, match=r"teacher.*; .*seed 1"):
        require_identity("/there", identity(), wanted)


@pytest.mark.parametrize("change", [{"mean": (0.4,)}, {"std": (0.2,)}, {"input_shape": (1, 9, 8)}])
def test_preprocessing_is_part_of_the_identity(change: dict[str, Any]) -> None:
    assert "preprocessing" in differences(identity(), identity(**change))[0]


def test_a_bank_fingerprint_depends_on_identity_and_recipe() -> None:
    prints = {
        bank_fingerprint(identity(), RECIPE),
        bank_fingerprint(identity(), ()),
        bank_fingerprint(identity("91bc" * 16), RECIPE),
    }
    assert len(prints) == 3


def test_a_folder_name_depends_on_every_recipe() -> None:
    names = {
        folder_name(identity(), {"weak": RECIPE, "strong": ()}),
        folder_name(identity(), {"weak": (), "strong": RECIPE}),
        folder_name(identity("91bc" * 16), {"weak": RECIPE, "strong": ()}),
    }
    assert len(names) == 3


def test_facts_need_a_training_sample() -> None:
    with pytest.raises(ValidationError, match="n_train"):
        FACTS.with_overrides(n_train=0)
