"""For how long cross-entropy computes as much as a student, and what is told of compute, time and peers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.bad_outcomes import bad_outcomes
from orchestrator.records.compute import (
    ensemble_accuracy,
    epochs_of_equal_compute,
    peers_accuracy,
    seconds_of,
    stretched,
)
from orchestrator.records.costs import StudentCosts
from orchestrator.records.events import EpochEnded, TrialStarted
from orchestrator.records.ledger import Ledger, TrialRecord
from orchestrator.records.relations import control_of, controls_of_equal_compute
from orchestrator.records.selection import group_of
from orchestrator.records.student_figures import Beside, Control, Finalist, control_students, finalist_of
from orchestrator.records.summary import Summary, trial_row
from orchestrator.records.tables.more_columns import COMPUTE, ENSEMBLE, PEERS, SAME_COMPUTE, SECONDS
from orchestrator.records.tables.students_table import comparison, named_controls, students_table
from trainables.config import Role, TrainingConfig

MakeRecord = Callable[..., TrialRecord]
COSTS = StudentCosts(params=10.0, size_bytes=40.0, latency_ms=0.1)


def trained(
    make_record: MakeRecord,
    trial: str,
    accuracy: float,
    *,
    ratio: float | None = None,
    epochs: int = 20,
    best: dict[str, float] | None = None,
    **fields: Any,
) -> TrialRecord:
    """A student with what its epochs computed, and a recipe of so many epochs."""
    record = make_record(trial, accuracy, **fields)
    spec = {**record.spec, "student": {"width": 4}, "training": {"epochs": epochs}}
    final = {} if ratio is None else {"train/compute_over_ce": ratio}
    update = {"spec": spec, "final": {**record.final, **final}, "best": {**record.best, **(best or {})}}
    return record.model_copy(update=update)


@pytest.mark.parametrize(
    ("ratio", "epochs", "longer"),
    [(None, 20, None), (1.0, 20, None), (1.25, 20, None), (1.3, 20, 26), (2.0, 20, 40), (1.3, 1, None)],
)
def test_cross_entropy_computes_as_much_in_so_many_epochs(
    make_record: MakeRecord, ratio: float | None, epochs: int, longer: int | None
) -> None:
    assert epochs_of_equal_compute(trained(make_record, "t", 0.5, ratio=ratio, epochs=epochs)) == longer


def test_a_stretched_recipe_has_the_same_shape_over_its_epochs() -> None:
    recipe = TrainingConfig(epochs=20, schedule="step", milestones=(10, 15), warmup_epochs=2.0, lr=0.1)
    longer = stretched(recipe, 50)
    assert (longer.epochs, longer.milestones, longer.warmup_epochs) == (50, (25, 38), 5.0)
    assert longer.with_overrides(epochs=20, milestones=(10, 15), warmup_epochs=2.0) == recipe


def test_a_control_of_equal_compute_is_told_from_that_of_equal_epochs(make_record: MakeRecord) -> None:
    own = trained(make_record, "f", 0.8, ratio=2.0, role=Role.FINALIST, objective="dml", repeats="t")
    plain = {
        epochs: trained(
            make_record,
            f"c{epochs}",
            0.7,
            epochs=epochs,
            ratio=1.0,
            role=Role.BASELINE,
            objective="ce",
            repeats=f"ce-{epochs}",
        )
        for epochs in (20, 40, 60)
    }
    students = [own, *plain.values()]
    assert control_of(own, students).records == (plain[20],)
    assert [group.records for group in controls_of_equal_compute(own, students)] == [(plain[40],)]
    assert controls_of_equal_compute(own, [own, plain[20]]) == []
    earlier = own.model_copy(update={"final": {}})
    assert controls_of_equal_compute(earlier, students) == []


def test_peers_and_ensemble_are_read_by_their_own_names() -> None:
    best = {"selection/peer1_accuracy": 0.6, "selection/peer2_accuracy": 0.8, "selection/accuracy": 0.9}
    assert peers_accuracy(best) == pytest.approx(0.7)
    assert ensemble_accuracy({**best, "selection/ensemble_accuracy": 0.85}) == 0.85
    assert (peers_accuracy({"selection/accuracy": 0.9}), ensemble_accuracy({})) == (None, None)


def test_the_seconds_of_a_training_are_those_of_its_epochs_each_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append(
        TrialStarted(
            trial="t", role=Role.SEARCH, search="s", objective="kd", parameters={}, spec={}, sampled={}
        )
    )
    for epoch, seconds in ((1, 2.0), (2, 3.0), (2, 7.0)):  # the last one was told again
        ledger.append(EpochEnded(trial="t", epoch=epoch, metrics={"seconds": seconds}))
    record = ledger.trial("t")
    assert record is not None
    assert record.seconds == 5.0
    assert seconds_of([record]) == 5.0
    assert seconds_of([record, record.model_copy(update={"seconds": 0.0})]) is None
    assert trial_row(record, None).seconds == 5.0


@pytest.fixture
def of_peers(make_record: MakeRecord) -> Callable[[tuple[float, float]], Finalist]:
    """A finalist of two networks beside controls of equal epochs (80 %) and of equal compute."""

    def figures(name: str, accuracies: tuple[float, float], **fields: Any) -> tuple[Any, Any]:
        records = [
            trained(make_record, f"{name}-{seed}", accuracy, seed=seed, **fields).model_copy(
                update={"seconds": 10.0 + seed}
            )
            for seed, accuracy in enumerate(accuracies)
        ]
        tested = {record.trial: {"accuracy": record.best["selection/accuracy"]} for record in records}
        return group_of(records), tested

    def control(name: str, accuracies: tuple[float, float], epochs: int) -> Control:
        group, tested = figures(name, accuracies, epochs=epochs, ratio=1.0, objective="ce")
        return control_students(group, tested, COSTS)

    def build(longer: tuple[float, float]) -> Finalist:
        peers = {"selection/peer1_accuracy": 0.5, "selection/ensemble_accuracy": 0.95}
        group, tested = figures("f", (0.90, 0.92), ratio=2.0, objective="dml", best=peers)
        plain = control("c20", (0.80, 0.82), 20)
        return finalist_of(
            group, [plain], tested, COSTS, beside=Beside(same_compute=control("c40", longer, 40))
        )

    return build


def with_finalist(summary: Summary, finalist: Finalist) -> Summary:
    champion = summary.champion.with_overrides(trial_id=finalist.trials[0])
    return summary.with_overrides(finalists=[finalist], champion=champion)


def test_table_and_sentences_say_which_control_is_which(
    summary: Summary, of_peers: Callable[[tuple[float, float]], Finalist]
) -> None:
    shown = with_finalist(summary, of_peers((0.86, 0.88)))
    assert [name for name, _ in named_controls(shown)] == ["control", "control, same compute (40 epochs)"]
    columns, rows = students_table(shown)
    by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    own = by_name["finalist 1 (champion)"]
    assert own["test gain over its control, points (95 %)"] == "+10.00 [+10.00, +10.00]"
    assert own[SAME_COMPUTE] == "+4.00 [+4.00, +4.00]"
    assert (own[COMPUTE], own[SECONDS], own[PEERS], own[ENSEMBLE]) == ("40.0", "10.5", "50.00", "95.00")
    longer = by_name["control, same compute (40 epochs)"]
    assert (longer[COMPUTE], longer[PEERS], longer[SAME_COMPUTE]) == ("40.0", "", "")
    assert by_name["control"][COMPUTE] == "20.0"
    assert own["selection, %"].startswith("91.00")  # the student's alone
    said = " ".join(comparison(shown))
    assert "a control of the same compute stands beside that of the same epochs" in said
    assert "over control, same compute (40 epochs) the test gain is +4.00 [+4.00, +4.00]." in said
    assert Summary.from_plain(shown.plain()) == shown


def test_a_finalist_that_was_not_counted_is_told_to_have_no_such_control(
    summary: Summary, of_peers: Callable[[tuple[float, float]], Finalist]
) -> None:
    counted = of_peers((0.86, 0.88))
    unknown = counted.with_overrides(same_compute=None, compute_over_ce=None, is_uncounted=True)
    shown = with_finalist(summary, unknown)
    told = "finalist 1 has no control of the same compute: what its training computes is not known, so its"
    assert told in " ".join(comparison(shown))
    assert Summary.from_plain(shown.plain()) == shown
    assert "is_uncounted" not in counted.plain()
    assert "no control of the same compute" not in " ".join(comparison(with_finalist(summary, counted)))


def test_a_gain_that_longer_training_gives_as_well_is_told_as_a_bad_outcome(
    summary: Summary, of_peers: Callable[[tuple[float, float]], Finalist]
) -> None:
    worse, better = (with_finalist(summary, of_peers(longer)) for longer in ((0.92, 0.94), (0.86, 0.88)))
    told = "Over control, same compute (40 epochs), the champion's gain is not shown: -2.00 [-2.00, -2.00]"
    assert [outcome for outcome in bad_outcomes(worse) if outcome.startswith(told)]
    assert not [outcome for outcome in bad_outcomes(better) if "same compute" in outcome]


def test_a_table_without_such_figures_has_none_of_these_columns(summary: Summary) -> None:
    columns, _ = students_table(summary)
    assert not {SAME_COMPUTE, COMPUTE, PEERS, ENSEMBLE, SECONDS} & set(columns)
    assert "same_compute" not in summary.finalists[0].plain()
