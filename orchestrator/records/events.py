"""The events of a ledger, one type for each kind; a line of `ledger.jsonl` is one event as a JSON object.

A ledger of another version can be read. Fields that an earlier version did not write have defaults, which
are never written. A kind that this version does not know is kept as an `UnknownEvent`, and a field that it
does not know is passed over: both change nothing in what is folded, shown or sent to MLflow, and the line in
the file stays as it is. A known kind without one of its required fields is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from trainables.config import Role

LAST_STAGE: Final = "summary"
"""Of a run: what is finished there is finished as a whole."""


class LedgerEvent(BaseModel):
    """What all kinds have; the ledger sets both fields when it writes the event."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int = Field(-1, description="number of its line, from 0")
    time_ms: int = Field(0, description="milliseconds since 1970, when it was written")

    def plain(self) -> dict[str, Any]:
        """Plain data for its line: number, time and kind, then the fields that were given."""
        fields = self.model_dump(exclude={"seq", "time_ms", "kind"}, exclude_unset=True)
        kind: str = getattr(self, "kind", "")
        return {"seq": self.seq, "time_ms": self.time_ms, "kind": kind, **fields}


class StageEvent(LedgerEvent):
    """A stage of the run began or ended; `key` is the fingerprint of its inputs."""

    kind: Literal["stage"] = "stage"
    stage: str
    key: str
    status: Literal["started", "finished", "failed", "interrupted"]
    seconds: float | None = Field(None, description="how long it took; none when it started")
    result: dict[str, Any] | None = Field(None, description="what it found, when it finished")
    reason: str | None = Field(None, description="why it failed or was interrupted")

    @property
    def found(self) -> dict[str, Any]:
        """The result; empty where there is none."""
        return self.result or {}


class StageEpoch(LedgerEvent):
    """What a stage trains finished an epoch; a stage that goes on after a crash may tell an epoch twice."""

    kind: Literal["stage_epoch"] = "stage_epoch"
    stage: str
    key: str = Field(description="of the stage: the fingerprint of its inputs")
    epoch: int = Field(description="counted from 1")
    metrics: dict[str, float] = Field(description="under split/name; accuracies are fractions")


class TeacherPrepared(LedgerEvent):
    """What the teacher is prepared with from here on, and by which recipe; told again when that changes."""

    kind: Literal["prepared"] = "prepared"
    part: str = Field(description="which kind of preparation: ss_head, branches")
    sha256: str = Field(description="of its kind and weights")
    recipe: dict[str, Any] = Field(description="how it was trained, as plain data")


class TrialStarted(LedgerEvent):
    """A student is about to be trained; a finalist that failed may start again, from nothing."""

    kind: Literal["trial_started"] = "trial_started"
    trial: str
    role: Role
    search: str = Field(description="fingerprint of the search that it belongs to")
    objective: str
    parameters: dict[str, Any] = Field(description="searched values only, flat: temperature, student.width")
    spec: dict[str, Any] = Field(description="the whole TrialSpec as plain data")
    sampled: dict[str, Any] = Field({}, description="what the searcher proposed")
    repeats: str | None = Field(
        None,
        description="of a finalist the searched trial that it repeats, with the seed of its spec; of the "
        "control the name that all its seeds share",
    )
    control: str | None = Field(
        None,
        description="no longer written: of a finalist the one control of its search, as what it `repeats`",
    )


class EpochEnded(LedgerEvent):
    """A student finished an epoch; a trial that goes on after a crash may tell an epoch twice."""

    kind: Literal["epoch"] = "epoch"
    trial: str
    epoch: int = Field(description="counted from 1")
    metrics: dict[str, float] = Field(description="under split/name; accuracies are fractions")
    precision: str | None = Field(
        None, description="what it was trained in, and what chose that; none in ledgers of earlier versions"
    )


class TrialEnded(LedgerEvent):
    """A student ended, with its weights where it was completed."""

    kind: Literal["trial_ended"] = "trial_ended"
    trial: str
    status: Literal["completed", "pruned", "failed"]
    epochs: int = Field(description="epochs that it finished")
    final: dict[str, float] = Field(description="metrics of the last epoch")
    reason: str | None = Field(description="why it was pruned or failed")
    best_epoch: int | None = Field(description="the epoch that is the best by the figure that ranks, from 1")
    best: dict[str, float] = Field(description="metrics of that epoch")
    checkpoint: str | None = Field(description="safetensors file with the weights of that epoch")


class Agreed(LedgerEvent):
    """What one slot found and all slots go by, as the precision of a student."""

    kind: Literal["agreed"] = "agreed"
    key: str
    value: str


class CodeSeen(LedgerEvent):
    """What a factory of the user's is made of, when that is used for the first time or was edited."""

    kind: Literal["code"] = "code"
    factory: str = Field(description="module:function")
    files: dict[str, str] = Field(description="by module name the sha256 of its file")


class FiguresAdded(LedgerEvent):
    """Costs and test figures of a student, which MLflow shows beside its run; without a trial, the run's."""

    kind: Literal["figures"] = "figures"
    trial: str | None
    figures: dict[str, int | float]
    latency_device: str | None = Field(
        None, description="model name of the GPU or CPU that the latencies among them were measured on"
    )
    control: str | None = Field(
        None, description="the student of the control, with the same seed, that `gain_over_control` is over"
    )
    same_compute_control: str | None = Field(
        None, description="the student of the control of equal compute, that `gain_same_compute` is over"
    )
    champion: bool | None = Field(
        None, description="whether its weights are the ones to ship; none where a run did not decide that"
    )


class GroupAdded(LedgerEvent):
    """Finalists or a control as a whole: what is claimed of its seeds together."""

    kind: Literal["group"] = "group"
    group: str = Field(description="what its seeds repeat, and `-seeds`")
    role: Role
    search: str = Field(description="fingerprint of the search that it belongs to")
    objective: str
    parameters: dict[str, Any] = Field(description="searched values, flat")
    trials: tuple[str, ...] = Field(description="its seeds")
    figures: dict[str, int | float] = Field(description="means and spreads over the seeds, gains, costs")
    latency_device: str | None = Field(None, description="of the latencies among the figures")
    control: str | None = Field(None, description="the group that its gain is over; none of a control")
    champion: bool = Field(False, description="whether a seed of it is the student to ship")


class ArtifactAdded(LedgerEvent):
    """A file or folder that MLflow keeps a copy of, for a student, or without a trial for the whole run."""

    kind: Literal["artifact"] = "artifact"
    trial: str | None
    path: str = Field(description="absolute")
    folder: str | None = Field(description="where it goes in the run's artifacts; none for their root")


class LedgerIdentity(LedgerEvent):
    """The ledger's own id, which marks its runs in MLflow."""

    kind: Literal["identity"] = "identity"
    ledger: str


class UnknownEvent(LedgerEvent):
    """An event of a kind that this version does not know; nothing is derived from it."""

    kind: str
    content: dict[str, Any] = Field(description="the whole line")

    def plain(self) -> dict[str, Any]:
        """The line as it was read."""
        return dict(self.content)


KnownEvent = (
    StageEvent
    | StageEpoch
    | TeacherPrepared
    | TrialStarted
    | EpochEnded
    | TrialEnded
    | Agreed
    | CodeSeen
    | FiguresAdded
    | GroupAdded
    | ArtifactAdded
    | LedgerIdentity
)
Event = KnownEvent | UnknownEvent
EventT = TypeVar("EventT", bound=Event)

KINDS: Final[Mapping[str, type[KnownEvent]]] = MappingProxyType(
    {
        "stage": StageEvent,
        "stage_epoch": StageEpoch,
        "prepared": TeacherPrepared,
        "trial_started": TrialStarted,
        "epoch": EpochEnded,
        "trial_ended": TrialEnded,
        "agreed": Agreed,
        "code": CodeSeen,
        "figures": FiguresAdded,
        "group": GroupAdded,
        "artifact": ArtifactAdded,
        "identity": LedgerIdentity,
    }
)


def read_event(line: Mapping[str, Any]) -> Event:
    """The event that a line holds.

    Raises:
        KeyError: the line has no `kind`.
        pydantic.ValidationError: a field of a known kind is missing, or holds what it must not.
    """
    kind = KINDS.get(line["kind"])
    if kind is None:
        stamp = {name: line[name] for name in LedgerEvent.model_fields if name in line}
        return UnknownEvent.model_validate({**stamp, "kind": line["kind"], "content": dict(line)})
    return kind.model_validate({name: line[name] for name in kind.model_fields if name in line})
