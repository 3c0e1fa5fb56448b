"""A trial's files: the state that it goes on from, and the weights of its best epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables.errors import CheckpointError, StorageError
from trainables.local_files import replacing, sync
from trainables.models.weights import save_weights
from trainables.training.progress.checkpoint_paths import LAST, drop_states, kept_state

STATE_VERSION = 5


@dataclass(frozen=True)
class TrainingState:
    """Everything that the next epoch depends on; generators derive from the seed and the epoch."""

    epoch: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    best_epoch: int
    best_metrics: dict[str, float]
    best_model: dict[str, Tensor]
    history: list[dict[str, float]]
    """Metrics of every epoch so far, for a listener that missed some."""
    precision: str = "fp32"
    """Of the epochs so far: a course goes on as it began, also on a device that would choose another."""
    objective: dict[str, Tensor] = field(default_factory=dict)
    """Parameters and tables of the objective itself; empty for most."""
    average: dict[str, Tensor] = field(default_factory=dict)
    """The running mean of the weights; empty where the recipe has none."""
    average_steps: int = 0
    """Steps that the mean has taken in."""
    peers: list[dict[str, Any]] = field(default_factory=list)
    """Of each network that is trained beside the student, the parts of `Learner.state`."""
    packed: bool = False
    """Whether the epochs so far were trained in a pack: a course goes on as it began, where it can."""


class CheckpointFolder:
    """`last.pt` (to go on from) and `best.safetensors` (the student) of a trial, replaced atomically.

    With `keep_all` each state stays as `state-<epoch>.pt` as well. A trial that has no state of its own
    begins with the one in `origin`, another trial's, if that is given.
    """

    def __init__(
        self, folder: Path, *, spec_digest: str, keep_all: bool = False, origin: Path | None = None
    ) -> None:
        self.folder = folder
        self._keep_all = keep_all
        self._origin = origin
        self.best_path = folder / "best.safetensors"
        self._last_path = folder / LAST
        self._spec_digest = spec_digest
        self.went_on_in: str | None = None
        """The precision of the state that was loaded; none as long as none was."""
        self.began_packed = False
        """Whether the state that was loaded is of epochs in a pack."""

    def save_state(self, state: TrainingState) -> None:
        """Keep the state of a finished epoch.

        Raises:
            StorageError: the folder cannot be written; the previous state stays.
        """
        document = {"version": STATE_VERSION, "spec": self._spec_digest, **vars(state)}
        try:
            with replacing(self._last_path) as beside:
                with beside.open("wb") as file:  # given a path, torch hides why it could not write
                    torch.save(document, file)
                if self._keep_all:
                    self._keep(beside, state.epoch)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            raise _cannot_write(self._last_path, error) from error

    def _keep(self, beside: Path, epoch: int) -> None:
        """Give the state its second name first: a trial that goes on after it never writes it again."""
        sync(beside)
        kept = kept_state(self.folder, epoch)
        kept.unlink(missing_ok=True)
        kept.hardlink_to(beside)

    def load_state(self) -> TrainingState | None:
        """The last state kept for this very spec, else that of the origin, else none.

        Raises:
            CheckpointError: a file is damaged, or the origin's is gone.
        """
        state = self._state()
        self.went_on_in = None if state is None else state.precision
        self.began_packed = state is not None and state.packed
        return state

    def _state(self) -> TrainingState | None:
        own = _read(self._last_path) if self._last_path.exists() else None
        if own is not None and own[0] == self._spec_digest:
            return own[1]
        if self._origin is None:
            return None
        inherited = _read(self._origin) if self._origin.exists() else None
        if inherited is None:
            raise CheckpointError(f"{self._origin}, the state that this trial begins with, is gone")
        # Weights and optimiser are inherited, the merits of the other trial are not.
        return replace(inherited[1], best_epoch=0, best_metrics={}, best_model={})

    def save_best(self, model: nn.Module, metadata: Mapping[str, str]) -> Path:
        """Write the student's weights; what they are is in the metadata.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            save_weights(model, self.best_path, metadata)
        except OSError as error:
            raise _cannot_write(self.best_path, error) from error
        return self.best_path

    def drop_state(self) -> None:
        """Delete the state of a trial that will not go on; its best weights stay."""
        drop_states(self.folder, keep_for_forks=True)


def _read(path: Path) -> tuple[str, TrainingState] | None:
    """The digest of a state's spec, and the state; none when another version wrote it."""
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
        if document["version"] != STATE_VERSION:
            return None
        # What an earlier release did not know of has its default.
        known = {
            field.name: document[field.name] for field in fields(TrainingState) if field.name in document
        }
        state = TrainingState(**known)
        return str(document["spec"]), state
    except Exception as error:  # torch raises many kinds for a damaged file, with long advice
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}); delete it and run again"
        ) from error


def _cannot_write(path: Path, error: Exception) -> StorageError:
    return StorageError(f"cannot write {path}: {error}; free space and run again")
