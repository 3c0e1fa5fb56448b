"""What an exported file says of itself: all that is needed to prepare an image and to name an answer.

One JSON document, `StudentDocument`, stands in each format where that keeps texts: in the metadata of
safetensors and of ONNX under `stillhouse.student`, and in torch.export's archive as an extra file of that
name. `stillhouse schema student` prints its JSON schema.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from pydantic import Field

from trainables.checkpoint_header import file_metadata
from trainables.errors import CheckpointError
from trainables.export.model_card import CARD_FILE, CardFacts, ModelCard
from trainables.foreign_files import Unreadable, foreign_file
from trainables.local_files import file_sha256

STATED: Final = "stillhouse.student"
DOCUMENT_VERSION: Final = 1
EXPORTED_SUFFIXES: Final = (".safetensors", ".onnx", ".pt2")
FILES: Final[Mapping[str, str]] = MappingProxyType(
    {"safetensors": "student.safetensors", "onnx": "student.onnx", "torch_export": "student.pt2"}
)
"""What every champion is exported as, by format."""
_MAX_DOCUMENT_BYTES: Final = 64_000_000
"""No list of classes is longer; an archive may claim any size."""


class StudentDocument(CardFacts):
    """What a student's file says of itself, in each format alike."""

    document_version: int = Field(DOCUMENT_VERSION, description="goes up when a reader would misunderstand")
    input_shape: tuple[int, int, int] = Field(
        description="channels, height and width that the network takes; the batch is free"
    )
    takes: Literal["prepared images", "a picture"] = Field(
        "prepared images",
        description="prepared images: float32 NCHW, resized and normalised as `preparation` and "
        "`normalisation` say; a picture: uint8 HxWxC of any size, for the file does the rest",
    )


def stated_text(
    facts: CardFacts,
    input_shape: tuple[int, int, int],
    *,
    takes: Literal["prepared images", "a picture"] = "prepared images",
) -> str:
    """The document of a student as JSON."""
    own = {name: getattr(facts, name) for name in CardFacts.model_fields}
    return json.dumps(StudentDocument(**own, input_shape=input_shape, takes=takes).plain())


def document_of(path: Path) -> StudentDocument:
    """What an exported file says of itself; of an earlier version's, what the card beside it says.

    Raises:
        CheckpointError: it is no such file, cannot be read, or neither it nor a card says what it is.
    """
    if path.suffix not in EXPORTED_SUFFIXES:
        raise CheckpointError(
            f"{path} is no exported student: it ends in none of {', '.join(EXPORTED_SUFFIXES)}"
        )
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; name an exported student, or a champion's folder")
    with foreign_file(lambda why: CheckpointError(f"{path} cannot be read: {why}; export the student again")):
        text = _text_in(path)
    if text is None:
        return _from_card(path)
    with foreign_file(
        lambda why: CheckpointError(
            f"{path} describes itself in a way that this version does not know: {why}; it may be of a later "
            "version of stillhouse"
        )
    ):
        return StudentDocument.from_plain(json.loads(text))


def _text_in(path: Path) -> str | None:
    if path.suffix != ".pt2":
        return file_metadata(path).get(STATED)
    with zipfile.ZipFile(path) as archive:
        # Below a folder with the file's name; so torch writes archives.
        found = [entry for entry in archive.infolist() if entry.filename.endswith(f"/extra/{STATED}")]
        if not found or found[0].file_size > _MAX_DOCUMENT_BYTES:
            return None
        return archive.read(found[0]).decode("utf-8")


def _from_card(path: Path) -> StudentDocument:
    """From the card of the folder, where it lists just this file."""
    with suppress(Unreadable), foreign_file(Unreadable):
        card = ModelCard.from_plain(json.loads(path.with_name(CARD_FILE).read_text(encoding="utf-8")))
        known = [entry for entry in card.files.values() if entry.file == path.name]
        if known and known[0].sha256 == file_sha256(path):
            facts = {name: getattr(card, name) for name in CardFacts.model_fields}
            return StudentDocument(**facts, input_shape=card.input_shape)
    raise CheckpointError(
        f"{path} does not say how images are prepared for it, and no {CARD_FILE} beside it lists it as it "
        "is; name a file that stillhouse exported, with the card of its folder where it is of an earlier "
        "version"
    )
