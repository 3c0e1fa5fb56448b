"""What a slot does with a job, without Ray: leases and cancellation are shown by the integration tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.trainables.training.small_courses import same_weights, untimed, weights_of
from trainables.config import (
    CeConfig,
    DataConfig,
    DataName,
    KdConfig,
    KeptNetwork,
    ModelConfig,
    ModelName,
    OnlineSpec,
    Role,
    Split,
    TrainingConfig,
    TrialSpec,
    ViewsConfig,
    WorkbenchSpec,
)
from trainables.config.objectives import AkdConfig, TeacherInput
from trainables.data import load_test
from trainables.errors import CacheError, CheckpointError, StorageError, TrialFailed
from trainables.evaluation.answers_file import read_answers
from trainables.evaluation.metrics import answer_figures
from trainables.evaluation.profiling import device_name
from trainables.models.weights import load_weights
from trainables.slots.job_channel import JobChannel
from trainables.slots.messages import (
    JOB_KINDS,
    End,
    EvaluateJob,
    Job,
    Message,
    ProfileJob,
    Stage,
    StageJob,
    TrainJob,
)
from trainables.slots.student_jobs import train_job
from trainables.slots.warm_state import WarmState
from trainables.slots.worker import HANDLERS, evaluate_job, profile_job

DATA = DataConfig(name=DataName.DIGITS, train_limit=100)
STUDENT = ModelConfig(name=ModelName.MLP, width=8)
TRAINING = TrainingConfig(epochs=5, batch_size=20, checkpoint_every=2)
ONE = TRAINING.with_overrides(epochs=1)
ROBUST = AkdConfig(steps=2, teacher_input=TeacherInput.ADVERSARIAL)


@pytest.fixture(scope="module")
def warm() -> WarmState:
    return WarmState(torch.device("cpu"))


@pytest.fixture
def spec(tmp_path: Path) -> WorkbenchSpec:
    return WorkbenchSpec(
        data=DATA,
        views=ViewsConfig(),
        view_seed=1,
        cache_uri=None,
        cache_manifest=None,
        checkpoints=str(tmp_path / "students"),
    )


def job_of(spec: WorkbenchSpec, **changes: Any) -> TrainJob:
    trial = TrialSpec(
        trial_id="ce-1", role=Role.SEARCH, objective=CeConfig(), student=STUDENT, training=TRAINING, seed=3
    )
    return TrainJob(workbench=spec, trial=trial.with_overrides(**changes))


class Listener:
    """Keeps what is sent; stops wanting to hear at an epoch, or lets the worker die at one."""

    def __init__(self, *, tired_at: int = 99, dies_at: int = 99) -> None:
        self.messages: list[Message] = []
        self._tired_at = tired_at
        self._dies_at = dies_at
        self._is_tired = False

    def channel(self, heard: int = 0) -> JobChannel:
        return JobChannel(self._send, lambda: self._is_tired, heard)

    @property
    def epochs(self) -> list[int]:
        return [message.epoch for message in self.messages]

    def _send(self, message: Message) -> bool:
        if message.epoch == self._dies_at:
            raise ConnectionError
        self._is_tired = self._is_tired or message.epoch >= self._tired_at
        if not self._is_tired:
            self.messages.append(message)
        return not self._is_tired


def kept(weights: str) -> KeptNetwork:
    return KeptNetwork(model=STUDENT, weights=weights)


def test_every_kind_of_job_has_a_handler_and_survives_the_journey(spec: WorkbenchSpec) -> None:
    jobs: list[Job] = [
        job_of(spec),
        EvaluateJob(job_id="e", workbench=spec, network=kept("x"), split=Split.TEST),
        ProfileJob(job_id="p", workbench=spec, student=STUDENT),
        StageJob(job_id="s", stage=Stage.SPLIT, request=DATA.plain()),
    ]
    assert [JOB_KINDS[job.plain()["kind"]].from_plain(job.plain()) for job in jobs] == jobs
    assert {job.kind for job in jobs} == set(HANDLERS) == set(JOB_KINDS)


def test_data_and_workbench_stay_loaded_between_jobs(warm: WarmState, spec: WorkbenchSpec) -> None:
    assert warm.data(DATA) is warm.data(DataConfig(name=DataName.DIGITS, train_limit=100))
    first = warm.workbench(spec)
    assert warm.workbench(spec.with_overrides(view_seed=1)) is first
    assert warm.workbench(spec.with_overrides(view_seed=2)) is not first


def test_weights_depend_on_the_seed_alone(warm: WarmState, spec: WorkbenchSpec) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = weights_of(warm.build(STUDENT, spec, seed=5))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert same_weights(weights_of(warm.build(STUDENT, spec, seed=5)), one)
    assert not same_weights(weights_of(warm.build(STUDENT, spec, seed=6)), one)


@pytest.mark.usefixtures("either_bf16")
def test_a_student_is_told_epoch_by_epoch_and_ends_with_its_weights(
    warm: WarmState, spec: WorkbenchSpec
) -> None:
    listener = Listener()
    train_job(job_of(spec), warm, listener.channel())
    assert listener.epochs == [1, 2, 3, 4, 5]
    assert [message.end for message in listener.messages] == [None] * 4 + [End.COMPLETED]
    last = listener.messages[-1]
    accuracies = [message.metrics["selection/accuracy"] for message in listener.messages]
    assert last.best["selection/accuracy"] == max(accuracies)
    assert last.best_epoch == 1 + accuracies.index(max(accuracies))
    assert last.checkpoint == f"{spec.checkpoints}/ce-1/best.safetensors"
    assert [path.name for path in Path(last.checkpoint).parent.iterdir()] == ["best.safetensors"]


@pytest.mark.usefixtures("either_bf16")
def test_a_kept_student_evaluates_as_it_did_in_training(warm: WarmState, spec: WorkbenchSpec) -> None:
    trained, evaluated = Listener(), Listener()
    train_job(job_of(spec), warm, trained.channel())
    end = trained.messages[-1]
    job = EvaluateJob(job_id="e", workbench=spec, network=kept(end.checkpoint or ""), split=Split.SELECTION)
    evaluate_job(job, warm, evaluated.channel())
    (message,) = evaluated.messages
    assert message.end is End.COMPLETED
    trained_as = {name: v for name, v in end.best.items() if name.startswith("selection/")}
    answered = message.metrics["selection/answered_classes"]
    assert 1 < answered <= 10
    assert message.metrics == trained_as | {"selection/answered_classes": answered}


@pytest.mark.usefixtures("either_bf16")
def test_the_test_split_is_evaluated_on_its_own_images(warm: WarmState, spec: WorkbenchSpec) -> None:
    trained, evaluated = Listener(), Listener()
    train_job(job_of(spec), warm, trained.channel())
    checkpoint = trained.messages[-1].checkpoint or ""
    job = EvaluateJob(job_id="e", workbench=spec, network=kept(checkpoint), split=Split.TEST)
    evaluate_job(job, warm, evaluated.channel())
    model = warm.build(STUDENT, spec)
    load_weights(model, Path(checkpoint))
    expected = warm.workbench(spec).evaluate(model, load_test(DATA), batch_size=512)
    split = load_test(DATA)
    expected |= answer_figures(warm.workbench(spec).classes(model, split, batch_size=512), split.labels)
    assert evaluated.messages[0].metrics == {f"test/{name}": value for name, value in expected.items()}


@pytest.mark.usefixtures("either_bf16")
def test_a_student_is_compared_with_the_teacher_image_by_image(warm: WarmState, spec: WorkbenchSpec) -> None:
    checkpoints = []
    for seed in (1, 2):
        trained = Listener()
        train_job(job_of(spec, trial_id=f"ce-{seed}", seed=seed), warm, trained.channel())
        checkpoints.append(trained.messages[-1].checkpoint or "")
    own, theirs = checkpoints
    split = load_test(DATA)
    classes = []
    for checkpoint in checkpoints:
        model = warm.build(STUDENT, spec)
        load_weights(model, Path(checkpoint))
        classes.append(warm.workbench(spec).classes(model, split, batch_size=100))
    expected = float((classes[0] == classes[1]).double().mean())
    assert 0 < expected < 1
    for teacher, agreement in ((theirs, expected), (own, 1.0)):
        evaluated = Listener()
        job = EvaluateJob(
            job_id="e",
            workbench=spec,
            network=kept(own),
            split=Split.TEST,
            teacher=OnlineSpec(network=kept(teacher), batch_size=64),
        )
        evaluate_job(job, warm, evaluated.channel())
        assert evaluated.messages[0].metrics["test/agreement"] == agreement


@pytest.mark.usefixtures("either_bf16")
def test_answers_of_both_are_in_their_file_before_the_figures_are_told(
    warm: WarmState, spec: WorkbenchSpec, tmp_path: Path
) -> None:
    weights = []
    for seed in (1, 2):
        trained = Listener()
        train_job(job_of(spec, trial_id=f"ce-{seed}", seed=seed, training=ONE), warm, trained.channel())
        weights.append(trained.messages[-1].checkpoint or "")
    file = tmp_path / "answers" / "ce-1.npz"
    job = EvaluateJob(
        job_id="e",
        workbench=spec,
        network=kept(weights[0]),
        split=Split.TEST,
        teacher=OnlineSpec(network=kept(weights[1]), batch_size=64),
        answers=str(file),
    )
    with pytest.raises(ConnectionError):  # the slot dies before anybody heard its figures
        evaluate_job(job, warm, Listener(dies_at=0).channel())
    before = file.read_bytes()
    listener = Listener()
    evaluate_job(job, warm, listener.channel())
    assert file.read_bytes() == before
    told, found, split = listener.messages[0].metrics, read_answers(file), load_test(DATA)
    own, taught = found.student, found.teacher
    assert taught is not None
    assert own.figures == pytest.approx({name: told[f"test/{name}"] for name in own.figures}, abs=1e-5)
    assert float((own.answers_N == taught.answers_N).mean()) == pytest.approx(told["test/agreement"])
    assert (found.labels_N.tolist(), found.ids_N.tolist()) == (split.labels.tolist(), split.ids.tolist())
    first = found.shown_K[0]
    assert own.answers_N[first] != taught.answers_N[first]
    (grey,) = split.images[torch.tensor([first])]
    assert found.pictures_KHWD[0, :, :, 0].tolist() == grey[0].tolist()


@pytest.mark.usefixtures("either_bf16")
def test_answers_that_cannot_be_written_end_the_job_with_the_reason(
    warm: WarmState, spec: WorkbenchSpec, tmp_path: Path
) -> None:
    trained, listener = Listener(), Listener()
    train_job(job_of(spec, training=ONE), warm, trained.channel())
    (tmp_path / "answers").write_text("a file where a folder is to be")
    job = EvaluateJob(
        job_id="e",
        workbench=spec,
        network=kept(trained.messages[-1].checkpoint or ""),
        split=Split.TEST,
        answers=str(tmp_path / "answers" / "ce-1.npz"),
    )
    with pytest.raises(StorageError, match=r"cannot write .*ce-1\.npz"):
        evaluate_job(job, warm, listener.channel())
    assert listener.messages == []


@pytest.mark.usefixtures("either_bf16")
@pytest.mark.parametrize("autocast", [False, True])
def test_a_teacher_from_its_file_runs_beside_the_student_and_sees_its_adversarial_images(
    warm: WarmState, spec: WorkbenchSpec, autocast: bool
) -> None:
    beginner, trained = Listener(), Listener()
    train_job(job_of(spec, trial_id="ce-2", training=ONE), warm, beginner.channel())
    train_job(job_of(spec, training=TRAINING), warm, trained.channel())
    ends: list[dict[str, float]] = []
    for teacher in (beginner, trained):
        online = OnlineSpec(
            network=kept(teacher.messages[-1].checkpoint or ""), batch_size=8, autocast=autocast
        )
        beside = spec.with_overrides(online=online, checkpoints=f"{spec.checkpoints}-{len(ends)}")
        listener = Listener()
        train_job(job_of(beside, trial_id="akd-1", training=ONE, objective=ROBUST), warm, listener.channel())
        assert listener.messages[-1].end is End.COMPLETED
        assert "selection/accuracy_under_attack" in listener.messages[0].metrics
        ends.append(untimed(listener.messages[0].metrics))
    assert ends[0]["train/soft"] != ends[1]["train/soft"]  # what is heard is that teacher


@pytest.mark.usefixtures("either_bf16")
def test_without_a_teacher_beside_the_student_such_a_job_fails_with_what_to_set(
    warm: WarmState, spec: WorkbenchSpec
) -> None:
    with pytest.raises(
        TrialFailed, match=r"let the teacher run beside the student \(cache: \{online: true\}\)"
    ):
        train_job(job_of(spec, trial_id="akd-2", objective=ROBUST), warm, Listener().channel())


def test_weights_that_are_gone_are_named(warm: WarmState, spec: WorkbenchSpec) -> None:
    job = EvaluateJob(job_id="e", workbench=spec, network=kept("/nowhere/x.pt"), split=Split.TEST)
    with pytest.raises(CheckpointError, match=r"no checkpoint /nowhere/x\.pt"):
        evaluate_job(job, warm, Listener().channel())


def test_a_profile_tells_what_a_student_costs(warm: WarmState, spec: WorkbenchSpec) -> None:
    listener = Listener()
    profile_job(ProfileJob(job_id="p", workbench=spec, student=STUDENT), warm, listener.channel())
    (message,) = listener.messages
    assert message.end is End.COMPLETED
    assert message.metrics["params"] == 64 * 8 + 8 + 8 * 10 + 10
    assert message.metrics["latency_p95_ms"] >= message.metrics["latency_ms"] > 0
    assert message.device == device_name(torch.device("cpu"))
    assert message.metrics["size_bytes"] > 4 * message.metrics["params"]


@pytest.mark.usefixtures("either_bf16")
@pytest.mark.parametrize("tired_at", [1, 3])
def test_a_student_that_nobody_wants_stops_and_its_state_stays(
    warm: WarmState, spec: WorkbenchSpec, tired_at: int
) -> None:
    listener = Listener(tired_at=tired_at)
    train_job(job_of(spec), warm, listener.channel())
    assert listener.epochs == list(range(1, tired_at))
    folder = Path(spec.checkpoints) / "ce-1"
    assert (folder / "last.pt").exists() == (tired_at > 2)
    assert not (folder / "best.safetensors").exists()


def untimed_messages(messages: list[Message]) -> list[Message]:
    return [
        message.model_copy(update={"metrics": untimed(message.metrics), "best": untimed(message.best)})
        for message in messages
    ]


@pytest.mark.usefixtures("either_bf16")
@pytest.mark.parametrize("dies_at", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("heard", ["everything sent", "only one"])
def test_the_next_attempt_tells_what_the_listener_lacks(
    warm: WarmState, spec: WorkbenchSpec, dies_at: int, heard: str
) -> None:
    """The second case: a driver that was killed had passed on less than its slots had told."""
    whole, before, after = Listener(), Listener(dies_at=dies_at), Listener()
    train_job(job_of(spec, trial_id="whole"), warm, whole.channel())
    with pytest.raises(ConnectionError):
        train_job(job_of(spec), warm, before.channel())
    known = before.messages if heard == "everything sent" else before.messages[:1]
    train_job(job_of(spec), warm, after.channel(heard=len(known)))
    new = [message for message in after.messages if message.epoch > len(known)]
    told = [message.model_copy(update={"checkpoint": None}) for message in known + new]
    expected = [message.model_copy(update={"checkpoint": None}) for message in whole.messages]
    assert untimed_messages(told) == untimed_messages(expected)


def test_every_epoch_tells_what_it_was_trained_in(
    warm: WarmState, spec: WorkbenchSpec, either_bf16: bool
) -> None:
    wide = ModelConfig(name=ModelName.RESNET8, width=16)
    auto, asked = Listener(), Listener()
    train_job(job_of(spec, student=wide, training=ONE), warm, auto.channel())
    named = TRAINING.with_overrides(precision="bf16", epochs=2)
    train_job(job_of(spec, trial_id="ce-2", training=named), warm, asked.channel())
    assert [m.precision for m in auto.messages] == [f"{'bf16' if either_bf16 else 'fp32'} (table 1)"]
    assert [m.precision for m in asked.messages] == ["bf16 (asked for)"] * 2


@pytest.mark.usefixtures("either_bf16")
def test_a_student_that_goes_on_in_another_precision_than_this_slot_would_choose_says_so(
    warm: WarmState, spec: WorkbenchSpec
) -> None:
    began, after = Listener(dies_at=3), Listener()
    other = WarmState(torch.device("cpu"), agree=lambda _key, _find: "bf16 (table 1)")
    with pytest.raises(ConnectionError):
        train_job(job_of(spec), other, began.channel())
    train_job(job_of(spec), warm, after.channel(heard=2))
    assert [message.epoch for message in after.messages] == [3, 4, 5]
    assert {message.precision for message in after.messages} == {"bf16 (as its training began)"}


@pytest.mark.usefixtures("either_bf16")
def test_an_end_that_nobody_heard_keeps_the_state(warm: WarmState, spec: WorkbenchSpec) -> None:
    listener = Listener(tired_at=5)
    train_job(job_of(spec), warm, listener.channel())
    assert listener.epochs == [1, 2, 3, 4]
    names = {path.name for path in (Path(spec.checkpoints) / "ce-1").iterdir()}
    assert names == {"last.pt", "best.safetensors"}


@pytest.mark.usefixtures("either_bf16")
def test_a_student_of_a_teacher_needs_the_cache(warm: WarmState, spec: WorkbenchSpec) -> None:
    with pytest.raises(CacheError, match="the workbench has no cache"):
        train_job(job_of(spec, objective=KdConfig()), warm, Listener().channel())
