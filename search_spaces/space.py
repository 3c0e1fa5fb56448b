"""A search space: what may vary in a student's training, proven against the configuration it fills."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from search_spaces.domains import Bell, Domain, GridSearch, Listed
from search_spaces.objective_sections import Objectives
from search_spaces.scheduler_config import UNPERTURBED, FifoScheduler, PbtScheduler, Scheduler
from search_spaces.search_config import SearchConfig, why_not_each, why_not_minimised, why_not_ranked
from search_spaces.sections import Section, StudentSection, TrainingSection
from trainables.config.base import Config, Scalar
from trainables.config.objectives import OBJECTIVE_CONFIGS
from trainables.errors import ConfigError

GRID_KEY: Final = "grid"
"""Where a sampled configuration of a grid holds its point."""


@dataclass(frozen=True)
class ResolvedSample:
    """One sampled configuration as plain data."""

    objective: dict[str, Scalar]
    """For ObjectiveConfig; `name` is the objective's."""
    student: dict[str, Scalar]
    """Overrides of the experiment's student."""
    training: dict[str, Scalar]
    """Overrides of the experiment's recipe."""
    parameters: dict[str, Scalar]
    """The searched values alone, flat: temperature, student.width, training.lr; objective when it varies."""


class SpaceConfig(Config):
    """What may vary, and how the search walks through it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="name of the space")
    objectives: Objectives
    student: StudentSection = Field(StudentSection(), description="overrides of the experiment's student")
    training: TrainingSection = Field(TrainingSection(), description="overrides of the experiment's recipe")
    search: SearchConfig = SearchConfig()
    scheduler: Scheduler = FifoScheduler(name="fifo")

    def __reduce__(self) -> tuple[Any, ...]:
        """As plain data: Tune pickles its searcher, and the section classes have no name to be found by."""
        return type(self).from_plain, (self.plain(),)

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The objectives to choose from."""
        return tuple(self.objectives.given())

    def domains(self, objective: str) -> dict[tuple[str, str], Domain]:
        """What is searched with one objective, by (section, parameter); its own section has its name."""
        sections = {
            objective: self.objectives.given()[objective],
            "student": self.student,
            "training": self.training,
        }
        return {
            (section, name): domain
            for section, dimensions in sections.items()
            for name, domain in dimensions.domains().items()
        }

    def perturbed(self) -> list[tuple[str, str, Domain]]:
        """What population based training may change in a fork: section, parameter, domain.

        What is structural to an objective stays as it is in the trial whose state the fork takes over.
        """
        kept = self._structural()
        return [
            (section, name, domain)
            for objective in self.objective_names
            for (section, name), domain in self.domains(objective).items()
            if (section == objective and (section, name) not in kept)
            or (section == "training" and name not in UNPERTURBED)
        ]

    def _structural(self) -> list[tuple[str, str]]:
        """What is searched here that an objective's state, or its choice of features, depends on."""
        return [
            (objective, name)
            for objective, section in self.objectives.given().items()
            for name, domain in section.domains().items()
            if name in (config := OBJECTIVE_CONFIGS[objective]).structural
            or (name in config.structural_at_zero and domain.contains(0.0))
        ]

    def default_points(self) -> list[dict[str, Any]]:
        """The papers' defaults of what is searched, one point for each objective, in the form of a sample.

        Student and recipe are left out: their default is the experiment's, and the searcher draws them.
        """
        points = []
        for name, section in self.objectives.given().items():
            defaults = OBJECTIVE_CONFIGS[name].defaults(section.constants())
            point: dict[str, Any] = {"objective": name} if len(self.objective_names) > 1 else {}
            searched = {parameter: defaults[parameter] for parameter in section.domains()}
            points.append(point | ({name: searched} if searched else {}))
        return [point for point in points if point]

    def first_points(self) -> list[dict[str, Any]]:
        """The points that the file wants first, in the form of a sample; what is left out is drawn."""
        if self.search.points_to_evaluate == "defaults":
            return self.default_points()
        return [self._nested(point) for point in self.search.points_to_evaluate]

    def grid_size(self) -> int:
        """The number of configurations of a grid, without making them."""
        return sum(
            math.prod(len(domain.corners()) for domain in self.domains(objective).values())
            for objective in self.objective_names
        )

    def grid(self) -> list[dict[str, Any]]:
        """Every configuration of a grid in the form of a sample, those that match the first points first."""
        configs: list[dict[str, Any]] = []
        for objective in self.objective_names:
            domains = self.domains(objective)
            for values in itertools.product(*(domain.corners() for domain in domains.values())):
                config: dict[str, Any] = {"objective": objective}
                for (section, name), value in zip(domains, values, strict=True):
                    config.setdefault(section, {})[name] = value
                configs.append(config)
        points = self.first_points()
        return sorted(configs, key=lambda config: _rank(config, points))

    def resolve(self, sampled: Mapping[str, Any]) -> ResolvedSample:
        """What a sampled configuration means, in whichever form the searcher gives it.

        Raises:
            ConfigError: the sample lacks a value of this space.
        """
        values: Mapping[str, Any] = sampled.get(GRID_KEY, sampled)
        names = self.objective_names
        objective = str(values.get("objective", names[0] if len(names) == 1 else None))
        if objective not in names:
            raise ConfigError(f"sampled objective {objective!r} is none of {', '.join(names)}")
        parameters: dict[str, Scalar] = {"objective": objective} if len(names) > 1 else {}
        filled: dict[str, dict[str, Scalar]] = {
            objective: self.objectives.given()[objective].constants(),
            "student": self.student.constants(),
            "training": self.training.constants(),
        }
        for (section, name), domain in self.domains(objective).items():
            value = _tidy(domain, values.get(section, {}), f"{section}.{name}", name)
            filled[section][name] = value
            parameters[name if section == objective else f"{section}.{name}"] = value
        return ResolvedSample(
            {"name": objective, **filled[objective]}, filled["student"], filled["training"], parameters
        )

    def _nested(self, point: Mapping[str, Scalar]) -> dict[str, Any]:
        names = self.objective_names
        objective = str(point.get("objective", names[0]))
        nested: dict[str, Any] = {"objective": objective} if len(names) > 1 else {}
        for key, value in point.items():
            section, _, name = key.rpartition(".")
            if key != "objective":
                nested.setdefault(section or objective, {})[name] = value
        return nested

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        if not self.objective_names:
            raise _problem(("objectives",), f"give one or several of {', '.join(OBJECTIVE_CONFIGS)}")
        if len(self.objective_names) == 1 and not self.domains(self.objective_names[0]):
            raise _problem((), "nothing to search: give a parameter a domain, as {uniform: [1, 8]}")
        sections: dict[tuple[str, ...], Section] = {
            ("objectives", name): section for name, section in self.objectives.given().items()
        }
        sections |= {("student",): self.student, ("training",): self.training}
        for path, section in sections.items():
            for name, domain in section.domains().items():
                self._suits_algorithm((*path, name), domain)
        return self

    @model_validator(mode="after")
    def _suits_figure(self) -> Self:
        refusal = why_not_ranked(self.search, self.objectives.given())
        if refusal is not None:
            raise _problem(("search", "rank_by"), refusal)
        return self

    @model_validator(mode="after")
    def _suits_scheduler(self) -> Self:
        refusal = why_not_minimised(self.search, self.scheduler) or why_not_each(self.search)
        if refusal is not None:
            raise _problem(*refusal)
        name, algorithm = self.scheduler.name, self.search.algorithm
        allowed = ("random",) if isinstance(self.scheduler, PbtScheduler) else ("random", "grid")
        if self.scheduler.pauses and algorithm not in allowed:
            raise _problem(
                ("search", "algorithm"),
                f"{name} needs all trials before the first of them ends, so {algorithm} could learn nothing; "
                f"with {name} allowed: {', '.join(allowed)}",
            )
        if isinstance(self.scheduler, PbtScheduler) and not self.perturbed():
            text = (
                "pbt perturbs hyper-parameters of objectives and recipe, and none of them has a domain here"
            )
            if kept := ", ".join(f"{objective}.{name}" for objective, name in self._structural()):
                text += f" but {kept}, without which a fork could not take over another trial's state"
            raise _problem(("scheduler", "name"), text)
        return self

    def _suits_algorithm(self, path: tuple[str, ...], domain: Domain) -> None:
        algorithm = self.search.algorithm
        if algorithm == "grid" and not isinstance(domain, Listed):
            raise _problem(path, f"a grid cannot enumerate {domain.kind}; write grid_search: [...]")
        if algorithm != "grid" and isinstance(domain, GridSearch):
            raise _problem(path, f"grid_search is for algorithm grid; with {algorithm} write choice: [...]")
        if algorithm == "optuna" and isinstance(domain, Bell):
            raise _problem(path, f"optuna does not draw from {domain.kind}; use uniform, or algorithm random")

    @model_validator(mode="after")
    def _points_lie_inside(self) -> Self:
        if self.search.points_to_evaluate == "defaults":
            for name, section in self.objectives.given().items():
                defaults = OBJECTIVE_CONFIGS[name].defaults(section.constants())
                for parameter, domain in section.domains().items():
                    if not domain.contains(defaults[parameter]):
                        raise _problem(
                            ("objectives", name, parameter),
                            f"the paper's default {defaults[parameter]!r} lies outside, but is tried first: "
                            "widen the domain, or set search.points_to_evaluate to [] or to your points",
                        )
            return self
        for index, point in enumerate(self.search.points_to_evaluate):
            self._point_lies_inside(("search", "points_to_evaluate", index), point)
        return self

    def _point_lies_inside(self, path: tuple[str | int, ...], point: Mapping[str, Scalar]) -> None:
        names = self.objective_names
        objective = point.get("objective", names[0] if len(names) == 1 else None)
        if objective not in names:
            raise _problem((*path, "objective"), f"allowed: {', '.join(names)}")
        domains = {
            name if section == objective else f"{section}.{name}": domain
            for (section, name), domain in self.domains(str(objective)).items()
        }
        for key, value in point.items():
            if key == "objective":
                continue
            if key not in domains:
                raise _problem((*path, key), f"not searched here; allowed: {', '.join(domains) or 'nothing'}")
            if not domains[key].contains(value):
                domain = domains[key]
                raise _problem((*path, key), f"lies outside {domain.kind} {list(domain.arguments)}")


def _tidy(domain: Domain, values: Mapping[str, Any], key: str, name: str) -> Scalar:
    if name not in values:
        raise ConfigError(f"the sampled configuration has no {key}")
    try:
        return domain.tidy(values[name])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the sampled {key} is no value of its domain: {error}") from error


def matches(sample: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Whether a sample has every value that a point names."""
    return all(_covers(sample.get(key), value) for key, value in point.items())


def _covers(held: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(held, dict) and matches(held, wanted)
    return bool(held == wanted)


def _rank(config: Mapping[str, Any], points: list[dict[str, Any]]) -> int:
    return next((rank for rank, point in enumerate(points) if matches(config, point)), len(points))


def _problem(path: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """A problem deep in the file: the loader reads `path` to find its line."""
    return PydanticCustomError("space", "{message}", {"message": message, "path": path})
