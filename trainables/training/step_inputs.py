"""What an objective is given in each step: the answers of student and teacher, and what else it needs."""

# B = samples in the batch, C = classes

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.config import Need, ObjectiveBase, TrainingPrecision
from trainables.errors import TrialFailed
from trainables.evaluation.attacks import Attacker, accuracy_under_attack, attack_target
from trainables.models.embedding import EmbeddingRecorder, cosine_head_of
from trainables.models.features.feature_map_logits import DenseLogits
from trainables.models.modes import evaluating
from trainables.signals import Labelling, Mixing, Signals, TeacherSignal
from trainables.tensors import at_least_fp32, to_device
from trainables.training.batches import hears_unlabelled
from trainables.training.precision import autocast
from trainables.training.ranks import Forward, Share, Team
from trainables.training.workbench import Workbench


@dataclass(frozen=True)
class _Answer:
    """What the student says of a view."""

    logits_BC: Tensor
    dense_BCHW: Tensor | None = None
    embedding_BD: Tensor | None = None


def needs_plain_forward(config: ObjectiveBase) -> bool:
    """Whether an objective looks into the network, so that it cannot be called in a compiled form."""
    return bool({Need.DENSE_LOGITS, Need.STUDENT_EMBEDDING} & config.needed)


class StepInputs:
    """Gathers what an objective is given in each step, from workbench, student and teacher."""

    def __init__(
        self,
        config: ObjectiveBase,
        workbench: Workbench,
        model: nn.Module,
        team: Team,
        *,
        label_smoothing: float = 0.0,
        epochs: int | None = None,
    ) -> None:
        """The model is on the workbench's device; smoothing and epochs are the recipe's.

        Raises:
            TrialFailed: student, teacher, or the number of ranks, cannot give what the objective needs.
        """
        self._config = config
        self._workbench = workbench
        self._label_smoothing, self._epochs = label_smoothing, epochs
        self._needed = config.needed
        self._asks_live = Need.ONLINE_TEACHER in self._needed
        if self._asks_live:
            workbench.require_live_teacher()
        if Need.ROWS in self._needed and team.size > 1:
            raise TrialFailed(
                "this objective keeps a table of every sample's last answer, which the "
                f"{team.size} workers of a slot would fill apart from each other; give a slot one worker"
            )
        unlabelled = workbench.data.unlabelled if hears_unlabelled(config, workbench.data) else None
        self._takes_top_class = unlabelled is not None and unlabelled.config.top_class_as_target
        if unlabelled is not None and (why := config.refuses_unlabelled(unlabelled.config)):
            raise TrialFailed(f"this objective cannot learn from unlabelled images: {why}")
        self._model = model
        self._attacker: Attacker | None = None
        if config.attack is not None:
            data = workbench.data
            self._attacker = Attacker(config.attack, mean=data.mean, std=data.std, device=workbench.device)
        self._dense: DenseLogits | None = None
        if Need.DENSE_LOGITS in self._needed:
            self._dense = DenseLogits(model, input_shape=workbench.input_shape, device=workbench.device)
        self._embedding: EmbeddingRecorder | None = None
        if Need.STUDENT_EMBEDDING in self._needed:
            self._embedding = EmbeddingRecorder(cosine_head_of(model))

    def signals(
        self,
        forward: Forward,
        epoch: int,
        share: Share,
        *,
        precision: TrainingPrecision,
        layout: torch.memory_format,
    ) -> Signals:
        """The signals of a share of a batch in an epoch; gradient flows through the student's alone."""
        config, workbench, rows_B = self._config, self._workbench, share.rows_B
        labels_B = workbench.labels(rows_B)
        # One forward pass a bank: batch statistics are per view, as in the released CRLD.
        shown = {bank: workbench.images(bank, epoch, rows_B) for bank in config.banks}
        images = {bank: one.contiguous(memory_format=layout) for bank, one in shown.items()}
        heard = config.teacher_banks if self._hears_of_views() else ()
        teacher = {bank: self._teacher(bank, epoch, rows_B) for bank in heard}
        if self._attacker is not None:
            images = {
                bank: self._attacked(self._attacker, one, labels_B, teacher.get(bank), precision)
                for bank, one in images.items()
            }
        if self._asks_live:  # outside autocast: the teacher's precision is its own
            teacher = {bank: workbench.teacher_about(images[bank], rows_B) for bank in config.teacher_banks}
        with autocast(precision, workbench.device):
            answers = {bank: self._answer(forward, one) for bank, one in images.items()}
        return Signals(
            # Softmax, divergences and masks in fp32, whatever the network computed in.
            student={bank: at_least_fp32(answer.logits_BC) for bank, answer in answers.items()},
            teacher=teacher,
            labels_B=self._targets(labels_B, teacher, share.labelling),
            epoch=epoch,
            mixed=self._mixings(epoch, share),
            rows_B=to_device(rows_B, workbench.device) if Need.ROWS in self._needed else None,
            dense={bank: a.dense_BCHW for bank, a in answers.items() if a.dense_BCHW is not None},
            embedding={bank: a.embedding_BD for bank, a in answers.items() if a.embedding_BD is not None},
            label_smoothing=self._label_smoothing,
            epochs=self._epochs,
            labelling=share.labelling,
        )

    def robustness(self, model: nn.Module, *, batch_size: int) -> dict[str, float]:
        """Accuracy on the selection split under the objective's own attack; nothing where it has none."""
        if self._attacker is None:
            return {}
        data = self._workbench.data
        accuracy = accuracy_under_attack(
            model,
            data.selection,
            self._attacker.attack,
            mean=data.mean,
            std=data.std,
            batch_size=batch_size,
        )
        return {"selection/accuracy_under_attack": accuracy}

    def _targets(
        self, labels_B: Tensor, teacher: Mapping[str, TeacherSignal], labelling: Labelling | None
    ) -> Tensor:
        """The labels, and where it is asked for the teacher's most probable class of samples without one."""
        if labelling is None or not self._takes_top_class:
            return labels_B
        top_class_B = teacher[self._config.teacher_banks[0]].logits_BC.argmax(dim=-1)
        return torch.cat([labels_B[: labelling.count], top_class_B[labelling.count :]])

    def _mixings(self, epoch: int, share: Share) -> dict[str, Mixing]:
        """Of the rows that have labels, by bank."""
        labelling = share.labelling
        rows_B = share.rows_B if labelling is None else share.rows_B[: labelling.count]
        found = {bank: self._workbench.mixing(bank, epoch, rows_B) for bank in self._config.banks}
        return {bank: mixing for bank, mixing in found.items() if mixing is not None}

    def _hears_of_views(self) -> bool:
        """Whether the teacher's answer to the views themselves is used, at least by the attack."""
        return not self._asks_live or (self._attacker is not None and self._attacker.attack.teacher_share > 0)

    def _attacked(
        self,
        attacker: Attacker,
        images_BCHW: Tensor,
        labels_B: Tensor,
        teacher: TeacherSignal | None,
        precision: TrainingPrecision,
    ) -> Tensor:
        target_BC = attack_target(
            labels_B,
            teacher.logits_BC if teacher else None,
            share=attacker.attack.teacher_share,
            n_classes=len(self._workbench.data.classes),
        )

        def network(shown_BCHW: Tensor) -> Tensor:
            with autocast(precision, images_BCHW.device):
                logits_BC: Tensor = self._model(shown_BCHW)
            return logits_BC

        # Batch statistics of images on their way would enter the running ones: the network's mode is fixed.
        with evaluating(self._model):
            return attacker.attacked(network, images_BCHW, target_BC)

    def _answer(self, forward: Forward, images_BCHW: Tensor) -> _Answer:
        if self._embedding is not None:
            logits_BC, inputs = self._embedding.during(lambda: forward(images_BCHW))
            return _Answer(logits_BC, embedding_BD=at_least_fp32(inputs[-1]))
        if self._dense is not None:
            logits_BC, dense_BCHW = self._dense.during(lambda: forward(images_BCHW))
            return _Answer(logits_BC, dense_BCHW=dense_BCHW)
        return _Answer(forward(images_BCHW))

    def _teacher(self, bank: str, epoch: int, rows_B: Tensor) -> TeacherSignal:
        signal = self._workbench.teacher(bank, epoch, rows_B)
        return signal.unshifted() if Need.UNSHIFTED in self._needed else signal
