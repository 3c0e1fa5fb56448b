"""The part of a space file that names objectives, each with the domains of its hyper-parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, create_model, model_serializer

from search_spaces.sections import OBJECTIVE_SECTIONS, Section
from trainables.config.base import Config
from trainables.config.objectives import OBJECTIVE_CONFIGS


class ObjectivesBase(Config):
    """The objectives of a space, one field for each that Stillhouse knows."""

    @model_serializer(mode="plain")
    def _given_only(self) -> dict[str, Any]:
        return {name: section.plain() for name, section in self.given().items()}

    def given(self) -> dict[str, Section]:
        """The objectives that the file names."""
        names = self.model_fields_set
        return {name: getattr(self, name) for name in type(self).model_fields if name in names}


if TYPE_CHECKING:
    Objectives = ObjectivesBase
else:
    Objectives = create_model(
        "Objectives",
        __base__=ObjectivesBase,
        __doc__="One or several objectives, each with the domains of its hyper-parameters.",
        **{
            name: (
                section,
                Field(
                    None,
                    description=OBJECTIVE_CONFIGS[name].__doc__,
                    json_schema_extra=lambda schema: schema.pop("default"),
                ),
            )
            for name, section in OBJECTIVE_SECTIONS.items()
        },
    )
