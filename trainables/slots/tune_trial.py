"""StudentTrial: Tune's view of a trial, a thin proxy that submits to the broker and passes reports on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from trainables.config import Fork
from trainables.errors import TrialFailed
from trainables.slots.follower import Follower
from trainables.slots.messages import End, Message, TrainJob

Compose = Callable[[Mapping[str, Any], Fork | None], TrainJob]
POINTER = "pointer.json"


class StudentTrial(tune.Trainable):
    """One `step` is one epoch that some slot has trained; nothing here imports torch.

    `compose` turns what the searcher sampled into a job; two proposals with the same content are the
    same job, and the broker answers the second from the first. A trial that is given a pointer together
    with another configuration than the pointer's is a fork: a job that begins with the other job's state.
    """

    _line: Follower | None = None
    _fork: Fork | None
    _sampled: dict[str, Any]
    _seen: int
    _epoch: int

    def setup(self, config: dict[str, Any], broker: Any = None, compose: Compose | None = None) -> None:
        """Remember the broker and submit the first configuration."""
        self._broker, self._compose = broker, compose
        self._begin(config)

    def step(self) -> dict[str, Any]:
        """The next epoch's report.

        Raises:
            TrialFailed: the trial ended as failed; the text is its reason.
        """
        line = self._follow()
        self._last = self._next(line)
        self._seen, self._epoch = len(line.heard), max(self._epoch, self._last.epoch)
        if self._last.end is End.FAILED:
            raise TrialFailed(self._last.reason)
        return {
            **self._last.metrics,
            "epoch": self._last.epoch,
            "trial": line.job_id,
            "message": self._last,
            "sampled": self._sampled,
            "fork": self._fork and self._fork.plain(),
            "done": self._last.end is not None,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same actor."""
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Tell the broker that Tune has no more interest in this trial."""
        if self._line is not None:
            self._line.cancel()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a pointer: the student's own state lies in its checkpoint folder."""
        pointer = {
            "job_id": self._job().job_id,
            "seen": self._seen,
            "epoch": self._epoch,
            "sampled": self._sampled,
            "fork": self._fork and self._fork.plain(),
        }
        (Path(checkpoint_dir) / POINTER).write_text(json.dumps(pointer))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # Tune gives a folder
        """Go on from a pointer; one of another configuration is where this trial forks off."""
        pointer = json.loads((Path(checkpoint_dir) / POINTER).read_text())
        if pointer["sampled"] == self._sampled:
            self._fork = Fork.from_plain(pointer["fork"]) if pointer["fork"] else None
            self._seen = max(self._seen, pointer["seen"])
        else:
            self._fork = Fork(trial_id=pointer["job_id"], epoch=pointer["epoch"])
        self._epoch = pointer["epoch"]

    def _begin(self, config: Mapping[str, Any]) -> None:
        # Tune does not call cleanup between the trials of a reused actor.
        self.cleanup()
        # Submitted with the first step: only a pointer, which comes after this, tells that it is a fork.
        self._line = None
        self._sampled = sampled_values(config)
        self._fork = None
        self._seen = self._epoch = 0

    def _job(self) -> TrainJob:
        assert self._compose is not None  # noqa: S101  Tune calls setup first
        return self._compose(self._sampled, self._fork)

    def _follow(self) -> Follower:
        if self._line is None:
            job = self._job()
            self._line = Follower(self._broker, job.job_id, job.plain(), holder=self.trial_id)
            # A proxy that died and was started again goes on after what Tune has.
            self._seen = max(self._seen, self._line.submit())
        return self._line

    def _next(self, line: Follower) -> Message:
        """The first message that Tune does not have; those before it are read for the line's memory only."""
        while True:
            message = line.next()
            if len(line.heard) > self._seen or message.end is not None:
                return message


def sampled_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the searcher proposed, without Tune's own entries."""
    return {key: value for key, value in config.items() if not key.startswith("__")}
