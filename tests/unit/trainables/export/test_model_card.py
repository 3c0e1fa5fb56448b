"""The model card: what it says, and that cards of earlier versions are read as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainables.export.model_card import CardFacts, ModelCard, read_intact_card, write_card

FACTS: dict[str, Any] = {
    "classes": ["a", "b"],
    "normalisation": {"mean": [0.5], "std": [0.5]},
    "metrics": {"test_accuracy": 0.9},
    "lineage": {
        "teacher": None,
        "cache": None,
        "trial_id": "kd-1-seed0",
        "objective": "kd",
        "hyper_parameters": {},
        "seed": 7,
    },
}
LATENCY = {"median_ms": 0.125, "p95_ms": 0.18, "device": "Intel Xeon"}
REST: dict[str, Any] = {
    "identity": "3f2a",
    "input_shape": [1, 8, 8],
    "onnx_opset": 18,
    "files": {},
    "versions": {},
}


def test_the_card_tells_a_latency_with_its_device(tmp_path: Path) -> None:
    card = ModelCard.from_plain({**FACTS, **REST, "latency": LATENCY})
    write_card(tmp_path, card)
    again = read_intact_card(tmp_path)
    assert again == card
    assert again is not None
    assert again.plain()["latency"] == LATENCY


def test_the_card_tells_what_the_student_was_trained_in(tmp_path: Path) -> None:
    write_card(tmp_path, ModelCard.from_plain({**FACTS, **REST, "precision": "bf16 (table 1)"}))
    card = read_intact_card(tmp_path)
    assert card is not None
    assert card.precision == "bf16 (table 1)"


def test_a_card_of_an_earlier_version_is_read_and_keeps_its_content(tmp_path: Path) -> None:
    write_card(tmp_path, ModelCard.from_plain({**FACTS, **REST}))
    assert "latency" not in (tmp_path / "model_card.json").read_text()
    card = read_intact_card(tmp_path)
    assert card is not None
    assert card.latency is None
    assert (card.architecture, card.preparation, card.precision) == (None, None, None)
    assert CardFacts.from_plain(FACTS).plain().keys() == FACTS.keys()


def test_a_latency_without_its_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device"):
        CardFacts.from_plain({**FACTS, "latency": {"median_ms": 0.1, "p95_ms": 0.2}})
