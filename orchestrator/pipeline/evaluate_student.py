"""A trained student, looked at again: on clean images, and around them beside its teacher."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from pydantic import Field
from torch import Tensor, nn

from orchestrator.config.loading import LoadedExperiment
from orchestrator.config.schema_description import did_you_mean
from orchestrator.pipeline.basis.compared_teacher import teacher_beside
from orchestrator.pipeline.basis.data_stage import look_at_images
from orchestrator.pipeline.context import Run, quiet_run
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.ranked_figures import accuracy_text
from orchestrator.records.summary import read_summary
from orchestrator.terminal.console import Console
from orchestrator.terminal.formatting import duration, percent
from trainables.config import Config, KeptNetwork, KeptTeacher, Split, TrialSpec
from trainables.config.faithfulness import BallSearch, ConfidenceOf
from trainables.config.metrics import RankBy
from trainables.data import ImageSplit, TrainingData, load_test, load_training
from trainables.errors import CheckpointError, ConfigError
from trainables.evaluation.faithfulness import BallFigures, Faithfulness, NetworkPair, faithfulness
from trainables.evaluation.features_worth import NoFeatures
from trainables.evaluation.metrics import answer_figures
from trainables.teacher.cache_request import stated_features
from trainables.teacher.loading import load_teacher
from trainables.training.workbench import Workbench

NETWORKS: Final = ("network", "accuracy, %", "nll", "ece", "agreement with the teacher, %")
BALLS: Final = (
    "radius, levels",
    "disagreement, %",
    "largest gap",
    "teacher's confidence",
    "student's confidence",
    "gap of the lowest, %",
)


class CleanFigures(Config):
    """A network on unaltered images."""

    accuracy: float
    nll: float = Field(description="mean cross-entropy, nats")
    ece: float = Field(description="expected calibration error, 15 bins")
    balanced_accuracy: float | None = Field(
        None, description="where classes are uneven", exclude_if=lambda value: value is None
    )
    ranked: float | None = Field(
        None, description="what ranks students, if not accuracy", exclude_if=lambda value: value is None
    )


class Evaluation(Config):
    """All that `stillhouse evaluate` found."""

    experiment: str
    trial: str
    objective: str
    weights: str = Field(description="the student's file")
    split: Split
    images: int
    rank_by: RankBy = Field(
        RankBy.ACCURACY,
        description="the figure that the student was ranked by",
        exclude_if=lambda figure: figure is RankBy.ACCURACY,
    )
    student: CleanFigures
    teacher: CleanFigures | None = Field(description="none without one, and when only its logits are known")
    teacher_fingerprint: str | None = Field(description="none where the student learned from none")
    agreement: float | None = Field(description="share of images to which both give the same class")
    faithfulness: Faithfulness | None = Field(description="when it was asked for")


def evaluate_student(
    loaded: LoadedExperiment,
    console: Console,
    *,
    trial: str | None = None,
    split: str = "selection",
    search: BallSearch | None = None,
) -> Evaluation:
    """Evaluate a student of an experiment that ran, in this process; with `search` around images too.

    The student is the champion of the last finished run, or the trial that is named; the teacher is that of
    the experiment file, and none where the student learned from none and none was made. The test split is
    shown only to students that a run has tested: what its figures could be used for has been decided then.

    Raises:
        ConfigError: there is no such student or teacher, or no network to attack, or the test split is not
            for this student.
        CheckpointError: weights cannot be read or do not fit.
    """
    with quiet_run(loaded, console) as run:
        record = _student(run, trial)
        wanted = Split(split)
        if wanted is Split.TEST:
            _require_tested(run, record)
        teacher = teacher_beside(run, record, needs_network=search is not None)
        look_at_images(run.experiment.data, console)
        data = load_training(run.experiment.data.labelled)
        shown = load_test(run.experiment.data, data.classes) if wanted is Split.TEST else data.selection
        evaluator = _Evaluator(run, data, shown, record.rank_by)
        own = KeptNetwork(model=TrialSpec.from_plain(record.spec).student, weights=str(record.checkpoint))
        student, kept = evaluator.loaded(own), None if teacher is None else run.kept(teacher)
        beside = None if kept is None else evaluator.loaded(kept)
        own_N = evaluator.answers(student)
        taught_N = evaluator.answers(beside) if beside else None
        return Evaluation(
            experiment=run.experiment.name,
            trial=record.trial,
            objective=record.objective,
            weights=str(record.checkpoint),
            split=wanted,
            images=len(shown.labels),
            rank_by=record.rank_by,
            student=evaluator.figures(own, student, own_N),
            teacher=evaluator.figures(kept, beside, taught_N)
            if kept and beside and taught_N is not None
            else None,
            teacher_fingerprint=None if teacher is None else teacher.fingerprint,
            agreement=None if taught_N is None else float((own_N == taught_N).double().mean()),
            faithfulness=evaluator.around(student, beside, search, console) if beside and search else None,
        )


def show_evaluation(found: Evaluation, console: Console) -> None:
    """The same for people: a table of clean images, and one of balls where there is one."""
    rows = [_network_row(found, f"student {found.trial}", found.student, percent(found.agreement))]
    if found.teacher is not None:
        rows.append(
            _network_row(found, f"teacher {(found.teacher_fingerprint or '')[:8]}", found.teacher, "")
        )
    columns = (*NETWORKS, f"{found.rank_by.label}, %") if found.rank_by.is_of_features else NETWORKS
    console.table(f"{found.images:,} unaltered images of the {found.split} split", columns, rows)
    around = found.faithfulness
    if around is None:
        return
    console.table(
        f"around {around.samples:,} images, those of {around.samples_drawn:,} that the teacher gets right",
        BALLS,
        [_ball_row(ball) for ball in around.balls],
    )
    whose = "the label" if around.search.confidence_of is ConfidenceOf.LABEL else "the teacher's class"
    console.info(
        f"found by {around.search.restarts} attacks of {around.search.steps} steps for each figure: there "
        "may be worse, so disagreement and gap are lower bounds, ranges of confidence may be wider, and "
        f"nothing here is a guarantee; radius 0 is the images themselves; confidence is the probability of "
        f"{whose}; means over images"
    )


class _Evaluator:
    """One split, and the networks that are asked about it, on one device."""

    def __init__(self, run: Run, data: TrainingData, split: ImageSplit, rank_by: RankBy) -> None:
        self._rank_by = rank_by
        self._data = data
        self._split = split
        self._batch_size = run.experiment.training.eval_batch_size
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._workbench = Workbench(data, run.experiment.views, view_seed=run.view_seed, device=device)

    def loaded(self, kept: KeptTeacher) -> nn.Module:
        """A network with its weights."""
        return load_teacher(kept, self._data).to(self._workbench.device)

    def answers(self, model: nn.Module) -> Tensor:
        return self._workbench.classes(model, self._split, batch_size=self._batch_size)

    def figures(self, kept: KeptTeacher, model: nn.Module, answers_N: Tensor) -> CleanFigures:
        split, size, by = self._split, self._batch_size, self._rank_by
        stated = stated_features(kept)
        figures = self._workbench.evaluate(model, split, batch_size=size)
        with contextlib.suppress(NoFeatures):  # of a teacher: a student was ranked by it
            figures |= self._workbench.features_worth(model, by, split, batch_size=size, stated=stated)
        balanced = answer_figures(answers_N, self._split.labels).get("balanced_accuracy")
        ranked = figures.pop(by.value, None) if by.is_of_features else None
        return CleanFigures(**figures, balanced_accuracy=balanced, ranked=ranked)

    def around(
        self, student: nn.Module, teacher: nn.Module, search: BallSearch, console: Console
    ) -> Faithfulness:
        pair = NetworkPair(teacher, student, mean=self._data.mean, std=self._data.std)
        times: list[float] = []
        with console.progress("attacks") as progress:

            def tell(done: int, total: int) -> None:
                times.append(console.clock())
                progress.update(done, time_left(times, total), total=total)

            return faithfulness(pair, self._split, search, tell)


def time_left(times: Sequence[float], total: int) -> str:
    """What is said of the rest when pieces of work ended at these times, in seconds.

    The first piece is not counted: libraries prepare themselves in it, which may take longer than the piece.
    """
    if len(times) < 2:
        return "time left not known yet"
    each_s = (times[-1] - times[0]) / (len(times) - 1)
    return f"{duration(each_s * (total - len(times)))} left"


def _student(run: Run, trial: str | None) -> TrialRecord:
    """The record of a student that has weights."""
    name, students = run.experiment.name, run.ledger.trials()
    if not students:
        raise ConfigError(f"{run.out} holds no run of {name}; run it first, or give its --out")
    if trial is None:
        summary = run.out / "summary.json"
        if not summary.exists():
            raise ConfigError(
                f"{run.out} holds no finished run of {name}, so it has no champion; name a student with "
                f"--trial, or finish the run: stillhouse run {run.loaded.source}"
            )
        trial = read_summary(summary).champion.trial_id
    record = run.ledger.trial(trial)
    if record is None:
        names = [student.trial for student in students if student.checkpoint]
        raise ConfigError(
            f"{run.ledger.path} knows no student {trial!r}; {len(names)} have weights, such as "
            f"{', '.join(names[-3:]) or 'none'}{did_you_mean(trial, names)}"
        )
    if record.checkpoint is None:
        raise ConfigError(
            f"student {trial} has no weights to evaluate, since it is {record.status}; weights are kept of "
            "completed students: name one of these"
        )
    if not Path(record.checkpoint).is_file():
        raise CheckpointError(
            f"the weights of student {trial} are gone from {record.checkpoint}; bring the file back, or "
            "name another student with --trial"
        )
    return record


def _require_tested(run: Run, record: TrialRecord) -> None:
    tested = any(
        (event.stage, event.status) == ("test", "finished") and record.trial in event.found
        for event in run.ledger.events_of(StageEvent)
    )
    if not tested:
        raise ConfigError(
            f"no run has tested student {record.trial}, and the test split is for those that a run has "
            "tested (finalists and control, when all is decided), or it could be used to choose one; leave "
            "out --split test, or name such a student with --trial"
        )


def _network_row(whole: Evaluation, name: str, found: CleanFigures, agreement: str) -> tuple[str, ...]:
    accuracy = accuracy_text(found.accuracy, None, found.balanced_accuracy)
    ranked = (percent(found.ranked),) if whole.rank_by.is_of_features else ()
    return name, accuracy, f"{found.nll:.4f}", f"{found.ece:.4f}", agreement, *ranked


def _ball_row(ball: BallFigures) -> tuple[str, ...]:
    """Where nothing was searched, figures are what they are; elsewhere they say on which side they may be."""
    least = "" if ball.epsilon == 0 else ">= "
    lowest = ball.relative_gap_of_lowest
    return (
        f"{ball.epsilon:g}",
        f"{least}{percent(ball.disagreement_at_least)}",
        f"{least}{ball.confidence_gap_at_least:.4f}",
        f"{ball.teacher_lowest_found:.4f} .. {ball.teacher_highest_found:.4f}",
        f"{ball.student_lowest_found:.4f} .. {ball.student_highest_found:.4f}",
        "" if lowest is None else f"{100 * lowest:+.2f}",
    )
