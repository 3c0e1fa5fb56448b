"""`summary.json`: all that a run found, as one typed document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from orchestrator.records.chain import LedgerMark
from orchestrator.records.compute import compute_over_ce, ensemble_accuracy, peers_accuracy
from orchestrator.records.costs import LATENCIES, StudentCosts, is_none
from orchestrator.records.exported_files import Exported, ExportFormat
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.picking.picked import Picked
from orchestrator.records.places import summary_as_read, summary_as_written
from orchestrator.records.student_figures import Finalist, Students
from orchestrator.terminal.masking import without_secrets
from trainables.config import Config
from trainables.config.data import UnlabelledCounts
from trainables.config.metrics import ACCURACY, AGREEMENT, ECE, KL_TO_TEACHER, NLL, RankBy
from trainables.errors import ConfigError
from trainables.foreign_files import foreign_file
from trainables.local_files import replace_text


def _without_secrets(text: str | None) -> str | None:
    return None if text is None else without_secrets(text)


class MemberFigures(Config):
    """What one of several teachers can do alone."""

    share: float = Field(description="of its answers in the mean; those of all sum to one")
    params: int | None
    selection_accuracy: float | None
    test_accuracy: float | None
    latency_ms: float | None = Field(None, description="median")


class TeacherFigures(Config):
    """What the teacher can do; none is what logits that were imported do not tell."""

    params: int | None
    selection_accuracy: float | None
    test_accuracy: float | None
    test_balanced_accuracy: float | None = Field(None, description="where classes are uneven")
    test_ranked: float | None = Field(
        None,
        description="the figure that ranks students, where that is not accuracy, and it has such features",
        exclude_if=is_none,
    )
    latency_ms: float | None = Field(None, description="median; none in a record of an earlier version")
    latency_p95_ms: float | None = Field(None, description="95th percentile; none as above")
    latency_device: str | None = Field(None, description="measured on it; none as above")
    members: tuple[MemberFigures, ...] = Field(
        (), description="of several teachers, each", exclude_if=lambda members: not members
    )


class CacheFigures(Config):
    """What the teacher said, and where it is kept."""

    uri: str
    fingerprint: str
    rows: int
    bytes: int


class UnlabelledFigures(UnlabelledCounts):
    """Images without labels that students with a teacher learned from."""

    share: float = Field(description="part of each batch; 1: in the place of labelled images")


class TrialRow(Config):
    """One trial of the search; its figures are those of its best epoch."""

    id: str
    status: str
    objective: str
    hyper_parameters: dict[str, Any]
    epochs: int
    precision: str | None = Field(None, description="what it was trained in, and what chose that")
    selection_accuracy: float | None = Field(description="of the kind that ranks students, see `rank_by`")
    selection_own_accuracy: float | None = Field(
        None, description="of the student's own answers, where another figure ranks it", exclude_if=is_none
    )
    selection_nll: float | None = Field(None, description="nats, at that epoch")
    selection_ece: float | None = Field(None, description="at that epoch")
    selection_agreement: float | None = Field(None, description="with the teacher", exclude_if=is_none)
    selection_kl_to_teacher: float | None = Field(None, description="nats", exclude_if=is_none)
    params: int | None = Field(None, description="of completed trials")
    size_bytes: int | None = Field(None, description="of the safetensors file, of completed trials")
    latency_ms: float | None = Field(None, description="median, of completed trials")
    seconds: float | None = Field(None, description="of its training, if known", exclude_if=is_none)
    compute_over_ce: float | None = Field(
        None,
        description="operations of an epoch over those of cross-entropy with the same student; none as above",
        exclude_if=is_none,
    )
    peers_selection_accuracy: float | None = Field(
        None,
        description="mean over the networks that were trained beside it, which rank nothing",
        exclude_if=is_none,
    )
    ensemble_selection_accuracy: float | None = Field(
        None, description="of all of them as one", exclude_if=is_none
    )


class Champion(Config):
    """The student to ship: weights of `trial_id`, claims of its group."""

    trial_id: str = Field(description="the seed with the best selection accuracy; it is exported")
    objective: str
    hyper_parameters: dict[str, Any]
    params: int
    size_bytes: int
    latency_ms: float
    latency_p95_ms: float | None = Field(None, description="none in a record of an earlier version")
    latency_device: str | None = Field(None, description="measured on it; none as above")
    latency_64_ms: float | None = Field(
        None, description="of a batch of 64; none as above", exclude_if=is_none
    )
    latency_64_p95_ms: float | None = Field(None, exclude_if=is_none)
    latency_threads: int | None = Field(
        None, description="of a CPU that computed; none as above", exclude_if=is_none
    )
    precision: str | None = Field(None, description="what it was trained in, and what chose that")
    selection_accuracy: float = Field(description="mean over the seeds of its group")
    test_accuracy: float = Field(description="mean over the seeds of its group")
    exports: dict[ExportFormat, Exported]
    model_card: str
    not_exported: dict[ExportFormat, str] = Field(
        {},
        description="formats that were asked for, and why there is none",
        exclude_if=lambda value: not value,
    )


class MlflowPlace(Config):
    """Where the record is, and the registered champion; passwords in addresses are left out."""

    tracking_uri: Annotated[str, AfterValidator(without_secrets)]
    experiment_id: str | None
    parent_run_id: str | None
    ui_url: Annotated[str, AfterValidator(without_secrets)] | None
    registered_model: str | None
    version: str | None
    lacks: Annotated[str | None, AfterValidator(_without_secrets)] = Field(
        None, description="what MLflow does not have, and why; none where it has everything"
    )


class Summary(Config):
    """The whole document."""

    experiment: str
    out: str
    rank_by: RankBy = Field(
        RankBy.ACCURACY,
        description="what the accuracies of students below are: of their own answers (accuracy), or of what "
        "their features tell the nearest neighbours or a linear probe",
        exclude_if=lambda figure: figure is RankBy.ACCURACY,
    )
    seconds: dict[str, float] = Field(description="by stage")
    teacher: TeacherFigures | None = Field(
        None, description="none where students hear none, and none is known", exclude_if=is_none
    )
    cache: CacheFigures | None
    trials: tuple[TrialRow, ...]
    finalists: tuple[Finalist, ...] = Field(description="best mean selection accuracy first")
    champion: Champion
    mlflow: MlflowPlace
    picked: Picked | None = Field(
        None,
        description="by what the champion was chosen; none where it is simply the best finalist",
        exclude_if=lambda picked: picked is None,
    )
    leaks: tuple[str, ...] = Field(
        (), description="which splits share images, in sentences", exclude_if=lambda value: not value
    )
    ledger: LedgerMark | None = Field(
        None, description="how far the ledger was; none in a summary of an earlier version"
    )
    unlabelled: UnlabelledFigures | None = Field(
        None,
        description="none where all images have labels",
        exclude_if=lambda unlabelled: unlabelled is None,
    )

    @model_validator(mode="after")
    def _known_champion(self) -> Self:
        if not any(is_champion(self, finalist) for finalist in self.finalists):
            raise ValueError(f"champion {self.champion.trial_id} is a seed of no finalist")
        return self


def trial_row(record: TrialRecord, costs: StudentCosts | None) -> TrialRow:
    """What the summary tells of one trial; costs were measured of completed ones."""
    measured = {} if costs is None else costs.numbers()
    return TrialRow(
        id=record.trial,
        status=record.status,
        objective=record.objective,
        hyper_parameters=record.parameters,
        epochs=record.epochs,
        precision=record.precision,
        selection_accuracy=record.score,
        selection_own_accuracy=record.best.get(ACCURACY) if record.rank_by.is_of_features else None,
        selection_nll=record.best.get(NLL),
        selection_ece=record.best.get(ECE),
        selection_agreement=record.best.get(AGREEMENT),
        selection_kl_to_teacher=record.best.get(KL_TO_TEACHER),
        params=int(measured["params"]) if measured else None,
        size_bytes=int(measured["size_bytes"]) if measured else None,
        latency_ms=measured.get("latency_ms"),
        seconds=record.seconds or None,
        compute_over_ce=compute_over_ce(record),
        peers_selection_accuracy=peers_accuracy(record.best),
        ensemble_selection_accuracy=ensemble_accuracy(record.best),
    )


def champion_of(
    finalist: Finalist, trial_id: str, exports: Mapping[str, Exported], model_card: str
) -> Champion:
    """The champion: claims of its group of seeds, files of one seed.

    Raises:
        ValueError: the trial is none of the finalist's.
    """
    if trial_id not in finalist.trials:
        raise ValueError(f"trial {trial_id} is none of the finalist's: {', '.join(finalist.trials)}")
    return Champion(
        trial_id=trial_id,
        objective=finalist.objective,
        hyper_parameters=finalist.hyper_parameters,
        params=finalist.params,
        size_bytes=finalist.size_bytes,
        **{name: getattr(finalist, name) for name in LATENCIES},
        latency_threads=finalist.latency_threads,
        precision=finalist.precision,
        selection_accuracy=finalist.selection_mean,
        test_accuracy=finalist.test_mean,
        exports=dict(exports),
        model_card=model_card,
    )


def write_summary(path: Path, summary: Summary) -> None:
    """Write the document at once, its numbers unrounded and its paths relative to the folder."""
    replace_text(path, json.dumps(summary_as_written(summary.plain()), indent=2, allow_nan=False) + "\n")


def read_summary(path: Path) -> Summary:
    """The document in a file, with the paths of where it is now.

    Raises:
        ConfigError: no such file, or no summary of this version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"no summary at {path}: {error}; run the experiment first") from error
    with foreign_file(
        lambda why: ConfigError(f"{path} is no summary of this version: {why}; run the experiment again")
    ):
        written = Summary.from_plain(_of_this_version(json.loads(content)))
        return Summary.from_plain(summary_as_read(written.plain(), path.parent.absolute()))


def lacking(summary: Summary, what: str) -> Summary:
    """The summary of a run whose results are all there, with what MLflow lacks of them."""
    place = summary.mlflow.model_copy(update={"lacks": without_secrets(" ".join(what.split()))})
    return summary.model_copy(update={"mlflow": place})


def is_champion(summary: Summary, students: Students) -> bool:
    """Whether the champion is one of these seeds."""
    return summary.champion.trial_id in students.trials


def champions_group(summary: Summary) -> Finalist:
    """The finalist of which the champion is a seed."""
    return next(finalist for finalist in summary.finalists if is_champion(summary, finalist))


def _of_this_version(document: dict[str, Any]) -> dict[str, Any]:
    """A document of an earlier version has one control for all finalists, `baseline`."""
    if "baseline" not in document:
        return document
    own = {name: value for name, value in document.items() if name != "baseline"}
    finalists = [{"control": document["baseline"], **finalist} for finalist in own["finalists"]]
    return {**own, "finalists": finalists}
