"""YAML as plain data that remembers its lines; nothing in a file can name code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from orchestrator.terminal.masking import without_secrets
from trainables.errors import ConfigError
from trainables.foreign_files import foreign_file

KeyPath = tuple[str | int, ...]

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 50
MAX_VALUES: Final = 100_000
"""Bounds what a few nested aliases can unfold to."""

MAX_SHOWN: Final = 60
"""Characters of a text of the file that a message shows."""

FREE: Final = "x-"
"""Keys that begin so are for the file's writer, who keeps anchors there: they are read past."""

_TAG: Final = "tag:yaml.org,2002:"
_SCALARS: Final = frozenset(_TAG + name for name in ("null", "bool", "int", "float", "str"))
_PLAIN: Final = _SCALARS | {_TAG + "map", _TAG + "seq", _TAG + "merge"}
_UNFIT: Final = re.compile("[\0\ud800-\udfff]")
"""What escapes can write, but no path, no terminal and no UTF-8 can hold."""


class _Loader(yaml.SafeLoader):
    """The safe loader, with YAML 1.2's numbers (1e-3), without dates, and bounded in depth."""

    depth = 0
    n_merged = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            problem = f"nested deeper than {MAX_DEPTH} levels"
            raise yaml.composer.ComposerError(problem=problem, problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self.n_merged += len(node.value)
        if self.n_merged > MAX_VALUES:
            problem = f"unfolds to more than {MAX_VALUES} values"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    dropped = {_TAG + "timestamp", _TAG + "float", _TAG + "int"}
    return {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in dropped]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.yaml_implicit_resolvers = _resolvers()
_Loader.add_implicit_resolver(
    _TAG + "int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    _TAG + "float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class Document:
    """A file's plain data, and the line of every key and list item in it."""

    file: str
    data: dict[str, Any]
    lines: dict[KeyPath, int]

    def line(self, path: Sequence[str | int]) -> int:
        """The line of a path, or of its nearest parent that stands in the file."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(tuple(path[:length]))) is not None:
                return line
        return self.lines.get((), 1)

    def locate(self, loc: Sequence[str | int]) -> KeyPath:
        """The path in the file of pydantic's location, which also names union members."""
        path: KeyPath = ()
        current: Any = self.data
        for part in loc:
            in_mapping = isinstance(current, dict) and part in current
            if in_mapping or (isinstance(current, list) and isinstance(part, int) and part < len(current)):
                current, path = current[part], (*path, part)
        return path

    def value(self, path: Sequence[str | int]) -> Any:
        """What stands at a path."""
        current: Any = self.data
        for part in path:
            current = current[part]
        return current


def read_yaml(path: Path) -> Document:
    """The mapping in a YAML file.

    Raises:
        ConfigError: a file that is missing, unreadable, no UTF-8, no YAML or no mapping; a key given twice;
            a tag that names code.
    """
    return parse_yaml(_text(path), file=str(path))


def parse_yaml(text: str, *, file: str) -> Document:
    """The mapping in a YAML text; `file` is what errors call it.

    Raises:
        ConfigError: as for `read_yaml`.
    """
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigError(
            f"{file}:{line}: character #x{error.character:04x} is not allowed in YAML"
        ) from error
    with foreign_file(lambda why: ConfigError(f"{file}:{loader.line + 1}: not YAML: {why}")):
        try:
            node, reader = loader.get_single_node(), _Reader(file, loader)
            data = reader.read(node, ()) if node is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            problem = shortened(str(error.problem or error.context), 2 * MAX_SHOWN)
            raise ConfigError(f"{file}:{line}: not YAML: {problem}") from error
    if node is None or data is None:
        raise ConfigError(f"{file}:1: the file is empty; start from `stillhouse init FILE --from digits`")
    if not isinstance(data, dict):
        found = "a list" if isinstance(data, list) else repr(shortened(str(data)))
        raise ConfigError(f"{file}:{node.start_mark.line + 1}: found {found}; allowed: `key: value` lines")
    return Document(file, data, reader.lines)


def shortened(text: str, most: int = MAX_SHOWN) -> str:
    """A text of the file for a message: cut, and with escapes for what would alter a terminal."""
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; give the YAML file in it") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        line = raw.count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: the file goes on; allowed: at most {MAX_BYTES} bytes, reached here"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from error


class _Reader:
    """Turns YAML nodes into plain data, and notes their lines."""

    def __init__(self, file: str, loader: _Loader) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._file = file
        self._loader = loader
        self._open: set[int] = set()
        self._n_values = 0

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        self._n_values += 1
        self.lines.setdefault(path, node.start_mark.line + 1)
        if self._n_values > MAX_VALUES:
            raise self._error(node, f"unfolds to more than {MAX_VALUES} values")
        if id(node) in self._open:
            raise self._error(node, "an alias that contains itself")
        if len(path) > MAX_DEPTH:
            raise self._error(node, f"nested deeper than {MAX_DEPTH} levels")
        if node.tag not in _PLAIN:
            raise self._error(node, f"tag {shortened(node.tag)!r} is not allowed; give plain values")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            value: Any = {key: self.read(child, (*path, key)) for key, child in self._pairs(node, path)}
        else:
            value = [self.read(child, (*path, index)) for index, child in enumerate(node.value)]
        self._open.discard(id(node))
        return value

    def _pairs(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, yaml.Node]]:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == _TAG + "merge":
                continue
            if key_node.tag != _TAG + "str" or not isinstance(key_node, yaml.ScalarNode):
                found = shortened(str(key_node.value))
                raise self._error(key_node, f"found the key {found!r}; allowed: text (put it in quotes)")
            self._require_fit(key_node)
            key = str(key_node.value)
            if key in seen:
                text = f"{shortened(key)}: given twice; the first stands in line {seen[key]}"
                raise self._error(key_node, text)
            seen[key] = key_node.start_mark.line + 1
            self.lines[(*path, key)] = seen[key]
        self._loader.flatten_mapping(node)
        merged = {str(key_node.value): (key_node, child) for key_node, child in node.value}
        node.value = list(merged.values())  # merged again elsewhere, repeated keys would multiply
        yield from ((key, child) for key, (_, child) in merged.items() if not key.startswith(FREE))

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        self._require_fit(node)
        found = f"{without_secrets(node.value)[:40]!r} is no {node.tag.removeprefix(_TAG)}"
        with foreign_file(lambda _: self._error(node, found)):
            value = self._loader.construct_object(node)
        if isinstance(value, int) and abs(value) >= 1 << 63:
            raise self._error(node, "a whole number beyond 64 bits")
        return value

    def _require_fit(self, node: yaml.ScalarNode) -> None:
        if found := _UNFIT.search(node.value):
            raise self._error(node, f"character #x{ord(found[0]):04x} is not allowed in a text")

    def _error(self, node: yaml.Node, problem: str) -> ConfigError:
        return ConfigError(f"{self._file}:{node.start_mark.line + 1}: {problem}")
