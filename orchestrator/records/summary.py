"""`summary.json`: all that a run found, as one typed document, and its table of students."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from orchestrator.config.tracking_uri import without_password
from orchestrator.records.costs import StudentCosts
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.places import summary_as_read, summary_as_written
from orchestrator.records.selection import Group, PairedDifference, paired_difference
from orchestrator.terminal.formatting import UNKNOWN, percent, short_parameters
from trainables.config import Config
from trainables.config.metrics import ACCURACY
from trainables.errors import ConfigError
from trainables.local_files import replace_text

ExportFormat = Literal["safetensors", "onnx", "torch_export"]
COLUMNS = (
    "student",
    "objective",
    "selection, %",
    "test, %",
    "test gain over CE, points (95 %)",
    "params",
    "latency, ms",
    "hyper-parameters",
)


class TeacherFigures(Config):
    """What the teacher can do; none is what logits that were imported do not tell."""

    params: int | None
    selection_accuracy: float | None
    test_accuracy: float | None


class CacheFigures(Config):
    """What the teacher said, and where it is kept."""

    uri: str
    fingerprint: str
    rows: int
    bytes: int


class TrialRow(Config):
    """One trial of the search; its accuracy is that of its best epoch."""

    id: str
    status: str
    objective: str
    hyper_parameters: dict[str, Any]
    epochs: int
    selection_accuracy: float | None


class Students(Config):
    """One set of hyper-parameters over several seeds; lists are in the order of the seeds.

    Accuracies are fractions; a standard deviation is that of the sample (n - 1), none for one seed.
    """

    trials: tuple[str, ...] = Field(min_length=1)
    objective: str
    seeds: tuple[int, ...]
    selection_accuracies: tuple[float, ...]
    test_accuracies: tuple[float, ...]
    selection_mean: float
    selection_std: float | None
    test_mean: float
    test_std: float | None
    params: int
    size_bytes: int
    latency_ms: float
    latency_p95_ms: float | None = Field(None, description="none in a record of an earlier version")
    latency_device: str | None = Field(None, description="measured on it; none as above")


class Finalist(Students):
    """A finalist, and what it gains over the control with the same seeds."""

    hyper_parameters: dict[str, Any]
    selection_gain: PairedDifference
    test_gain: PairedDifference


class Exported(Config):
    """One exported file, compared with the PyTorch student on real inputs."""

    path: str
    max_abs_difference: float = Field(description="of logits; the largest over all inputs")


class Champion(Config):
    """The student to ship: weights of `trial_id`, claims of its group."""

    trial_id: str = Field(description="the seed with the best selection accuracy; its weights are exported")
    objective: str
    hyper_parameters: dict[str, Any]
    params: int
    size_bytes: int
    latency_ms: float
    latency_p95_ms: float | None = Field(None, description="none in a record of an earlier version")
    latency_device: str | None = Field(None, description="measured on it; none as above")
    selection_accuracy: float = Field(description="mean over the seeds of its group")
    test_accuracy: float = Field(description="mean over the seeds of its group")
    exports: dict[ExportFormat, Exported]
    model_card: str


class MlflowPlace(Config):
    """Where the record is, and the registered champion; passwords in addresses are left out."""

    tracking_uri: Annotated[str, AfterValidator(without_password)]
    experiment_id: str | None
    parent_run_id: str | None
    ui_url: Annotated[str, AfterValidator(without_password)] | None
    registered_model: str | None
    version: str | None


class Summary(Config):
    """The whole document."""

    experiment: str
    out: str
    seconds: dict[str, float] = Field(description="by stage")
    teacher: TeacherFigures
    cache: CacheFigures | None
    trials: tuple[TrialRow, ...]
    baseline: Students
    finalists: tuple[Finalist, ...] = Field(description="best mean selection accuracy first")
    champion: Champion
    mlflow: MlflowPlace

    @model_validator(mode="after")
    def _known_champion(self) -> Self:
        if not any(is_champion(self, finalist) for finalist in self.finalists):
            raise ValueError(f"champion {self.champion.trial_id} is a seed of no finalist")
        return self


def trial_row(record: TrialRecord) -> TrialRow:
    """What the summary tells of one trial."""
    return TrialRow(
        id=record.trial,
        status=record.status,
        objective=record.objective,
        hyper_parameters=record.parameters,
        epochs=record.epochs,
        selection_accuracy=record.best.get(ACCURACY),
    )


def students_of(group: Group, tests: Mapping[str, float], costs: StudentCosts) -> Students:
    """The control: its group, test accuracies by trial id, and the costs of its network."""
    return Students(**_students(group, tests, costs))


def finalist_of(group: Group, control: Group, tests: Mapping[str, float], costs: StudentCosts) -> Finalist:
    """A finalist beside the control; `tests` has the test accuracies of both, by trial id."""
    return Finalist(
        **_students(group, tests, costs),
        hyper_parameters=group.parameters,
        selection_gain=paired_difference(_by_seed(group), _by_seed(control)),
        test_gain=paired_difference(_by_seed(group, tests), _by_seed(control, tests)),
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
        latency_ms=finalist.latency_ms,
        latency_p95_ms=finalist.latency_p95_ms,
        latency_device=finalist.latency_device,
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
        written = Summary.from_plain(json.loads(path.read_text(encoding="utf-8")))
        return Summary.from_plain(summary_as_read(written.plain(), path.parent.absolute()))
    except OSError as error:
        raise ConfigError(f"no summary at {path}: {error}; run the experiment first") from error
    except (ValueError, ValidationError) as error:
        raise ConfigError(
            f"{path} is no summary of this version: {error}; run the experiment again"
        ) from error


def students_table(summary: Summary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows for a terminal: teacher, control, then the finalists; rounded, as text."""
    teacher = summary.teacher
    reached = percent(teacher.selection_accuracy), percent(teacher.test_accuracy)
    params = UNKNOWN if teacher.params is None else f"{teacher.params:,}"
    rows: list[tuple[str, ...]] = [
        ("teacher", "", *reached, "", params, "", ""),
        _row("control", summary.baseline, "", ""),
    ]
    for number, finalist in enumerate(summary.finalists, start=1):
        own = " (champion)" if is_champion(summary, finalist) else ""
        searched = {k: v for k, v in finalist.hyper_parameters.items() if k != "objective"}
        name, parameters = f"finalist {number}{own}", short_parameters(searched)
        rows.append(_row(name, finalist, parameters, gain_text(finalist.test_gain)))
    return COLUMNS, rows


def is_champion(summary: Summary, students: Students) -> bool:
    """Whether the champion is one of these seeds."""
    return summary.champion.trial_id in students.trials


def gain_text(gain: PairedDifference) -> str:
    """A gain in percentage points with its interval, or the word that there is none."""
    if gain.low is None or gain.high is None:
        return f"{100 * gain.mean:+.2f} (one seed)"
    return f"{100 * gain.mean:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"


def latency_text(median_ms: float, p95_ms: float | None) -> str:
    """A median in milliseconds, with the 95th percentile where it is known."""
    return f"{median_ms:.3f}" if p95_ms is None else f"{median_ms:.3f} (p95 {p95_ms:.3f})"


def _row(name: str, students: Students, parameters: str, gain: str) -> tuple[str, ...]:
    return (
        name,
        students.objective,
        percent(students.selection_mean, students.selection_std),
        percent(students.test_mean, students.test_std),
        gain,
        f"{students.params:,}",
        latency_text(students.latency_ms, students.latency_p95_ms),
        parameters,
    )


def _students(group: Group, tests: Mapping[str, float], costs: StudentCosts) -> dict[str, Any]:
    by_seed = list(_by_seed(group, tests).values())
    return {
        "trials": tuple(record.trial for record in group.records),
        "objective": group.objective,
        "seeds": group.seeds,
        "selection_accuracies": group.accuracies,
        "test_accuracies": tuple(by_seed),
        "selection_mean": group.mean,
        "selection_std": group.std,
        "test_mean": statistics.fmean(by_seed),
        "test_std": statistics.stdev(by_seed) if len(by_seed) > 1 else None,
        "params": int(costs.params),
        "size_bytes": int(costs.size_bytes),
        "latency_ms": costs.latency_ms,
        "latency_p95_ms": costs.latency_p95_ms,
        "latency_device": costs.latency_device,
    }


def _by_seed(group: Group, tests: Mapping[str, float] | None = None) -> dict[int, float]:
    values: Sequence[float] = group.accuracies if tests is None else [tests[r.trial] for r in group.records]
    return dict(zip(group.seeds, values, strict=True))
