"""StudentTrial: Tune's view of a trial, a thin proxy that submits to the broker and passes reports on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from trainables.errors import TrialFailed
from trainables.jobs import End, Message, TrainJob
from trainables.line import Follower

Compose = Callable[[Mapping[str, Any]], TrainJob]


class StudentTrial(tune.Trainable):
    """One `step` is one epoch that some slot has trained; nothing here imports torch.

    `compose` turns what the searcher sampled into a job; two proposals with the same content are the
    same job, and the broker answers the second from the first.
    """

    def setup(self, config: dict[str, Any], broker: Any = None, compose: Compose | None = None) -> None:
        """Remember the broker and submit the first configuration."""
        self._broker, self._compose = broker, compose
        self._begin(config)

    def step(self) -> dict[str, Any]:
        """The next epoch's report.

        Raises:
            TrialFailed: the trial ended as failed; the text is its reason.
        """
        self._last = self._next()
        self._seen = len(self._line.heard)
        if self._last.end is End.FAILED:
            raise TrialFailed(self._last.reason)
        return {
            **self._last.metrics,
            "epoch": self._last.epoch,
            "trial": self._line.job_id,
            "message": self._line.heard[-1],
            "done": self._last.end is not None,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same actor."""
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Tell the broker that Tune has no more interest in this trial."""
        self._line.cancel()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a pointer: the student's own state lies in its checkpoint folder."""
        pointer = {"job_id": self._line.job_id, "seen": self._seen}
        (Path(checkpoint_dir) / "pointer.json").write_text(json.dumps(pointer))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # Tune gives a folder
        """Go on from a pointer; after one of another job, from this job's first message."""
        pointer = json.loads((Path(checkpoint_dir) / "pointer.json").read_text())
        if pointer["job_id"] == self._line.job_id:
            self._seen = max(self._seen, pointer["seen"])

    def _begin(self, config: Mapping[str, Any]) -> None:
        assert self._compose is not None  # noqa: S101  Tune calls setup first
        job = self._compose(config)
        previous: Follower | None = getattr(self, "_line", None)
        if previous is not None:
            # Tune does not call cleanup between the trials of a reused actor.
            previous.cancel()
        self._line = Follower(self._broker, job.job_id, job.plain(), holder=self.trial_id)
        # A proxy that died and was started again goes on after what Tune has.
        self._seen = self._line.submit()

    def _next(self) -> Message:
        """The first message that Tune does not have; those before it are read for the line's memory only."""
        while True:
            message = self._line.next()
            if len(self._line.heard) > self._seen or message.end is not None:
                return message
