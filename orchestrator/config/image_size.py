"""The size of images, and how they are brought to it, where the experiment leaves that to the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.validation_messages import Problem, as_error
from orchestrator.config.yaml_reader import Document
from trainables.config import DataName

if TYPE_CHECKING:
    from trainables.models.foreign.stated_sizes import StatedSize


def with_image_size(config: ExperimentConfig, document: Document) -> ExperimentConfig:
    """The experiment with the image size that its teacher states, where a folder of images has none.

    Raises:
        ConfigError: it needs one, and neither file nor teacher states it.
    """
    data = config.data
    if data.name is not DataName.IMAGE_FOLDER or data.image_size is not None:
        return config
    size = _stated(config)
    if size is None:
        text = (
            "found no `image_size`, the side in pixels to resize to; an image_folder needs it, unless the "
            "teacher's `checkpoint` (published, or a folder of transformers) states one, and of several "
            "teachers all state the same"
        )
        raise as_error(document, [Problem(("data",), text)])
    try:
        return config.with_overrides(data=data.with_overrides(image_size=size.side, resize=size.resize))
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        text = (
            f"found no `image_size`, and the teacher's own rule ({size.rule}) is not taken here: {reason}; "
            "write `image_size`, the side in pixels to resize to"
        )
        raise as_error(document, [Problem(("data",), text)]) from error


def _stated(config: ExperimentConfig) -> StatedSize | None:
    """What all teachers state; none where one states nothing, or another size than the others."""
    loaded = [each for each in config.each_teacher if each.model is not None and each.checkpoint is not None]
    if not loaded or len(loaded) < len(config.each_teacher):
        return None
    # Late: what a library states needs the library, and that needs torch.
    from trainables.models.foreign.stated_sizes import stated_size

    sizes = {stated_size(each.model, each.checkpoint) for each in loaded if each.model is not None}
    return sizes.pop() if len(sizes) == 1 else None
