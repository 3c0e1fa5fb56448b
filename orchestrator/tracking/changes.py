"""What is to be changed in MLflow's runs, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

RUNNING: Final = "RUNNING"


class Point(NamedTuple):
    """One value of one metric; MLflow stores equal points once."""

    key: str
    value: float
    time_ms: int
    step: int


class Upload(NamedTuple):
    """A file or folder that a run keeps a copy of, in `folder` of its artifacts."""

    path: str
    folder: str | None


class State(NamedTuple):
    """The status of a run, and when it ended (None while it runs)."""

    status: str
    time_ms: int | None


@dataclass(frozen=True)
class TrialStart:
    """What the run of a student, or of a group of seeds, is created with."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    time_ms: int


@dataclass(frozen=True)
class DataSet:
    """What a run learned from, or was measured on."""

    name: str
    digest: str
    """At most 36 characters."""
    source: str
    """Where it is."""
    context: str
    """What it is used for."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """Rows, classes, bytes."""


@dataclass
class RunChange:
    """What a stretch of the ledger adds to one run; trial None is the parent."""

    trial: str | None
    group: str | None = None
    """Of a seed the group whose run is to be above its own."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    """Of curves, and of what is no student."""
    figures: list[Point] = field(default_factory=list)
    """Of a student as a whole."""
    has_model: bool = False
    """Whether it is finished, so that MLflow lists it among the models, with its figures."""
    inputs: list[DataSet] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    state: State | None = None
