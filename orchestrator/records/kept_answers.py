"""The answers of tested students, image by image, in an output folder; read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.records.costs import TEACHER
from orchestrator.records.summary import Summary, champions_group
from trainables.errors import DataError
from trainables.evaluation.answers_file import KeptAnswers, NetworkAnswers, read_answers

FOLDER: Final = "answers"
ROUNDING: Final = 1e-3
"""By which the figures of a file may differ from those in the ledger: in batches of another size, or on
another device, the last bits of a logit are others."""

Tested = Mapping[str, Mapping[str, float]]
Tests = Sequence[Tested]
"""What each test of a run found, the latest last: by trial, and of the teacher, figures of the test split."""


@dataclass(frozen=True)
class RunAnswers:
    """What is kept of a champion and of its control with the same seed, to the images of the test split."""

    champion: KeptAnswers | None = None
    """Beside it what the teacher answered, where one was asked."""
    control: KeptAnswers | None = None
    """None where the champion is its own control, too."""
    control_trial: str | None = None
    lacks: tuple[str, ...] = ()
    """What is not there that could be, and why; in sentences."""


NO_ANSWERS: Final = RunAnswers()


def answers_file(out: Path, trial: str) -> Path:
    """Where the answers of a student to the test split are kept."""
    return out / FOLDER / f"{trial}.npz"


def run_answers(out: Path, summary: Summary, tests: Tests) -> RunAnswers:
    """What an output folder holds of them; `tests` are those of its ledger.

    A file that is missing, as of a run of an earlier version, or damaged, or of other answers than those that
    were judged, is left out, and said to be.
    """
    group = champions_group(summary)
    lacks: list[str] = []
    champion = _read(out, summary.champion.trial_id, tests, lacks)
    if champion is None or group.is_own_control:
        return RunAnswers(champion, lacks=tuple(lacks))
    seeds = dict(zip(group.control.seeds, group.control.trials, strict=True))
    own_seed = group.seeds[group.trials.index(summary.champion.trial_id)]
    trial = seeds.get(own_seed, group.control.trials[0])
    control = _read(out, trial, tests, lacks)
    if control is not None and not _of_same_images(champion, control):
        lacks.append(f"{_name(trial)} is of other images than those of the champion.")
        control = None
    return RunAnswers(champion, control, trial if control else None, tuple(lacks))


def _read(out: Path, trial: str, tests: Tests, lacks: list[str]) -> KeptAnswers | None:
    path = answers_file(out, trial)
    if not path.exists():
        lacks.append(
            f"{_name(trial)} is missing: an earlier version tested this student, or the file was removed."
        )
        return None
    try:
        found = read_answers(path)
    except DataError as error:
        lacks.append(f"{str(error).replace(str(path), _name(trial))}.")  # as in the run's own page
        return None
    # A later test may have had another teacher.
    tested: Tested = next((found for found in reversed(tests) if trial in found), {})
    pairs = [(found.student, tested.get(trial, {})), (found.teacher, tested.get(TEACHER, {}))]
    if not all(_agree(network, figures) for network, figures in pairs if network is not None):
        lacks.append(f"{_name(trial)} is left out: its figures are not those of the test in the ledger.")
        return None
    return found


def _name(trial: str) -> str:
    return f"{FOLDER}/{trial}.npz"


def _agree(network: NetworkAnswers, tested: Mapping[str, float]) -> bool:
    pairs = [(value, tested[name]) for name, value in network.figures.items() if name in tested]
    return all(abs(one - other) <= ROUNDING * max(1.0, abs(other)) for one, other in pairs)


def _of_same_images(one: KeptAnswers, other: KeptAnswers) -> bool:
    return one.classes == other.classes and one.ids_N.tolist() == other.ids_N.tolist()
