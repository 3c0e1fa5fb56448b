"""The one training loop: students, the control and teachers all pass through it."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from trainables.config.metrics import ENSEMBLE_ACCURACY, peer_accuracy
from trainables.errors import CheckpointError
from trainables.objectives import build_objective
from trainables.seeds import derive_seed
from trainables.training.batches import Batch, epoch_batches, hears_unlabelled, shared
from trainables.training.capture.lone_step import LoneStep, can_be_recorded, placed, with_norm
from trainables.training.capture.recorders import Plain, Recorder
from trainables.training.course import Course, TrainingResult
from trainables.training.learners.learner import STATE, Learner
from trainables.training.learners.peers import branch_of, peers_of, restore_peers
from trainables.training.objective_state import SharedTables, restore_state
from trainables.training.optimisers import learning_rate
from trainables.training.precision import autocast
from trainables.training.progress.checkpoints import CheckpointFolder, TrainingState
from trainables.training.progress.standing import Standing, is_due, refuse_non_finite
from trainables.training.ranks import Share, Team, any_rank, average_gradients
from trainables.training.running_means import RunningMeans, scaled
from trainables.training.step_inputs import StepInputs
from trainables.training.workbench import Workbench

OnEpoch = Callable[[int, dict[str, float]], None]
ShouldStop = Callable[[], bool]


def train(
    course: Course,
    workbench: Workbench,
    *,
    on_epoch: OnEpoch,
    should_stop: ShouldStop = lambda: False,
    files: CheckpointFolder | None = None,
    heard: int | None = None,
) -> TrainingResult:
    """Train to the recipe's last epoch, going on from `files` where they hold a state.

    Every generator derives from the seed and the epoch, so a course that was killed and went on ends
    with the same weights as one that was not. `on_epoch(epoch, metrics)` gets `train/...` means over
    the epoch and `selection/...` figures. After a resumption it is called for new epochs only, unless
    `heard` says how many epochs the listener knows: what the state has beyond them is told again.

    The ranks of the course's team share each batch of the recipe's size, and their gradients together
    are that of the whole batch. Rank 0 alone calls `on_epoch` and writes `files`; all stop at the batch
    where one should.

    Raises:
        TrialFailed: the loss, or another figure, is not finite.
        CheckpointError: a state that cannot be read or written, or that is not the same for all ranks.
    """
    run, team = _Run(course, workbench), course.team
    leads = team.rank == 0
    state = files.load_state() if files else None
    if state is not None:
        run.restore(state)
    _require_common(run.standing.epoch, files, team)
    standing = run.standing
    first = standing.epoch if heard is None else heard
    for epoch, metrics in enumerate(standing.history[first:], first + 1):
        if leads:
            on_epoch(epoch, metrics)
    for epoch in range(standing.epoch + 1, course.training.epochs + 1):
        figures = run.train_epoch(epoch, should_stop)
        if figures is None:
            return standing.result(stopped=True)
        # First tell, then keep: an epoch whose report was lost is trained and told again.
        if leads:
            on_epoch(epoch, figures)
        if leads and files is not None and is_due(epoch, course.training):
            files.save_state(run.state())
    course.model.load_state_dict(standing.best_model)
    return standing.result(stopped=False)


def step_once(
    course: Course,
    workbench: Workbench,
    *,
    share_of: Team,
    within: Callable[[], AbstractContextManager[None]],
) -> int:
    """Make one step of a course that is trained no further; how many images it has.

    They are those of this rank of `share_of` in the first batch. `within` is entered for the step alone.

    Raises:
        TrialFailed: student or teacher cannot give what the objective needs.
    """
    # Called and not recorded: to record it, it would be made several times.
    run = _Run(course, workbench, Plain())
    share = shared(share_of, run.batches(1)[0], n_train=workbench.n_train)
    run.begin()
    with within():
        run.step(1, share, learning_rate(course.training, 0.0))
    return len(share.rows_B)


def steps_alone(course: Course, workbench: Workbench) -> Callable[[], None]:
    """Makes a step of the first epoch at each call, round and round: to be timed, not to be kept."""
    run = _Run(course, workbench)
    shares = [shared(course.team, batch, n_train=workbench.n_train) for batch in run.batches(1)]
    round_and_round, rate = itertools.cycle(run.placed(1, shares)), learning_rate(course.training, 0.0)
    run.begin()

    def step() -> None:
        run.step(1, next(round_and_round), rate)

    return step


class _Run:
    """The moving parts of one course."""

    def __init__(self, course: Course, workbench: Workbench, recorder: Recorder | None = None) -> None:
        self.course = course
        self.workbench = workbench
        self.team = team = course.team
        training, epochs = course.training, course.training.epochs
        self.student = Learner(course.student, course.objective, training, workbench, team)
        self.peers = peers_of(course, workbench)
        self.learners = [self.student, *self.peers]
        self.inputs = StepInputs(
            course.objective,
            workbench,
            self.student.model,
            tap=self.student.tap,
            label_smoothing=training.label_smoothing,
            epochs=epochs,
        )
        with torch.random.fork_rng(devices=[]):  # auxiliary modules begin alike on all ranks
            torch.manual_seed(derive_seed(course.seed, "objective"))
            setting = self.inputs.setting(
                epochs,
                peer_shapes=[peer.tap.shapes if peer.tap else {} for peer in self.peers],
                later_stages=functools.partial(branch_of, course, workbench),
                computing=lambda: autocast(self.student.precision, workbench.device),
            )
            built = build_objective(course.objective, setting)
        self.objective = built.to(workbench.device)
        self.tables = SharedTables(self.objective, team)
        recorder = recorder or workbench.recorder()
        recorded = recorder.holds and can_be_recorded(course, workbench)
        self.student.optimise(self.objective, held=recorded)
        self.recorded: LoneStep | None = None
        if recorded:
            self.recorded = LoneStep(
                course, recorder, student=self.student, inputs=self.inputs, objective=self.objective
            )
        self.means = self.recorded.means if self.recorded else RunningMeans()
        for peer in self.peers:
            peer.optimise(nn.Module())
        self.standing = Standing(course.rank_by, course.keeps_last)

    def state(self) -> TrainingState:
        return TrainingState(
            **self.standing.state(),
            objective=self.objective.state_dict(),
            peers=[peer.state() for peer in self.peers],
            **self.student.state(),
        )

    def restore(self, state: TrainingState) -> None:
        restore_peers(self.peers, state.peers)
        self.student.restore({name: getattr(state, name) for name in STATE})
        restore_state(self.objective, state.objective)
        self.standing.restore(state)

    def train_epoch(self, epoch: int, should_stop: ShouldStop) -> dict[str, float] | None:
        """The epoch's metrics, or none when the course was stopped in it."""
        began = time.perf_counter()
        # Each rank has masks of its own; those of rank 0 are those of a student that is trained alone.
        rank = [self.team.rank] if self.team.rank else []
        torch.manual_seed(derive_seed(self.course.seed, "forward", epoch, *rank))
        batches = self.batches(epoch)
        shares = [shared(self.team, batch, n_train=self.workbench.n_train) for batch in batches]
        self.begin()
        for step, share in enumerate(self.placed(epoch, shares)):
            if any_rank(self.team, should_stop()):
                return None
            for following in shares[step + 1 : step + 2]:
                self.workbench.expect(self.course.objective.banks, epoch, following.rows_B)
            progress = epoch - 1 + step / len(batches)
            self.step(epoch, share, learning_rate(self.course.training, progress))
        metrics = self.means.result(self.team)
        refuse_non_finite(metrics, epoch)
        metrics["train/images_per_s"] = sum(len(batch.rows_B) for batch in batches) / (
            time.perf_counter() - began
        )
        metrics.update(self._told(epoch))
        self._settle()
        self._select(epoch, metrics)
        metrics["seconds"] = time.perf_counter() - began
        self.standing.end_epoch(epoch, metrics)
        return metrics

    def batches(self, epoch: int) -> list[Batch]:
        """Those of an epoch."""
        return epoch_batches(
            self.workbench.data,
            self.course.training,
            seed=self.course.seed,
            epoch=epoch,
            unlabelled=hears_unlabelled(self.course.objective, self.workbench.data),
        )

    def placed(self, epoch: int, shares: list[Share]) -> list[Share]:
        """An epoch's shares as its steps take them."""
        return placed(self.course.objective, self.workbench, epoch, shares) if self.recorded else shares

    def begin(self) -> None:
        """Begin an epoch."""
        for learner in self.learners:
            learner.train()
        self.tables.begin()
        self.means.begin(stay=self.recorded is not None)

    def _told(self, epoch: int) -> dict[str, float]:
        """What is known of an epoch without its steps: costs, what varied, how long a live teacher took."""
        live_s = self.workbench.said.take_live_s()
        varying = self.course.objective.varying(epoch, self.course.training.epochs)
        told = {f"train/{name}": value for name, value in varying.items()}
        return {**self.course.costs, **told, **({"train/teacher_seconds": live_s} if live_s > 0 else {})}

    def _settle(self) -> None:
        """Make common to the ranks what each of them has kept of its own shares."""
        for learner in self.learners:
            learner.settle()
        self.tables.settle()

    def step(self, epoch: int, share: Share, rate: float) -> None:
        """One step of all networks at this learning rate."""
        if self.recorded is not None:
            self.recorded.make(share, epoch=epoch, rate=rate)
            return
        signals = self.inputs.signals(
            self.student.asked, epoch, share, peers=[peer.asked for peer in self.peers]
        )
        losses = self.objective(signals)
        for learner in self.learners:
            learner.begin(rate)
        # Ranks' gradients are averaged, so each weighs as many ranks as its share of the batch is worth.
        scaled(losses.total, share.part * self.team.size).backward()  # type: ignore[no-untyped-call]
        average_gradients(self.objective, self.team)
        norms = [learner.step() for learner in self.learners]
        self.means.add(with_norm(losses, norms[0]), share.part)
        self.means.count()

    def _select(self, epoch: int, metrics: dict[str, float]) -> None:
        model = self.student.judged
        split, size = self.workbench.data.selection, self.course.training.eval_batch_size
        rank_by, stated = self.course.rank_by, self.course.stated
        figures = self.workbench.judge(model, batch_size=size)
        figures |= self.workbench.features_worth(model, rank_by, split, batch_size=size, stated=stated)
        metrics.update({f"selection/{name}": value for name, value in figures.items()})
        metrics.update(self.inputs.robustness(model, batch_size=size))
        if self.peers:
            networks = [learner.judged for learner in self.learners]
            (_, *peers), together = self.workbench.evaluate_together(networks, split, batch_size=size)
            metrics.update({peer_accuracy(number): value for number, value in enumerate(peers, start=1)})
            metrics[ENSEMBLE_ACCURACY] = together
        self.standing.judge(epoch, metrics, model.state_dict)


def _require_common(epoch: int, files: CheckpointFolder | None, team: Team) -> None:
    # All ranks find out together: one that raised alone would leave the others waiting for it.
    mean = float(team.sum(torch.tensor([epoch]))) / team.size
    if any_rank(team, mean != epoch):
        where = files.folder if files else "nowhere"
        raise CheckpointError(
            f"rank {team.rank} finds the state of epoch {epoch} in {where}, another rank that of another; "
            "the output folder must be on storage that all nodes share"
        )
