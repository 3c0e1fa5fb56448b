"""Reads the two files that a user writes, the experiment and the search space."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import search_spaces
from orchestrator.config import path_checks
from orchestrator.config.asked_features import taught_objectives
from orchestrator.config.constraints import parse_constraints
from orchestrator.config.cross_checks import Both, check_together
from orchestrator.config.image_size import with_image_size
from orchestrator.config.overrides import Overrides
from orchestrator.config.pairs import chosen, split_pair, with_pair
from orchestrator.config.picking.figures import figure_named, figures_named
from orchestrator.config.schema import ExperimentConfig
from orchestrator.config.schema_description import did_you_mean
from orchestrator.config.teacher_schema import TeacherConfig
from orchestrator.config.validation_messages import Problem, Problems, as_error, build, shown
from orchestrator.config.yaml_reader import Document, KeyPath, read_yaml, shortened
from search_spaces.space import SpaceConfig
from trainables.checkpoint_header import weights_file
from trainables.config import DataConfig, ModelConfig, ModelName
from trainables.config.checkpoints import is_elsewhere, is_published
from trainables.errors import ConfigError
from trainables.local_files import expanded
from trainables.user_code import Sources, look_in, sources_of

EXPERIMENTS_FOLDER: Final = Path(__file__).parents[1] / "experiments"
SPACES_FOLDER: Final = Path(search_spaces.__file__).parent
_SUFFIXES: Final = frozenset({".yaml", ".yml"})
_SCHEME: Final = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment with its search space, checked against each other; paths in it are absolute."""

    config: ExperimentConfig
    space: SpaceConfig
    source: Path
    """The experiment's file."""
    space_source: Path
    pairs: tuple[str, ...] = ()
    """Names of all pairs of the file."""
    code: Mapping[str, Sources] = field(default_factory=dict)
    """By factory, what the user's code is made of."""

    @property
    def folder(self) -> Path:
        """Where relative paths of the experiment's file start."""
        return self.source.resolve().parent

    @property
    def in_words(self) -> str:
        """What is to be said of its teacher and of unlabelled images, where that is not as usual."""
        none = "" if taught_objectives(self.space) else "; no objective hears a teacher, so none is made"
        return none + self.config.unlabelled_in_words


def load_experiment(
    ref: str, *, overrides: Overrides | None = None, check_paths: bool = True
) -> LoadedExperiment:
    """The experiment that a shipped name or a path names, with its space.

    Behind either may stand which of its pairs it is about: `cifar100:vgg13-vgg8`. `check_paths=False` leaves
    out whether data and checkpoint exist: another machine may hold them.

    Raises:
        ConfigError: a line for each problem, with file, line, key, what was found and what is allowed.

    Side effect: factories are looked for beside the experiment's file from now on.
    """
    overrides = overrides or Overrides()
    name, pair = split_pair(ref)
    source = _find(name, EXPERIMENTS_FOLDER, kind="experiment")
    whole = read_yaml(source)
    document = _paired(whole, pair)
    folder = source.resolve().parent
    problems = Problems()
    with problems.gathered():
        config = _resolved(build(ExperimentConfig, document), document, folder)
        config = with_image_size(config, document)
        if check_paths:
            path_checks.check_paths(config, document)
    with problems.gathered():
        space_document = _space_document(document, folder, overrides)
        space = build(SpaceConfig, space_document)
    problems.raise_all()
    config = _overridden(config, overrides, space_document)
    pairs = tuple(whole.data.get("pairs") or ())
    unchosen = () if config.has_teacher else pairs  # a pair brings its teacher
    check_together(Both(config, space, document, space_document, unchosen))
    look_in(folder)
    return LoadedExperiment(config, space, source, Path(space_document.file), pairs, _code(config))


def _code(config: ExperimentConfig) -> dict[str, Sources]:
    """Of data, teacher and student; a factory that is not found is told where it is loaded."""
    found = {path: sources_of(path) for path in config.factories}
    return {path: sources for path, sources in found.items() if sources is not None}


def load_space(ref: str) -> SpaceConfig:
    """The search space that a shipped name or a path names.

    Raises:
        ConfigError: as for `load_experiment`.
    """
    return build(SpaceConfig, read_yaml(_find(ref, SPACES_FOLDER, kind="search space")))


def is_space_file(ref: str) -> bool:
    """Whether a path names a YAML file that describes a search space.

    Raises:
        ConfigError: a path to a file that cannot be read.
    """
    name, _ = split_pair(ref)
    return _is_path(name) and "objectives" in read_yaml(expanded(name)).data


def shipped(folder: Path) -> dict[str, str]:
    """Names of the shipped files in and below a folder, with their first comment line."""
    return {name: _headline(path) for name, path in _files_below(folder).items()}


def _files_below(folder: Path) -> dict[str, Path]:
    return dict(sorted((path.stem, path) for path in folder.rglob("*.yaml")))


def _headline(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def shipped_file(name: str, folder: Path, *, kind: str) -> Path:
    """The shipped file of that name.

    Raises:
        ConfigError: there is none; it names those that there are.
    """
    files = _files_below(folder)
    if name not in files:
        raise ConfigError(
            f"no shipped {kind} {shortened(name)!r}; allowed: {', '.join(files)}, or the path of a .yaml file"
            f"{did_you_mean(name, files)}"
        )
    return files[name]


def _find(ref: str, folder: Path, *, kind: str) -> Path:
    return expanded(ref) if _is_path(ref) else shipped_file(ref, folder, kind=kind)


def _is_path(ref: str) -> bool:
    return "/" in ref or Path(ref).suffix in _SUFFIXES


def _paired(document: Document, wanted: str | None) -> Document:
    """The document of the chosen pair; every other pair of the file must make a valid experiment too."""
    if wanted is None and not {"pair", "pairs"} & document.data.keys():
        return document
    build(ExperimentConfig, document)
    problems = Problems()
    for name in document.data.get("pairs") or {}:
        with problems.gathered():
            build(ExperimentConfig, with_pair(document, name))
    problems.raise_all()
    return with_pair(document, chosen(document, wanted))


def _space_document(document: Document, folder: Path, overrides: Overrides) -> Document:
    if overrides.space is not None:
        try:
            return read_yaml(_find(overrides.space, SPACES_FOLDER, kind="search space").resolve())
        except ConfigError as error:
            raise ConfigError(f"--space: {error}") from error
    named = document.data.get("space")
    if not isinstance(named, str):
        raise ConfigError  # with no line: reading the experiment tells what is wrong with it
    if _is_path(named):
        path = _absolute(document, ("space",), folder)
        if not path_checks.is_there(path, stat.S_ISREG):
            message = f"found {shown(named)}; allowed: a shipped name or an existing file, not {path}"
            raise as_error(document, [Problem(("space",), message)])
        return read_yaml(path)
    try:
        return read_yaml(shipped_file(named, SPACES_FOLDER, kind="search space"))
    except ConfigError as error:
        raise as_error(document, [Problem(("space",), str(error))]) from error


def _overridden(config: ExperimentConfig, overrides: Overrides, space_document: Document) -> ExperimentConfig:
    changes: dict[str, Any] = {}
    if overrides.space is not None:
        changes["space"] = space_document.file if _is_path(overrides.space) else overrides.space
    if overrides.out is not None:
        changes["out"] = str(overrides.out)
    if overrides.int8_aware and config.export.aware is None:
        changes["export"] = config.export.with_overrides(int8_aware=True)
    budget = {"trials": overrides.trials, "finalists": overrides.finalists}
    if given := {name: value for name, value in budget.items() if value is not None}:
        changes["budget"] = config.budget.with_overrides(**given)
    picked: dict[str, Any] = {}
    for name, check in (("where", parse_constraints), ("rank", figure_named), ("pareto", figures_named)):
        if (text := getattr(overrides, name)) is None:
            continue
        try:
            check(text)
        except ValueError as error:
            raise ConfigError(f"--{name}: {error}") from error
        picked[name] = text
    if picked:
        changes["pick"] = config.pick.with_overrides(**picked)
    return config.with_overrides(**changes)


def _resolved(config: ExperimentConfig, document: Document, folder: Path) -> ExperimentConfig:
    """With absolute paths: relative ones start at the experiment's file."""

    problems = Problems()

    def absolute(text: str | None, *key: str | int) -> str | None:
        if text is not None and not _SCHEME.match(text):
            with problems.gathered():
                return str(_absolute(document, key, folder))
        return text

    def teacher_resolved(teacher: TeacherConfig, *key: str | int) -> TeacherConfig:
        if teacher.model is not None:
            model = teacher.model.with_overrides(
                **_built_from(teacher.model, folder, absolute, *key, "model")
            )
            teacher = teacher.with_overrides(model=model)
        return teacher.with_overrides(checkpoint=_weights(teacher.checkpoint, absolute, *key))

    several = [teacher_resolved(each, "teachers", place) for place, each in enumerate(config.teachers)]
    taught: dict[str, Any] = {"teachers": several} if several else {}
    if config.has_teacher and not several:
        taught = {"teacher": teacher_resolved(config.teacher, "teacher")}
    space = absolute(config.space, "space") if _is_path(config.space) else config.space
    resolved = config.with_overrides(
        data=_data_resolved(config.data, absolute),
        **taught,
        student=config.student.with_overrides(
            checkpoint=_weights(config.student.checkpoint, absolute, "student"),
            **_built_from(config.student, folder, absolute, "student"),
        ),
        cache=config.cache.with_overrides(uri=absolute(config.cache.uri, "cache", "uri")),
        space=space,
    )
    if config.out is not None:
        with problems.gathered():
            _absolute(document, ("out",), folder)
    problems.raise_all()
    return resolved


def _data_resolved(data: DataConfig, absolute: Callable[..., str | None]) -> DataConfig:
    root = absolute(data.root, "data", "root")
    if data.unlabelled is None:
        return data.with_overrides(root=root)
    folder = absolute(data.unlabelled.root, "data", "unlabelled", "root")
    return data.with_overrides(root=root, unlabelled=data.unlabelled.with_overrides(root=folder))


def _weights(text: str | None, absolute: Callable[..., str | None], *key: str | int) -> str | None:
    """A checkpoint, absolute where it is a file; of a folder of transformers, the file in it."""
    path = text if is_published(text) else absolute(text, *key, "checkpoint")
    return path if path is None or is_elsewhere(text) else str(weights_file(Path(path)))


def _built_from(
    model: ModelConfig, folder: Path, absolute: Callable[..., str | None], *key: str | int
) -> dict[str, Any]:
    """Where transformers finds the network: beside the experiment's file, or on the hub."""
    variant = model.variant if model.name is ModelName.TRANSFORMERS else None
    if variant is None or not (variant[0] in "./~" or path_checks.is_there(folder / variant, stat.S_ISDIR)):
        return {}
    return {"variant": absolute(variant, *key, "variant")}


def _absolute(document: Document, key: KeyPath, folder: Path) -> Path:
    try:
        return (folder / expanded(document.value(key))).resolve()
    except ConfigError as error:
        raise as_error(document, [Problem(key, str(error))]) from error
