"""The closed sections of a search-space file: one field for each hyper-parameter that may be searched."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidationError, create_model, model_serializer

from search_spaces.domains import Dimension, Domain
from trainables.config.base import Config, Scalar
from trainables.config.models import ModelConfig
from trainables.config.objectives import OBJECTIVE_CONFIGS
from trainables.config.training import TrainingConfig

STUDENT_FIELDS: Final = ("name", "variant", "width", "resolution", "cosine_head")
TRAINING_FIELDS: Final = (
    "epochs",
    "batch_size",
    "optimizer",
    "lr",
    "momentum",
    "nesterov",
    "weight_decay",
    "schedule",
    "warmup_epochs",
    "gamma",
    "label_smoothing",
    "clip_norm",
    "ema",
)
MAX_CORNERS: Final = 4096


class Section(Config):
    """Named dimensions; what is not given is not searched and keeps its default."""

    @model_serializer(mode="plain")
    def _given_only(self) -> dict[str, Any]:
        dimensions = self.dimensions().items()
        return {name: value.plain() if isinstance(value, Domain) else value for name, value in dimensions}

    def dimensions(self) -> dict[str, Dimension]:
        """The dimensions and constants that the file gives, in the order of their class."""
        given = self.model_fields_set
        return {name: getattr(self, name) for name in type(self).model_fields if name in given}

    def domains(self) -> dict[str, Domain]:
        """The dimensions that are searched."""
        return {name: value for name, value in self.dimensions().items() if isinstance(value, Domain)}

    def constants(self) -> dict[str, Scalar]:
        """The values that are fixed by the space."""
        return {name: value for name, value in self.dimensions().items() if not isinstance(value, Domain)}

    def corners(self) -> Iterator[dict[str, Scalar]]:
        """Every combination of extreme values; beyond 4096, each domain's with the others at their first."""
        domains = self.domains()
        ends = {name: domain.corners() for name, domain in domains.items()}
        n_combinations = 1
        for values in ends.values():
            n_combinations *= len(values)
        if n_combinations <= MAX_CORNERS:
            for values in itertools.product(*ends.values()):
                yield {**self.constants(), **dict(zip(ends, values, strict=True))}
            return
        first = {**self.constants(), **{name: values[0] for name, values in ends.items()}}
        for name, values in ends.items():
            for value in values:
                yield {**first, name: value}


def section_of(
    title: str, config: type[Config], fields: tuple[str, ...], bases: Mapping[str, Mapping[str, Scalar]]
) -> type[Section]:
    """A section with a dimension for each of these fields of a configuration class.

    Each corner of a dimension is proven by building the class from that one value, and from what `bases`
    have of other fields for it, or under "" for all that they do not name.
    """
    definitions: dict[str, Any] = {}
    for name in fields:
        base = bases.get(name, bases.get("", {}))
        proof = AfterValidator(functools.partial(_prove, config, name, base))
        description = config.model_fields[name].description
        definitions[name] = (
            Annotated[Dimension, proof],
            Field(None, description=description, json_schema_extra=_without_default),
        )
    return create_model(
        title, __base__=Section, __doc__=f"What may vary of {config.__name__}.", **definitions
    )


def _prove(config: type[Config], name: str, base: Mapping[str, Scalar], dimension: Dimension) -> Dimension:
    corners = dimension.corners() if isinstance(dimension, Domain) else (dimension,)
    for corner in corners:
        if name == "variant" and str(corner).startswith((".", "~")):
            raise ValueError(
                f"found {corner!r}, a folder's path; a space has no folder that paths start at: write the "
                "whole path, from / on, or name the folder as the experiment's student"
            )
        try:
            config.from_plain({**base, name: corner})
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            what = f"reaches {corner!r}, which {name} refuses" if isinstance(dimension, Domain) else "refused"
            raise ValueError(f"{what}: {_lower_first(reason)}") from error
    return dimension


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


OBJECTIVE_SECTIONS: Final[Mapping[str, type[Section]]] = MappingProxyType(
    {
        name: section_of(
            f"{config.__name__.removesuffix('Config')}Space",
            config,
            tuple(field for field in config.model_fields if field != "name"),
            {},
        )
        for name, config in OBJECTIVE_CONFIGS.items()
    }
)
if TYPE_CHECKING:  # a checker cannot follow classes that are made from other classes
    StudentSection = Section
    TrainingSection = Section
else:
    STUDENTS = {"": {"name": "convnet"}, "variant": {"name": "timm"}}
    StudentSection = section_of("StudentSpace", ModelConfig, STUDENT_FIELDS, STUDENTS)
    TrainingSection = section_of("TrainingSpace", TrainingConfig, TRAINING_FIELDS, {})
