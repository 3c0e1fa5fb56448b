"""Stages: each is addressed by a fingerprint of its inputs, and finished work is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from orchestrator.console import Console
from orchestrator.ledger import Ledger


class Stages:
    """Runs stages in order and keeps their results in the ledger."""

    def __init__(self, ledger: Ledger, console: Console) -> None:
        self._ledger = ledger
        self._console = console
        self.seconds: dict[str, float] = {}

    def is_finished(self, stage: str, key: str) -> bool:
        """Whether the ledger holds the result of this stage for these inputs."""
        return self._ledger.finished(stage, key) is not None

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
        """
        done = self._ledger.finished(stage, key)
        if done is not None and still_valid(done["result"]):
            self.seconds[stage] = done["seconds"]
            self._console.info(f"{stage}: done before, {done['seconds']:.1f} s")
            return dict(done["result"])
        self._console.stage(stage)
        self._ledger.append("stage", stage=stage, key=key, status="started")
        began = time.monotonic()
        try:
            result = action()
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            spent = time.monotonic() - began
            self._ledger.append(
                "stage", stage=stage, key=key, status=status, seconds=spent, reason=str(error)[:2000]
            )
            raise
        self.seconds[stage] = time.monotonic() - began
        self._ledger.append(
            "stage", stage=stage, key=key, status="finished", seconds=self.seconds[stage], result=result
        )
        return result
