"""The report can be written at any time: it says how far the run is, and that there is no champion yet."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.config.loading import EXPERIMENTS_FOLDER, load_experiment
from orchestrator.config.paths import out_folder
from orchestrator.records.events import StageEvent
from orchestrator.records.ledger import Ledger
from orchestrator.records.summary import write_summary
from orchestrator.reports.html_report import report_html
from orchestrator.reports.run_facts import RunFacts, facts_of, log_domains
from orchestrator.reports.run_state import later_students, state_of
from search_spaces.space import SpaceConfig
from tests.synthetic_run import SyntheticRun
from trainables.errors import ConfigError, StillhouseError

GOES_ON = SyntheticRun(trials=12, epochs=4, is_over=False)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment whose output folder lies beside it, and is still to be made."""
    file = tmp_path / "digits.yaml"
    text = (EXPERIMENTS_FOLDER / "digits.yaml").read_text(encoding="utf-8")
    file.write_text(f"{text}\nout: {tmp_path}/out\n", encoding="utf-8")
    return file


def report(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["report", *arguments])
    if isinstance(done.exception, StillhouseError):
        raise done.exception
    return done.exit_code, done.output


def words(page: str) -> str:
    return " ".join(re.sub("<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_a_page_of_a_search_that_goes_on_says_so_at_its_top(experiment: Path, tmp_path: Path) -> None:
    ledger = GOES_ON.write(out_folder(load_experiment(str(experiment))))
    to = tmp_path / "page.html"
    code, output = report(str(experiment), "--to", str(to))
    assert code == 0
    assert "the run is not over, and there is no champion yet" in output
    page = words(to.read_text(encoding="utf-8"))
    top = page[: page.index("Learning curves")]
    assert "This run is not over, and there is no champion yet." in top
    assert "Stage search is in progress." in top
    assert re.search(rf"\b{len(ledger.trials())} of 24 trials started: \d+ completed", top)
    assert "Why this champion" not in page
    assert "test split" not in page


def test_without_a_place_the_page_is_that_of_the_run(experiment: Path) -> None:
    out = out_folder(load_experiment(str(experiment)))
    trials = len(GOES_ON.write(out).trials())
    ledger = (out / "ledger.jsonl").read_bytes()
    _, output = report(str(experiment), "--json")
    told = json.loads(output[output.index("{") :])
    report_file = str(out / "report.html")
    assert told == {"experiment": "digits", "report": report_file, "is_over": False, "trials": trials}
    assert (out / "report.html").exists()
    assert (out / "ledger.jsonl").read_bytes() == ledger


def test_an_experiment_that_never_ran_is_refused(experiment: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run of digits; run it first"):
        report(str(experiment))


def test_a_place_that_cannot_be_written_is_told(experiment: Path, tmp_path: Path) -> None:
    Ledger(out_folder(load_experiment(str(experiment)))).append(
        StageEvent(stage="teacher", key="k", status="started")
    )
    with pytest.raises(StillhouseError, match=f"cannot write {tmp_path}"):
        report(str(experiment), "--to", str(tmp_path))


def test_a_run_whose_teacher_is_being_trained_has_a_page_too(experiment: Path) -> None:
    loaded = load_experiment(str(experiment))
    ledger = Ledger(out_folder(loaded))
    ledger.append(StageEvent(stage="teacher", key="k", status="started"))
    page = words(report_html(facts_of(loaded, ledger)))
    assert "Stage teacher is in progress." in page
    assert "0 of 24 trials started: none ended." in page
    assert "What the search tried" not in page


def test_a_run_that_failed_says_where_and_why() -> None:
    failed = StageEvent(stage="cache", key="k", status="failed", reason="the disk is full")
    assert "It stopped in stage cache: the disk is full." in state_of(RunFacts("digits", [], [failed]))


def test_the_page_of_a_finished_run_has_its_champion(experiment: Path, tmp_path: Path) -> None:
    run = SyntheticRun(trials=6, epochs=3, seeds=2, finalists=1)
    facts = run.facts(tmp_path / "elsewhere")
    assert facts.summary is not None
    out = out_folder(load_experiment(str(experiment)))
    run.write(out)
    write_summary(out / "summary.json", facts.summary.with_overrides(out=str(out)))
    report(str(experiment))
    page = words((out / "report.html").read_text(encoding="utf-8"))
    assert "Why this champion" in page
    assert "is not over" not in page


def test_students_that_started_after_the_champion_was_chosen_are_told(tmp_path: Path) -> None:
    facts = SyntheticRun(trials=6, epochs=3, seeds=2, finalists=1).facts(tmp_path)
    assert facts.summary is not None
    assert facts.summary.ledger is not None
    assert later_students(facts) == ""
    started = next(event for event in facts.events if event.kind == "trial_started")
    again = RunFacts(facts.experiment, facts.records, [*facts.events, started], facts.summary)
    assert later_students(again).startswith("1 student started since the champion was chosen")


def test_log_domains_are_those_of_the_space() -> None:
    space = SpaceConfig.from_plain(
        {
            "name": "s",
            "objectives": {"kd": {"temperature": {"uniform": [1, 8]}, "kd_weight": {"choice": [0.5, 0.9]}}},
            "training": {"lr": {"loguniform": [0.001, 1]}},
        }
    )
    assert log_domains(space) == {"temperature": False, "training.lr": True}
