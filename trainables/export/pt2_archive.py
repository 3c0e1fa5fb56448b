"""torch.export's archives, opened only where none of the known ways to run a program with them is taken.

torch.export.load unpickles what an archive marks as pickled, evaluates expressions of sizes and guards as
code, writes names into code, and calls any function below `torch` that a graph names. So each of these is
looked at first, and what an exported student does not have is refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch.fx import GraphModule

from trainables.errors import CheckpointError
from trainables.foreign_files import foreign_file, in_a_line

_ENTRIES: Final = re.compile(
    r"(archive_format|byteorder|version|archive_version|\.data/[\w.]+|\.format_version|\.storage_alignment"
    r"|models/\w+\.json|data/(weights|constants|sample_inputs)/\w+(\.json|\.pt)?|extra/[\w.]+)"
)
"""What stands in an archive of one exported program."""
_MODEL: Final = re.compile(r"models/\w+\.json")
_TENSORS: Final = re.compile(r"data/(weights|constants|sample_inputs)/\w+(\.pt)?")
_PACKED: Final = b"PK"
"""How a file begins that torch.save wrote."""
_OPERATORS: Final = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.(?!from_file)\w+\.\w+|torch\.sym_\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|math\.(floor|ceil|trunc|sqrt)"
)
_SYMBOLS: Final = frozenset({"Symbol", "positive", "nonnegative", "integer", "True", "False"})
_NUMBERS: Final = frozenset({"Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "max", "min"})
_DIVISIONS: Final = frozenset({"Mod", "PythonMod", "FloorDiv", "CeilDiv", "CleanDiv", "IntTrueDiv"})
_ROUNDINGS: Final = frozenset({"ToFloat", "FloatTrueDiv", "TruncToInt", "FloorToInt", "CeilToInt"})
_COMPARISONS: Final = frozenset({"Eq", "Ne", "Lt", "Le", "Gt", "Ge"})
_WORDS: Final = _SYMBOLS | _NUMBERS | _DIVISIONS | _ROUNDINGS | _COMPARISONS
"""Names of functions in an expression of sizes; all others must be symbols, as s0."""
_GUARD: Final = re.compile(r"L\['\w+'\]\.(size\(\)|shape)\[\d+\]|\b(and|or|not)\b")
"""The side of an input, in a condition on sizes."""
_NAME: Final = re.compile(r"[\w.]*")
_TOKEN: Final = re.compile(r"\s+|'[suz]\d+'|[suz]\d+|\d+(\.\d+)?|[A-Za-z]+|[-+*/(),=<>!&|~]")


def open_archive(path: Path) -> GraphModule:
    """The program of an archive as a module, for images BxCxHxW.

    Raises:
        CheckpointError: it is damaged, or has parts that could run as a program.
    """
    with foreign_file(lambda why: CheckpointError(f"{path} cannot be read: {why}; export the student again")):
        _require_harmless(path)
        module: GraphModule = torch.export.load(path).module()
    return module


def _require_harmless(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        inside = [name.partition("/")[2] for name in names]
        roots = {name.partition("/")[0] for name in names}
        strange = [name for name in inside if not _ENTRIES.fullmatch(name)]
        if strange or len(set(names)) < len(names) or len(roots) != 1:
            raise _refused(path, f"the part {strange[0] if strange else 'of one name twice'}")
        for name, place in zip(names, inside, strict=True):
            if _MODEL.fullmatch(place):
                _look_at_program(path, json.loads(archive.read(name)))
            elif _TENSORS.fullmatch(place):
                content = archive.read(name)
                if place.endswith(".pt") or content.startswith(_PACKED):
                    _require_tensors(path, place, content)


def _require_tensors(path: Path, place: str, content: bytes) -> None:
    """What is read without limits later holds tensors alone now."""
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # whatever stands there
        raise _refused(path, f"objects in {place}") from error


def _look_at_program(path: Path, program: dict[str, Any]) -> None:
    for guard in program.get("guards_code") or []:
        if not _is_arithmetic(_GUARD.sub(" ", str(guard))):
            raise _refused(path, f"the condition {guard!r}")
    for key, value in _leaves(program):
        if key == "target" and isinstance(value, str) and not _OPERATORS.fullmatch(value):
            raise _refused(path, f"a call of {value!r}")
        if key == "expr_str" and not _is_arithmetic(str(value)):
            raise _refused(path, f"the expression {value!r}")
        if (key == "name" or key.endswith("_name")) and not _NAME.fullmatch(str(value or "")):
            raise _refused(path, f"the name {value!r}")


def _is_arithmetic(text: str) -> bool:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or (match[0].isalpha() and match[0] not in _WORDS):
            return False
        place = match.end()
    return True


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values of all mappings in plain data, at any depth."""
    waiting = [value]
    while waiting:
        at = waiting.pop()
        if isinstance(at, dict):
            yield from at.items()
            waiting.extend(at.values())
        elif isinstance(at, list):
            waiting.extend(at)


def _refused(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} has {in_a_line(what)}, which no exported student needs and which could run as a program; "
        "it is not opened: use the safetensors or ONNX file of that student, which hold data alone"
    )
