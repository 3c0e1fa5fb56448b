"""From messages to ledger events: every epoch once, every trial with its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from orchestrator.records.events import Agreed, EpochEnded, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from trainables.config import Fork, Role
from trainables.slots.messages import End, Message, TrainJob


class Bookkeeper:
    """Writes what students report into the ledger; what the ledger knows already is passed over."""

    def __init__(
        self, ledger: Ledger, *, search: str, agreements: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        """`agreements` gives what slots agreed on; it is kept before a trial's first epoch."""
        self._ledger = ledger
        self._search = search
        self._agreements = agreements
        self._known = agreements_in(ledger)

    def started(
        self,
        job: TrainJob,
        *,
        parameters: Mapping[str, Any],
        sampled: Mapping[str, Any] | None = None,
        repeats: str | None = None,
    ) -> None:
        """A student is about to be trained; one that goes on from an earlier run is not noted again.

        `repeats` is of a finalist the searched trial, of a control the name that all its seeds share.

        A finalist that was not completed in an earlier run gets another chance; a trial of the search that
        ended does not.
        """
        spec = job.trial
        relation = {} if repeats is None else {"repeats": repeats}
        record = self._ledger.trial(spec.trial_id)
        if record is not None and (spec.role is Role.SEARCH or record.status in ("running", "completed")):
            return
        self._ledger.append(
            TrialStarted(
                trial=spec.trial_id,
                role=spec.role,
                search=self._search,
                objective=spec.objective.name,
                parameters=dict(parameters),
                spec=spec.plain(),
                sampled=dict(sampled or {}),
                **relation,
            )
        )

    def reported(self, trial: str, message: Message) -> None:
        """One message of a student, the last one with its end."""
        record = self._ledger.trial(trial)
        if record is None or record.status != "running":
            return
        if record.epochs == 0:
            self._agreed(self._agreements())
        if message.epoch > record.epochs and message.metrics:
            told = {} if message.precision is None else {"precision": message.precision}
            self._ledger.append(EpochEnded(trial=trial, epoch=message.epoch, metrics=message.metrics, **told))
        if message.end is End.COMPLETED:
            self._ended(
                trial,
                "completed",
                best_epoch=message.best_epoch,
                best=message.best,
                checkpoint=message.checkpoint,
            )
        elif message.end is not None:
            self._ended(trial, "failed" if message.end is End.FAILED else "pruned", reason=message.reason)

    def pruned(self, trial: str, reason: str) -> None:
        """The scheduler stopped a student."""
        if self._is_running(trial):
            self._ended(trial, "pruned", reason=reason)

    def replaced(self, trial: str, by: str, fork: Fork) -> None:
        """The place of a student in its population was taken by a fork of another."""
        self.pruned(trial, f"replaced by {by}, which forked from {fork.trial_id} after epoch {fork.epoch}")

    def failed(self, trial: str, reason: str) -> None:
        """A student cannot go on."""
        if self._is_running(trial):
            self._ended(trial, "failed", reason=reason)

    def status(self, trial: str) -> str:
        """How a trial that started stands: running, completed, pruned or failed.

        Raises:
            KeyError: the ledger does not know it.
        """
        record = self._ledger.trial(trial)
        if record is None:
            raise KeyError(trial)
        return record.status

    def count(self, status: str) -> int:
        """Trials of this search that ended so."""
        return sum(r.status == status for r in self._ledger.trials(search=self._search, role=Role.SEARCH))

    def failures(self) -> str:
        """How many trials of this search failed and why, equal reasons together, the most frequent first."""
        by_reason: dict[str, list[str]] = {}
        for record in self._ledger.trials(search=self._search, role=Role.SEARCH):
            if record.status == "failed":
                by_reason.setdefault(" ".join((record.reason or "").split()), []).append(record.trial)
        told = [
            f"{len(trials)} x {reason or 'no reason given'} ({', '.join(trials[:3])}"
            f"{', ...' if trials[3:] else ''})"
            for reason, trials in sorted(by_reason.items(), key=lambda item: -len(item[1]))
        ]
        n_failed = sum(map(len, by_reason.values()))
        return f"{n_failed} trials failed: {'; '.join(told) or 'none'}; see the ledger {self._ledger.path}"

    def _agreed(self, found: Mapping[str, str]) -> None:
        for key, value in found.items():
            if key not in self._known:
                self._known[key] = value
                self._ledger.append(Agreed(key=key, value=value))

    def _is_running(self, trial: str) -> bool:
        record = self._ledger.trial(trial)
        return record is not None and record.status == "running"

    def _ended(self, trial: str, status: Literal["completed", "pruned", "failed"], **known: Any) -> None:
        record = self._ledger.trial(trial)
        assert record is not None  # noqa: S101  callers looked it up
        fields = {
            "reason": None,
            "best_epoch": record.best_epoch,
            "best": record.best,
            "checkpoint": None,
            **known,
        }
        self._ledger.append(
            TrialEnded(trial=trial, status=status, epochs=record.epochs, final=record.final, **fields)
        )


def agreements_in(ledger: Ledger) -> dict[str, str]:
    """What slots found once and agreed on, by key, so that a later run goes on with it."""
    return {event.key: event.value for event in ledger.events_of(Agreed)}


def history(ledger: Ledger, *, search: str, stops: bool = True) -> dict[str, list[Message]]:
    """By trial, the messages that an earlier run heard of it; those of a finished trial have an end.

    Without `stops` a pruned trial has none: its scheduler hears what it heard, and decides the same again.
    The end of a failed trial is a message of its own, as it was then; the others end with their last epoch.
    """
    messages: dict[str, list[dict[str, Any]]] = {
        record.trial: [] for record in ledger.trials(search=search, role=Role.SEARCH)
    }
    for event in ledger.events():
        if not isinstance(event, EpochEnded | TrialEnded) or event.trial not in messages:
            continue
        heard = messages[event.trial]
        if isinstance(event, EpochEnded):
            heard.append({"epoch": event.epoch, "metrics": event.metrics})
        elif stops or event.status != "pruned":
            last = heard.pop() if heard and event.status != "failed" else {}
            names = ("reason", "best_epoch", "best", "checkpoint")
            heard.append(
                {**last, "end": _ENDS[event.status], **{name: getattr(event, name) for name in names}}
            )
    return {trial: [Message.from_plain(message) for message in heard] for trial, heard in messages.items()}


_ENDS: Final[Mapping[str, End]] = MappingProxyType(
    {"completed": End.COMPLETED, "pruned": End.STOPPED, "failed": End.FAILED}
)
