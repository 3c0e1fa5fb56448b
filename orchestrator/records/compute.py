"""What a student's training computed, as the ledger tells, and for how long cross-entropy computes as much.

A ledger of an earlier version tells nothing of it: then no student has a control of equal compute.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from orchestrator.records.ledger import TrialRecord
from trainables.config import TrainingConfig
from trainables.config.metrics import COMPUTE_OVER_CE, ENSEMBLE_ACCURACY, peer_accuracy

SAME_FROM: Final = 1.25
"""An epoch that computes more than so many of cross-entropy's asks for a control of equal compute."""
MOST_EPOCHS: Final = 100_000
"""As many as a recipe may have."""


def compute_over_ce(record: TrialRecord) -> float | None:
    """Operations of its epoch over those of cross-entropy with the same student; none where not known."""
    return record.final.get(COMPUTE_OVER_CE)


def epochs_of_equal_compute(record: TrialRecord) -> int | None:
    """In how many epochs cross-entropy computes as much as this student's whole training, rounded.

    None where that is not known, or where an epoch of it costs little more than one of cross-entropy.
    """
    ratio, epochs = compute_over_ce(record), record.spec.get("training", {}).get("epochs")
    if ratio is None or epochs is None or ratio <= SAME_FROM:
        return None
    longer = min(round(epochs * ratio), MOST_EPOCHS)
    return longer if longer > epochs else None


def stretched(training: TrainingConfig, epochs: int) -> TrainingConfig:
    """A recipe for another number of epochs: its schedule has the same shape over all of them.

    A cosine ends with the last epoch by itself; milestones and warm-up are moved in proportion.
    """
    times = epochs / training.epochs
    milestones = [round(times * milestone) for milestone in training.milestones]
    return training.with_overrides(
        epochs=epochs, milestones=milestones, warmup_epochs=times * training.warmup_epochs
    )


def seconds_of(records: Sequence[TrialRecord]) -> float | None:
    """Mean seconds of their trainings; none where one of them is not known."""
    known = [record.seconds for record in records if record.seconds > 0]
    return statistics.fmean(known) if known and len(known) == len(records) else None


def peers_accuracy(best: Mapping[str, float]) -> float | None:
    """Mean accuracy, on the selection split, of the networks beside a student; none where it had none."""
    names = map(peer_accuracy, itertools.count(1))
    found = [best[name] for name in itertools.takewhile(best.__contains__, names)]
    return statistics.fmean(found) if found else None


def ensemble_accuracy(best: Mapping[str, float]) -> float | None:
    """Accuracy of a student and its peers as one, on the selection split; none where it had none."""
    return best.get(ENSEMBLE_ACCURACY)
