"""What an objective is given in each step: the answers of student and teacher, and what else it needs."""

# B = samples in the batch, C = classes

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from trainables.config import OBJECTIVE_CONFIGS, Need, ObjectiveBase, TrainingPrecision
from trainables.config.objective_base import EMBEDDING, MIXED
from trainables.data import TrainingData
from trainables.errors import TrialFailed
from trainables.evaluation.attacks import Attacker, accuracy_under_attack, attack_target
from trainables.models.embedding import cosine_head_of
from trainables.models.features import FeatureTap
from trainables.models.features.feature_map_logits import DenseLogits
from trainables.models.modes import evaluating
from trainables.signals import (
    Labelling,
    LaterStages,
    Mixing,
    Pairs,
    PeerSignal,
    Setting,
    Signals,
    TeacherSignal,
)
from trainables.tensors import to_device
from trainables.training.batches import hears_unlabelled
from trainables.training.capture.step_batch import StepBatch
from trainables.training.learners.answers import Answer, Asked
from trainables.training.precision import autocast
from trainables.training.ranks import Share
from trainables.training.workbench import Workbench


def needs_plain_forward(config: ObjectiveBase) -> bool:
    """Whether an objective looks into the network, so that it cannot be called in a compiled form."""
    return Need.DENSE_LOGITS in config.needed


def student_tap(
    config: ObjectiveBase,
    model: nn.Module,
    data: TrainingData,
    device: torch.device,
    stated: Mapping[str, str],
) -> FeatureTap | None:
    """What reads the features that an objective asks for off the student; none where it asks for none.

    The model is on the device; `stated` are module paths of features by name, as the experiment says.

    Raises:
        TrialFailed: the student has no such feature; it says which objectives ask for less.
    """
    if not config.student_features:
        return None
    try:
        return FeatureTap(
            model,
            config.student_features,
            n_classes=len(data.classes),
            input_shape=data.train.image_shape,
            device=device,
            stated=stated,
        )
    except TrialFailed as error:
        raise TrialFailed(f"{error}; {_less_asking(config.hears_teacher)}") from error


def _less_asking(hears_teacher: bool) -> str:
    """The objectives that most networks can serve, by what they ask of the student.

    Those with a teacher, or those without: beside an objective without one there may be none.
    """
    known = {name: config() for name, config in OBJECTIVE_CONFIGS.items()}
    defaults = {name: own for name, own in known.items() if own.hears_teacher == hears_teacher}
    of_embeddings = [name for name, own in defaults.items() if own.student_features == (EMBEDDING,)]
    of_logits = [name for name, own in defaults.items() if not own.student_features]
    return (
        f"objectives {'with' if hears_teacher else 'without'} a teacher that ask for the embedding alone: "
        f"{', '.join(of_embeddings)}; for logits alone: {', '.join(of_logits)}"
    )


class StepInputs:
    """Gathers what an objective is given in each step, from workbench, student and teacher."""

    def __init__(
        self,
        config: ObjectiveBase,
        workbench: Workbench,
        model: nn.Module,
        *,
        tap: FeatureTap | None = None,
        label_smoothing: float = 0.0,
        epochs: int | None = None,
    ) -> None:
        """The model is on the workbench's device; smoothing and epochs are the recipe's.

        `tap` is what `student_tap` gives: the forward pass of `signals` then gives features beside logits.

        Raises:
            TrialFailed: student or teacher cannot give what the objective needs.
        """
        self._config = config
        self._workbench = workbench
        self._label_smoothing, self._epochs = label_smoothing, epochs
        self._needed = config.needed
        self._asks_live = Need.ONLINE_TEACHER in self._needed
        if self._asks_live:
            workbench.said.require_live_teacher()
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
        if Need.COSINE_HEAD in self._needed:
            cosine_head_of(model)
        self._tap = tap

    def setting(
        self,
        epochs: int,
        *,
        peer_shapes: Sequence[Mapping[str, tuple[int, ...]]] = (),
        later_stages: LaterStages | None = None,
        computing: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Setting:
        """What the objective is made for, in a course of so many epochs; what is not given here, see there.

        Raises:
            TrialFailed: the teacher cannot give what the objective needs.
        """
        config, workbench = self._config, self._workbench
        heard = config.teacher_features if config.teacher_banks else ()
        # Unlabelled images stand behind the training split, in the rows of a batch too.
        learns_from_all = hears_unlabelled(config, workbench.data)
        labels_N = workbench.labels_N if learns_from_all else workbench.data.train.labels
        return Setting(
            n_samples=len(labels_N),
            n_classes=len(workbench.data.classes),
            epochs=epochs,
            labels_N=labels_N.cpu(),
            student_shapes=self._tap.shapes if self._tap else {},
            teacher_shapes=workbench.said.shapes(config.teacher_banks[0], heard) if heard else {},
            classifier=workbench.said.classifier() if Need.TEACHER_CLASSIFIER in self._needed else None,
            image_shape=workbench.input_shape,
            peer_shapes=tuple(peer_shapes),
            later_stages=later_stages,
            computing=computing,
        )

    def signals(self, student: Asked, epoch: int, share: Share, *, peers: Sequence[Asked] = ()) -> Signals:
        """The signals of a share of a batch in an epoch; gradient flows through student and peers alone."""
        return self.signals_of(self.batch(epoch, share), student, epoch, share, peers=peers)

    def batch(self, epoch: int, share: Share) -> StepBatch:
        """What the epoch shows of a share of a batch, and what the teacher said of it."""
        config, workbench, rows_B = self._config, self._workbench, share.rows_B
        labels_B = workbench.labels(rows_B)
        shown = {bank: workbench.images(bank, epoch, rows_B) for bank in config.banks}
        heard = config.teacher_banks if self._hears_of_views() else ()
        teacher = {bank: self._teacher(bank, epoch, rows_B, shown.get(bank)) for bank in heard}
        rows = to_device(rows_B, workbench.device) if Need.ROWS in self._needed else None
        return StepBatch(shown, teacher, labels_B, self._mixings(epoch, share), rows)

    def signals_of(
        self, batch: StepBatch, student: Asked, epoch: int, share: Share, *, peers: Sequence[Asked] = ()
    ) -> Signals:
        """The signals of a share whose batch this is; gradient flows through student and peers alone."""
        config, rows_B, labels_B, teacher = self._config, share.rows_B, batch.labels, batch.teacher
        # One forward pass a bank: batch statistics are per view, as in the released CRLD.
        images = {bank: one.contiguous(memory_format=student.layout) for bank, one in batch.images.items()}
        if self._attacker is not None:
            images = {
                bank: self._attacked(self._attacker, one, labels_B, teacher.get(bank), student.precision)
                for bank, one in images.items()
            }
        if self._asks_live:  # outside autocast: the teacher's precision is its own
            teacher = self._about(images, rows_B)
        pairs = self._pairs(len(rows_B))
        if pairs is not None:
            images[MIXED] = pairs.mixed(images[config.banks[0]])
        answers = student.about(images, one_pass=config.one_pass, dense=self._dense)
        return Signals(
            student={bank: answer.logits_BC for bank, answer in answers.items()},
            teacher=teacher,
            labels_B=self._targets(labels_B, teacher, share.labelling),
            epoch=epoch,
            mixed=batch.mixed,
            rows_B=batch.rows,
            dense={bank: a.dense_BCHW for bank, a in answers.items() if a.dense_BCHW is not None},
            features={bank: answer.features for bank, answer in answers.items()},
            images=images if Need.IMAGES in self._needed else {},
            label_smoothing=self._label_smoothing,
            epochs=self._epochs,
            labelling=share.labelling,
            peers=tuple(_peer_signal(peer.about(images, one_pass=config.one_pass)) for peer in peers),
            pairs=pairs,
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

    def _about(self, images: Mapping[str, Tensor], rows_B: Tensor) -> dict[str, TeacherSignal]:
        """What the live teacher says about the images of each bank that it is heard of."""
        config, said = self._config, self._workbench.said
        return {
            bank: said.about(images[bank], rows_B, config.teacher_features) for bank in config.teacher_banks
        }

    def _pairs(self, count: int) -> Pairs | None:
        """Of a batch of so many, where the objective mixes each image with another one of its batch."""
        concentration = self._config.pair_mixing
        if concentration is None:
            return None
        # From the generator that each epoch begins anew: a course that goes on mixes as one in one piece.
        share = torch.distributions.Beta(concentration, concentration).sample()
        device = self._workbench.device
        return Pairs(to_device(torch.randperm(count), device), to_device(share, device))

    def _teacher(self, bank: str, epoch: int, rows_B: Tensor, images_BCHW: Tensor | None) -> TeacherSignal:
        signal = self._workbench.teacher(bank, epoch, rows_B, self._config.teacher_features, images_BCHW)
        return signal.unshifted() if Need.UNSHIFTED in self._needed else signal


def _peer_signal(answers: Mapping[str, Answer]) -> PeerSignal:
    return PeerSignal(
        {bank: answer.logits_BC for bank, answer in answers.items()},
        {bank: answer.features for bank, answer in answers.items()},
    )
