"""StudentTrial: Tune's view of a trial, a thin proxy that submits to the broker and passes reports on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Self

import ray
from pydantic import Field
from ray import tune

from trainables.config import Config
from trainables.errors import TrialFailed
from trainables.slots.follower import Follower
from trainables.slots.messages import End, Message, TrainJob

POINTER: Final = "pointer.json"


class Pointer(Config):
    """The checkpoint of a proxy: the student's own state lies in the student's checkpoint folder."""

    job_id: str
    seen: int = Field(ge=0, description="messages of the job that Tune has")
    epoch: int = Field(ge=0, description="the last epoch that Tune has; 0 before the first")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The pointer that `write` put into a folder.

        Raises:
            OSError: the file cannot be read.
        """
        return cls.from_plain(json.loads((folder / POINTER).read_text()))

    def write(self, folder: Path) -> None:
        """Put the pointer into a folder."""
        (folder / POINTER).write_text(json.dumps(self.plain()))


class StudentTrial(tune.Trainable):
    """One `step` is one epoch that some slot has trained; nothing here imports torch.

    The driver composes the job and gives it with `assign`, after Tune has started or reset this proxy and
    before Tune restores it or asks for a step. Two proposals with the same content are the same job, and the
    broker answers the second from the first.
    """

    _job: TrainJob | None
    _follower: Follower | None = None
    _submitted: bool
    _heard: Message | None
    """What the next step gives."""
    _seen: int
    _epoch: int

    def setup(self, config: dict[str, Any], broker: Any = None) -> None:
        """Remember the broker; the configuration is in the job that the driver assigns."""
        self._broker = broker
        self._begin()

    def assign(self, job: TrainJob) -> None:
        """Take the job to follow; it is submitted with the first step."""
        self._job = job

    def step(self) -> dict[str, Any]:
        """The next epoch's report, which is waited for unless it was heard already.

        Raises:
            TrialFailed: the trial ended as failed; the text is its reason.
        """
        while (message := self._heard) is None:
            self.hear(ray.get(self.asking()))
        self._heard = None
        follower = self._follow()
        self._seen, self._epoch = len(follower.heard), max(self._epoch, message.epoch)
        if message.end is End.FAILED:
            raise TrialFailed(message.reason)
        return {
            **message.metrics,
            "epoch": message.epoch,
            "trial": follower.job_id,
            "message": message,
            "done": message.end is not None,
        }

    def asking(self) -> Any:
        """The call at the broker that the next step waits for, under way; `hear` takes its answer."""
        follower = self._follow()
        return follower.ask() if self._submitted else follower.submitting()

    def hear(self, answer: Any) -> bool:
        """Take the answer of such a call; whether the next step has its message with it."""
        follower = self._follow()
        if not self._submitted:
            self._submitted = True
            # A proxy that died and was started again goes on after what Tune has.
            self._seen = max(self._seen, int(answer))
            return False
        message = follower.hear(answer)
        # Those that Tune has are only added to what was heard.
        if message is not None and (len(follower.heard) > self._seen or message.end is not None):
            self._heard = message
        return self._heard is not None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make the same proxy ready for another trial."""
        self._begin()
        return True

    def cleanup(self) -> None:
        """Tell the broker that Tune has no more interest in this trial."""
        if self._follower is not None:
            self._follower.cancel()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a pointer."""
        pointer = Pointer(job_id=self._assigned().job_id, seen=self._seen, epoch=self._epoch)
        pointer.write(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # Tune gives a folder
        """Go on from a pointer; one of another job is where this job forks off."""
        pointer = Pointer.read(Path(checkpoint_dir))
        if pointer.job_id == self._assigned().job_id:
            self._seen = max(self._seen, pointer.seen)
        self._epoch = pointer.epoch

    def _begin(self) -> None:
        # Tune does not call cleanup between the trials of a reused proxy.
        self.cleanup()
        self._job = self._follower = self._heard = None
        self._submitted = False
        self._seen = self._epoch = 0

    def _assigned(self) -> TrainJob:
        if self._job is None:
            raise RuntimeError("the driver assigned no job to this proxy; see SearchFollower.on_trial_start")
        return self._job

    def _follow(self) -> Follower:
        if self._follower is None:
            job = self._assigned()
            self._follower = Follower(self._broker, job.job_id, job.plain(), holder=self.trial_id)
        return self._follower
