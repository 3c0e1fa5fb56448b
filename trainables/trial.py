"""StudentTrial: Tune's view of a trial, a thin proxy that submits to the broker and passes reports on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune

from trainables.errors import TrialFailed
from trainables.jobs import End, Message, TrainJob

NEXT_WAIT_S = 60.0

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
        message = None
        while message is None:
            message = ray.get(self._broker.next.remote(self._job_id, self._seen, NEXT_WAIT_S))
        self._seen += 1
        self._last = Message.from_plain(message)
        if self._last.end is End.FAILED:
            raise TrialFailed(self._last.reason)
        return {
            **self._last.metrics,
            "epoch": self._last.epoch,
            "trial": self._job_id,
            "message": message,
            "done": self._last.end is not None,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same actor."""
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Tell the broker that Tune has no more interest in this trial."""
        ray.get(self._broker.cancel.remote(self._job_id))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a pointer: the student's own state lies in its checkpoint folder."""
        pointer = {"job_id": self._job_id, "seen": self._seen}
        (Path(checkpoint_dir) / "pointer.json").write_text(json.dumps(pointer))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # Tune gives a folder
        """Go on from a pointer; after one of another job, from this job's first message."""
        pointer = json.loads((Path(checkpoint_dir) / "pointer.json").read_text())
        self._seen = pointer["seen"] if pointer["job_id"] == self._job_id else 0

    def _begin(self, config: Mapping[str, Any]) -> None:
        assert self._compose is not None  # noqa: S101  Tune calls setup first
        job = self._compose(config)
        previous = getattr(self, "_job_id", None)
        if previous is not None:
            # Tune does not call cleanup between the trials of a reused actor.
            ray.get(self._broker.cancel.remote(previous))
        self._job_id, self._seen = job.job_id, 0
        ray.get(self._broker.submit.remote(job.job_id, job.plain()))
