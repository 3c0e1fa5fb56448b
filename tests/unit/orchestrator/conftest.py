"""Records and a summary that tests of picking, summary and report share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.records.costs import StudentCosts
from orchestrator.records.exported_files import Exported
from orchestrator.records.ledger import TrialRecord
from orchestrator.records.selection import group_trials
from orchestrator.records.student_figures import control_students, finalist_of
from orchestrator.records.summary import (
    CacheFigures,
    MlflowPlace,
    Summary,
    TeacherFigures,
    champion_of,
    trial_row,
)
from trainables.config import Role

MakeRecord = Callable[..., TrialRecord]


def build_record(trial: str, accuracy: float | None = None, **changes: Any) -> TrialRecord:
    """A completed trial of kd, unless said otherwise; `seed` and `nll` are short for their places."""
    seed, nll = changes.pop("seed", 0), changes.pop("nll", 0.1)
    best = {} if accuracy is None else {"selection/accuracy": accuracy, "selection/nll": nll}
    fields: dict[str, Any] = {
        "role": Role.SEARCH,
        "search": "s",
        "objective": "kd",
        "parameters": {},
        "status": "completed",
        "epochs": 5,
    }
    return TrialRecord(trial=trial, spec={"seed": seed}, best=best, final=best, **(fields | changes))


@pytest.fixture
def make_record() -> MakeRecord:
    return build_record


@pytest.fixture
def search_records() -> list[TrialRecord]:
    """Three completed trials of two objectives, a pruned one and a failed one."""
    return [
        build_record("s1", 0.95, parameters={"temperature": 4.0, "kd_weight": 0.5}),
        build_record("s2", 0.93, parameters={"temperature": 1.25, "kd_weight": 0.9}),
        build_record("s3", 0.94, objective="crld", parameters={"temperature": 8.0, "weak_threshold": 0.7}),
        build_record(
            "s4", 0.5, status="pruned", parameters={"temperature": 90.0, "kd_weight": 0.1}, epochs=1
        ),
        build_record("s5", status="failed", reason="the loss is nan", parameters={"temperature": 99.0}),
    ]


@pytest.fixture
def measured(summary: Summary) -> Summary:
    """The same run, with the 95th percentiles and devices that earlier versions did not keep."""
    latency = {"latency_p95_ms": 0.18, "latency_device": "Intel Xeon"}
    assert summary.teacher is not None
    return summary.with_overrides(
        finalists=[
            finalist.with_overrides(**latency, control=finalist.control.with_overrides(**latency))
            for finalist in summary.finalists
        ],
        champion=summary.champion.with_overrides(**latency),
        teacher=summary.teacher.with_overrides(
            latency_ms=2.5, latency_p95_ms=3.0, latency_device=latency["latency_device"]
        ),
    )


@pytest.fixture
def without_teacher(summary: Summary) -> Summary:
    """A run of objectives that hear no teacher: finalists of ls and zipf, and no cache."""
    objectives = ("ls", "zipf")
    pairs = zip(summary.finalists, objectives, strict=True)
    finalists = [finalist.with_overrides(objective=name) for finalist, name in pairs]
    return Summary.from_plain(
        {
            **{name: value for name, value in summary.plain().items() if name != "teacher"},
            "cache": None,
            "seconds": {"data": 0.5, "search": 3.25},
            "trials": [trial.with_overrides(objective="ls").plain() for trial in summary.trials],
            "finalists": [finalist.plain() for finalist in finalists],
            "champion": summary.champion.with_overrides(objective="ls").plain(),
        }
    )


@pytest.fixture
def summary(search_records: list[TrialRecord]) -> Summary:
    """Two finalists and the control, three seeds each; finalist 1 is the champion."""
    kd = {"temperature": 4.0, "kd_weight": 0.5}
    crld = {"temperature": 8.0, "weak_threshold": 0.7}
    records = [
        *(build_record(f"f1-{s}", a, seed=s, parameters=kd) for s, a in enumerate((0.95, 0.96, 0.94))),
        *(
            build_record(f"f2-{s}", a, seed=s, objective="crld", parameters=crld)
            for s, a in enumerate((0.93, 0.94, 0.92))
        ),
    ]
    (group,) = group_trials(
        [build_record(f"b-{s}", a, seed=s, objective="ce") for s, a in enumerate((0.90, 0.92, 0.91))]
    )
    tests = {
        **dict(zip(("f1-0", "f1-1", "f1-2"), (0.94, 0.95, 0.93), strict=True)),
        **dict(zip(("f2-0", "f2-1", "f2-2"), (0.92, 0.90, 0.91), strict=True)),
        **dict(zip(("b-0", "b-1", "b-2"), (0.89, 0.91, 0.90), strict=True)),
    }
    tested = {trial: {"accuracy": accuracy} for trial, accuracy in tests.items()}
    costs = StudentCosts(params=9610.0, size_bytes=38_744.0, latency_ms=0.125)
    control = control_students(group, tested, costs)
    finalists = tuple(finalist_of(group, [control], tested, costs) for group in group_trials(records))
    exports = {
        "safetensors": Exported(path="champion/student.safetensors", max_abs_difference=0.0),
        "onnx": Exported(path="champion/student.onnx", max_abs_difference=1.5e-6),
        "torch_export": Exported(path="champion/student.pt2", max_abs_difference=0.0),
    }
    return Summary(
        experiment="digits",
        out="out/digits",
        seconds={"teacher": 12.5, "cache": 3.25},
        teacher=TeacherFigures(params=1_000_000, selection_accuracy=0.98, test_accuracy=0.97),
        cache=CacheFigures(uri="out/digits/cache", fingerprint="3f2a", rows=36_000, bytes=1_048_576),
        trials=tuple(trial_row(record, None) for record in search_records),
        finalists=finalists,
        champion=champion_of(finalists[0], "f1-1", exports, "champion/model_card.json"),
        mlflow=MlflowPlace(
            tracking_uri="sqlite:////tmp/mlflow.db",
            experiment_id="1",
            parent_run_id="abc",
            ui_url="http://127.0.0.1:5000/#/experiments/1",
            registered_model="stillhouse-digits",
            version="3",
        ),
    )
