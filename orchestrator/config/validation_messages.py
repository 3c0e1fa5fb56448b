"""From pydantic's errors to one line each: FILE:LINE: KEY: found VALUE; allowed: ...; did you mean 'X'?"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config.schema_description import SchemaWords, did_you_mean, nearest
from orchestrator.config.yaml_reader import MAX_SHOWN, Document, KeyPath, shortened
from orchestrator.terminal.masking import without_secrets
from trainables.config import Config
from trainables.errors import ConfigError

MAX_TOLD: Final = 20
"""Problems of one file that are told; of the others their number is."""
KEY: Final = "[key]"
"""What pydantic's location of an error has behind a key that is itself wrong."""
ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file."""

    path: KeyPath
    text: str
    unknown_key: bool = False
    missing_key: bool = False
    names: Sequence[str] = ()
    """Where an unknown key's nearest name is looked for, once it is told: that takes long."""


def build(model: type[ConfigT], document: Document) -> ConfigT:
    """The record that a file describes.

    Raises:
        ConfigError: a line for each problem in the file.
    """
    try:
        return model.from_plain(document.data)
    except ValidationError as error:
        words = _words(model)
        problems = [
            _problem(detail, document, words)
            for detail in error.errors(include_url=False, include_input=False)
        ]
        raise as_error(document, problems) from error


@functools.cache
def _words(model: type[Config]) -> SchemaWords:
    return SchemaWords(model.model_json_schema())


def as_error(document: Document, problems: Sequence[Problem]) -> ConfigError:
    """A line for each of these problems, in the order of the file, and how many more there are than are told.

    Of several at one place the first is told, and of a list or mapping only what is wrong inside it.
    """
    by_path: dict[KeyPath, Problem] = {}
    within = {problem.path[:length] for problem in problems for length in range(len(problem.path))}
    for problem in _without_misspelt(problems):
        if problem.path not in within:
            by_path.setdefault(problem.path, problem)
    ordered = sorted(by_path.values(), key=lambda problem: document.line(problem.path))
    lines = [_line(document, problem) for problem in ordered[:MAX_TOLD]]
    if more := ordered[MAX_TOLD:]:
        where = f"{document.file}:{document.line(more[0].path)}"
        lines.append(f"{where}: and {len(more)} more problems from this line on")
    return ConfigError(*lines)


@dataclass
class Problems:
    """What is wrong in several places, raised at once."""

    lines: list[str] = field(default_factory=list)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep the problems that come up here, and go on behind."""
        try:
            yield
        except ConfigError as error:
            self.lines += [line for line in error.problems if line not in self.lines]

    def raise_all(self) -> None:
        """Raise what was gathered, if anything.

        Raises:
            ConfigError: a line for each problem.
        """
        if self.lines:
            raise ConfigError(*self.lines)


def _line(document: Document, problem: Problem) -> str:
    place = f"{document.file}:{document.line(problem.path)}: "
    key = f"{dotted(problem.path)}: " if problem.path else ""
    hint = did_you_mean(problem.path[-1], problem.names) if problem.names else ""
    return " ".join(f"{place}{key}{problem.text}{hint}".split())


def dotted(path: KeyPath) -> str:
    """A path as people write it: views.weak.recipe[0].padding; long keys are shortened."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{shortened(part)}"
    return text.removeprefix(".")


def shown(value: object) -> str:
    """A value as it stands in the file, shortened, and without the password of a URI."""
    if value is None:
        return "nothing"
    text = _quoted(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def _quoted(value: object) -> str:
    if isinstance(value, str):
        return repr(without_secrets(value))
    return json.dumps(value, ensure_ascii=False, default=str)


def _without_misspelt(problems: Sequence[Problem]) -> list[Problem]:
    """Leaves out a key that is missing because it is misspelt next to it: that problem tells it already."""
    unknown: dict[KeyPath, list[str]] = {}
    for problem in problems:
        if problem.unknown_key:
            unknown.setdefault(problem.path[:-1], []).append(str(problem.path[-1]))
    kept = []
    for problem in problems:
        siblings = unknown.get(problem.path[:-1], []) if problem.missing_key else []
        if not (siblings and nearest(problem.path[-1], siblings)):
            kept.append(problem)
    return kept or list(problems)


def _problem(detail: ErrorDetails, document: Document, words: SchemaWords) -> Problem:
    kind, loc, context = detail["type"], detail["loc"], detail.get("ctx", {})
    if kind == "json_invalid":
        return Problem((), f"a value cannot be written as JSON: {detail['msg']}")
    if kind in ("missing", "union_tag_not_found"):
        return _missing(detail, document, words)
    if KEY in loc:
        return _wrong_key(loc[: loc.index(KEY)], document, words)
    if kind == "extra_forbidden":
        path = document.locate(loc)
        keys = words.names(words.at(loc[:-1]))
        return Problem(
            path, f"unknown key; allowed: {', '.join(keys) or 'none'}", unknown_key=True, names=keys
        )
    if kind in ("value_error", "space"):
        path = (*document.locate(loc), *context.get("path", ()))
        return _told(path, str(context.get("message") or context["error"]), document)
    path = document.locate(loc)
    value = document.value(path)
    if kind == "union_tag_invalid":
        return _wrong_tag(path, str(context["tag"]), words.at(loc), words)
    schema = words.at(_solid(loc))
    hint = did_you_mean(value, words.names(schema)) if isinstance(value, str) else ""
    return Problem(
        path, f"found {shown(value)}; allowed: {words.allowed(schema)}{hint or _quotes(kind, value)}"
    )


def _wrong_key(loc: tuple[str | int, ...], document: Document, words: SchemaWords) -> Problem:
    """A key that a mapping of free names does not take; the last part of the location."""
    allowed, names = words.keys(words.at(loc[:-1]))
    return Problem(document.locate(loc), f"unknown key; allowed: {allowed}", unknown_key=True, names=names)


def _solid(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A location without the members of a union of plain types, which the schema has no names for."""
    while loc and loc[-1] in ("bool", "int", "float", "str"):
        loc = loc[:-1]
    return loc


def _missing(detail: ErrorDetails, document: Document, words: SchemaWords) -> Problem:
    loc = detail["loc"]
    schema = words.at(loc)
    if detail["type"] == "union_tag_not_found":
        path = document.locate(loc)
        tag = schema.get("discriminator", {}).get("propertyName")
        if tag is None or not isinstance(document.value(path), dict):
            return Problem(path, f"found {shown(document.value(path))}; allowed: {words.allowed(schema)}")
        names = ", ".join(words.names(schema))
        return Problem((*path, tag), f"found nothing; allowed: {names}", missing_key=True)
    parent = document.locate(loc[:-1])
    if isinstance(loc[-1], int):
        allowed = words.allowed(words.at(loc[:-1]))
        return Problem(parent, f"found {shown(document.value(parent))}; allowed: {allowed}")
    return Problem((*parent, loc[-1]), f"found nothing; needed: {words.allowed(schema)}", missing_key=True)


def _wrong_tag(path: KeyPath, tag: str, schema: dict[str, Any], words: SchemaWords) -> Problem:
    """A union's tag that no member bears: the value of a key, or the one key of a domain."""
    names = words.names(schema)
    key = schema.get("discriminator", {}).get("propertyName")
    text = f"found {shortened(tag)!r}; allowed: {', '.join(names)}{did_you_mean(tag, names)}"
    return Problem((*path, key or tag), text)


def _told(path: KeyPath, message: str, document: Document) -> Problem:
    """A problem in the words of the model; what was found is shown where it is short."""
    try:
        value = document.value(path)
    except (KeyError, IndexError, TypeError):
        return Problem(path, f"found nothing; {message}")
    short = not isinstance(value, dict) or (len(value) == 1 and len(path) > 1)
    return Problem(path, f"found {shown(value)}; {message}" if short else message)


def _quotes(kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if kind in ("int_type", "float_type") and isinstance(value, str) and _is_number(value):
        return "; write it without quotes"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
