"""Which texts on a command line name an exported student, and not an experiment; without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from trainables.export.model_card import CARD_FILE
from trainables.export.stated import EXPORTED_SUFFIXES
from trainables.local_files import expanded

REGISTERED: Final = "models:/"
CHAMPION_FOLDER: Final = "champion"
"""Below the output folder of a run."""


def names_student(text: str) -> bool:
    """Whether a text names a file or folder of an exported student, or one in MLflow."""
    if text.startswith(REGISTERED):
        return True
    place = champion_place(text)
    return place.suffix in EXPORTED_SUFFIXES or (place / CARD_FILE).is_file()


def champion_place(text: str) -> Path:
    """The place that a text names; of a run's output folder, the champion's folder in it."""
    place = expanded(text)
    inside = place / CHAMPION_FOLDER
    return inside if (inside / CARD_FILE).is_file() else place
