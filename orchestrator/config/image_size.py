"""The size of images where the experiment leaves it to the teacher."""

from __future__ import annotations

from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.validation_messages import Problem, as_error
from orchestrator.config.yaml_reader import Document
from trainables.config import DataName


def with_image_size(config: ExperimentConfig, document: Document) -> ExperimentConfig:
    """The experiment with the image size that its teacher states, where a folder of images has none.

    Raises:
        ConfigError: it needs one, and neither file nor teacher states it.
    """
    data, teacher = config.data, config.teacher
    if data.name is not DataName.IMAGE_FOLDER or data.image_size is not None:
        return config
    size = None
    if teacher.model is not None and teacher.checkpoint is not None:
        # Late: what a library states needs the library, and that needs torch.
        from trainables.models.foreign.stated_sizes import stated_size

        size = stated_size(teacher.model, teacher.checkpoint)
    if size is None:
        text = (
            "found no `image_size`, the side in pixels to resize to; an image_folder needs it, unless the "
            "teacher's `checkpoint` (published, or a folder of transformers) states one"
        )
        raise as_error(document, [Problem(("data",), text)])
    return config.with_overrides(data=data.with_overrides(image_size=size.side))
