"""Which output of a teacher is which class of the data: found by name, since a wrong order shows nowhere.

Who says the names: the experiment file, else the file of weights, else the network itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from torch import nn

from trainables.checkpoint_header import stated_classes, stated_in_file
from trainables.config import ClassRows, TeacherSource
from trainables.errors import CheckpointError

_NAMED: Final = 5
_NO_NAME: Final = re.compile(r"LABEL_\d+")
"""What transformers calls a class whose name nobody gave."""


def known_classes(source: TeacherSource, network: nn.Module | None = None) -> tuple[str, ...] | None:
    """The names of a loaded teacher's classes in the order of its outputs; none where nobody says.

    Without the network, as before it is built, only what is written in files is known.
    """
    if not source.is_loaded:
        return None
    if source.classes is not None:
        return source.classes
    stated = None if source.checkpoint is None else stated_classes(Path(source.checkpoint))
    return stated if stated is not None or network is None else _of_network(network)


def names_its_classes(source: TeacherSource) -> bool:
    """Whether experiment or file of weights names them, in words of the data's and not of a library."""
    if source.classes is not None:
        return True
    return source.checkpoint is not None and stated_in_file(Path(source.checkpoint)) is not None


def class_rows(known: Sequence[str] | None, wanted: Sequence[str], *, whose: str) -> ClassRows | None:
    """Where the data's classes are among a teacher's; none where they are the same, or nobody names them.

    Raises:
        CheckpointError: the teacher lacks some, or has two of a name; it names them.
    """
    if known is None or tuple(known) == tuple(wanted):
        return None
    missing = [name for name in wanted if name not in known]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        near = get_close_matches(missing[0], known, n=1)
        hint = (
            f" (its nearest is {near[0]!r})" if near else f" (it has {', '.join(map(repr, known[:3]))} ...)"
        )
        raise CheckpointError(
            f"{whose} has {len(known)} classes, and none of them is called "
            f"{', '.join(map(repr, missing[:_NAMED]))}{more}, as classes of the data set are{hint}; where it "
            "knows them by other names, write the data's in the order of its outputs below the teacher: "
            "`classes: [...]`; where it does not, it cannot teach them"
        )
    twice = [name for name in wanted if list(known).count(name) > 1]
    if twice:
        raise CheckpointError(
            f"{whose} has two classes called {twice[0]!r}, so its order is not known by names; write them, "
            "each with a name of its own, in the order of its outputs below the teacher: `classes: [...]`"
        )
    return ClassRows(n_outputs=len(known), rows=tuple(known.index(name) for name in wanted))


def in_other_words(known: Sequence[str] | None, wanted: Sequence[str]) -> bool:
    """Whether these are as many classes as the data's, and none of them is called as one of these is."""
    return known is not None and len(known) == len(wanted) and not set(known) & set(wanted)


def _of_network(network: nn.Module) -> tuple[str, ...] | None:
    """What a network of transformers carries with it (`config.id2label`)."""
    labels = getattr(getattr(network, "config", None), "id2label", None)
    if not isinstance(labels, Mapping) or sorted(map(int, labels)) != list(range(len(labels))):
        return None
    names = tuple(str(labels[place]) for place in sorted(labels, key=int))
    return None if all(_NO_NAME.fullmatch(name) for name in names) else names
