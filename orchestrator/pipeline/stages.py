"""Stages: each is addressed by a fingerprint of its inputs, and finished work is not done again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from orchestrator.pipeline.storage import storage_told
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.terminal.console import Console
from orchestrator.terminal.masking import without_secrets
from trainables.errors import StillhouseError


class Stages:
    """Runs stages in order and keeps their results in the ledger."""

    def __init__(self, ledger: Ledger, console: Console) -> None:
        self._ledger = ledger
        self._console = console
        self.seconds: dict[str, float] = {}

    def is_finished(self, stage: str, key: str) -> bool:
        """Whether the ledger holds the result of this stage for these inputs."""
        return self._ledger.finished(stage, key) is not None

    def is_latest(self, stage: str, key: str) -> bool:
        """Whether this stage finished for these inputs, and was not begun for others since."""
        events = [event for event in self._ledger.events_of(StageEvent) if event.stage == stage]
        return bool(events) and (events[-1].key, events[-1].status) == (key, "finished")

    def run(
        self,
        stage: str,
        key: str,
        action: Callable[[], dict[str, Any]],
        *,
        still_valid: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any]:
        """The stage's result: from the ledger when it was finished before and is valid, else from `action`.

        An exception or Ctrl-C is noted in the ledger and passed on.

        Raises:
            StillhouseError: storage takes no more, whoever met that first.
        """
        done = self._ledger.finished(stage, key)
        if done is not None and still_valid(done.found):
            self.seconds[stage] = done.seconds or 0.0
            self._console.info(f"{stage}: done before, {self.seconds[stage]:.1f} s")
            return dict(done.found)
        self._console.stage(stage)
        self._ledger.append(StageEvent(stage=stage, key=key, status="started"))
        began = time.monotonic()
        try:
            with storage_told(stage, self._ledger):
                result = action()
        except BaseException as error:
            ended = StageEvent(
                stage=stage,
                key=key,
                status="interrupted" if isinstance(error, KeyboardInterrupt) else "failed",
                seconds=time.monotonic() - began,
                reason=without_secrets(str(error))[:2000],  # cut off, an address hides no password
            )
            with contextlib.suppress(StillhouseError):  # of a ledger that takes no more: told below
                self._ledger.append(ended)
            raise
        self.seconds[stage] = time.monotonic() - began
        self._ledger.append(
            StageEvent(stage=stage, key=key, status="finished", seconds=self.seconds[stage], result=result)
        )
        return result
