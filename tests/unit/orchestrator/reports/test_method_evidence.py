"""The evidence for objectives: the numbers of a ledger against SciPy's, and the page that shows them."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping
from pathlib import Path

import pytest
from scipy import stats  # type: ignore[import-untyped]

from orchestrator.config.loading import load_experiment
from orchestrator.records.events import EpochEnded, StageEvent, TrialEnded, TrialStarted
from orchestrator.records.ledger import Ledger
from orchestrator.reports.evidence import Evidence, SearchEvidence
from orchestrator.reports.method_evidence import evidence_of
from orchestrator.reports.methods_page import Chapter, chapters_of, facts_of, methods_page
from orchestrator.reports.step_costs import read_steps, steps_told
from trainables.config.metrics import RankBy
from trainables.errors import StillhouseError

SEEDS = (11, 12, 13, 14)
ACCURACY = {
    "ce": (0.80, 0.82, 0.81, 0.83),
    "kd": (0.84, 0.86, 0.85, 0.87),
    "dist": (0.80, 0.90, 0.79, 0.88),
    "ckd": (0.70, 0.71, 0.72, 0.70),
}
SECONDS = {"ce": 2.0, "kd": 2.2, "dist": 2.4, "ckd": 3.0}


def page_of(*chapters: Chapter, steps: Mapping[str, float] | None = None) -> str:
    return methods_page([one.text for one in chapters], title="T", steps=steps or {})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """One finished search of three objectives at their defaults, and one that was never tested."""
    ledger = Ledger(tmp_path)
    ledger.append(
        StageEvent(stage="teacher", key="t", status="finished", seconds=1.0, result={"params": 174_000})
    )
    tested: dict[str, dict[str, float]] = {"teacher": {"accuracy": 0.9, "ece": 0.02}}
    for name, accuracies in ACCURACY.items():
        role = "baseline" if name == "ce" else "finalist"
        for seed, accuracy in zip(SEEDS, accuracies, strict=True):
            trial = student(ledger, "whole", name, role, seed)
            tested[trial] = {"accuracy": accuracy, "ece": 0.05, "agreement": 0.75}
    ledger.append(StageEvent(stage="test", key="k", status="finished", seconds=1.0, result=tested))
    student(ledger, "half", "kd", "finalist", 11)
    return ledger


def student(
    ledger: Ledger,
    search: str,
    objective: str,
    role: str,
    seed: int,
    *,
    parameters: dict[str, object] | None = None,
    network: dict[str, object] | None = None,
    failure: str | None = None,
    lr: float = 0.1,
    accuracy: float = 0.5,
    rank_by: str = "accuracy",
    training: dict[str, object] | None = None,
    told: dict[str, float] | None = None,
) -> str:
    parameters = parameters or {}
    trial = "-".join(map(str, (search, objective, *parameters.values(), seed)))
    spec = {"seed": seed, "objective": {"name": objective}, "student": network or {"name": "mlp"}}
    spec |= {} if rank_by == "accuracy" else {"rank_by": rank_by}
    ledger.append(
        TrialStarted(
            trial=trial,
            role=role,
            search=search,
            objective=objective,
            parameters=parameters if role == "baseline" else {"objective": objective, **parameters},
            spec={**spec, "training": {"epochs": 5, "lr": lr, **(training or {})}},
            sampled={},
        )
    )
    metrics = {"selection/accuracy": accuracy, "seconds": SECONDS.get(objective, 1.0)}
    metrics |= {f"selection/{rank_by}": accuracy, **(told or {})}
    ledger.append(EpochEnded(trial=trial, epoch=1, metrics=metrics))
    ledger.append(
        TrialEnded(
            trial=trial,
            status="completed" if failure is None else "failed",
            reason=failure,
            epochs=1,
            best_epoch=1,
            best=metrics,
            final=metrics,
            checkpoint=None,
        )
    )
    return trial


def of(found: SearchEvidence, objective: str) -> Evidence:
    (controlled,) = found.by_control
    return next(group for group in (controlled.control, *found.groups) if group.objective == objective)


def test_means_intervals_and_paired_differences_are_those_of_scipy(ledger: Ledger) -> None:
    (found,) = evidence_of(ledger)
    assert [group.objective for group in found.groups] == ["kd", "dist", "ckd"]
    for name, accuracies in ACCURACY.items():
        mine, values = of(found, name), [100 * accuracy for accuracy in accuracies]
        assert mine.mean == pytest.approx(statistics.fmean(values))
        expected = stats.ttest_1samp(values, 0).confidence_interval()
        assert mine.interval == pytest.approx((expected.low, expected.high))
        for other, difference in (("ce", mine.over_ce), ("kd", mine.over_kd)):
            if name == other:
                assert difference is None
                continue
            assert difference is not None
            rival = [100 * accuracy for accuracy in ACCURACY[other]]
            paired = stats.ttest_rel(values, rival).confidence_interval()
            assert difference.mean == pytest.approx(statistics.fmean(values) - statistics.fmean(rival))
            if name == "kd":  # every seed gains the same, so the interval has no width
                assert (difference.low, difference.high) == pytest.approx((4.0, 4.0))
            else:
                assert (difference.low, difference.high) == pytest.approx((paired.low, paired.high))
        assert mine.epoch_over_ce == pytest.approx(SECONDS[name] / SECONDS["ce"])
        assert (mine.agreement, mine.ece) == pytest.approx((75.0, 5.0))


def test_a_search_is_compared_by_the_figure_that_ranked_it_and_with_none_that_another_ranked(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path)
    for search, by in (("plain", "accuracy"), ("features", "knn_accuracy")):
        tested: dict[str, dict[str, float]] = {}
        for name, knn, own in (("ce", 0.6, 0.9), ("kd", 0.65, 0.95), ("simreg", 0.8, 0.1)):
            if (search, name) == ("features", "kd"):
                continue
            role = "baseline" if name == "ce" else "finalist"
            for seed in SEEDS[:2]:
                trial = student(ledger, search, name, role, seed, rank_by=by)
                figures = {"accuracy": own + seed / 1e4, "ece": 0.1}
                tested[trial] = figures if by == "accuracy" else {**figures, "knn_accuracy": knn + seed / 1e4}
        ledger.append(StageEvent(stage="test", key=search, status="finished", seconds=1.0, result=tested))
    plain, features = evidence_of(ledger)
    assert (plain.rank_by, features.rank_by) == (RankBy.ACCURACY, RankBy.KNN_ACCURACY)
    judged = of(features, "simreg")
    assert judged.mean == pytest.approx(80 + 0.115)
    assert judged.over_ce is not None
    assert judged.over_ce.mean == pytest.approx(20.0)
    assert judged.over_kd is None  # KD was ranked by its own answers
    assert of(plain, "simreg").mean == pytest.approx(10 + 0.115)
    page = page_of(Chapter("F.", [plain, features]))
    (heading,) = [line for line in page.splitlines() if "judged by" in line]
    assert heading.startswith("## simreg")
    assert heading.endswith(", judged by kNN accuracy")


@pytest.mark.parametrize("experiment", ["digits", "digits_without_teacher"])
def test_the_page_speaks_of_a_teacher_where_there_is_one(tmp_path: Path, experiment: str) -> None:
    has_teacher = experiment == "digits"
    ledger, tested = Ledger(tmp_path), {}
    for name, role in (("ce", "baseline"), ("ls", "finalist")):
        for seed in SEEDS[:2]:
            agreement = {"agreement": 0.75} if has_teacher else {}
            tested[student(ledger, "s", name, role, seed)] = {"accuracy": 0.9, "ece": 0.1, **agreement}
    ledger.append(StageEvent(stage="test", key="s", status="finished", seconds=1.0, result=tested))
    chapter = Chapter(facts_of(load_experiment(experiment), ledger), evidence_of(ledger))
    page = page_of(chapter)
    head, rule, *rows = [line for line in page.splitlines() if line.startswith("|")]
    assert ("agrees with teacher" in head) == has_teacher
    assert {line.count("|") for line in (rule, *rows)} == {head.count("|")}
    told = page.partition("Experiment `")[2].partition("```text")[0]
    assert ("Teacher: resnet14 of width 16 (not in the ledger). " in told) == has_teacher
    assert ("eacher" in told) == (has_teacher or "digits_without_teacher" in told)
    assert "digits, all training images. Student: resnet8" in told or has_teacher


def test_the_page_says_what_is_significant_what_is_not_and_what_loses_to_kd(ledger: Ledger) -> None:
    steps = {"kd": 1.05, "mlld": 2.06, "zipf": 1.4}
    page = page_of(Chapter("F.", evidence_of(ledger)), steps=steps)
    said = dict(re.findall(r"^\* ([A-Z][^:\n]*): ([^\n]*)\.$", page, re.MULTILINE))
    assert said["Better than CE"] == "`kd`"
    assert said["Worse than CE"] == "`ckd`"
    assert said["Not significantly different from CE"] == "`dist`"
    assert said["Loses to KD"] == "`ckd`"
    assert said["Below KD on average, not significantly"] == "`dist`"
    assert "## 3 objectives, each at its defaults" in page
    assert "**+4.00 [+4.00, +4.00]**" in page
    told, _, costs = page.partition("## What a step costs")
    assert re.findall(r"^\| `(\w+)` \| (\S+) \| (the student sees 2 views)?", costs, re.MULTILINE) == [
        ("kd", "1.05", ""),
        ("zipf", "1.40", ""),
        ("mlld", "2.06", "the student sees 2 views"),
    ]
    table = [line.split("|") for line in told.splitlines() if line.startswith("| `")]
    assert [row[1].strip(" `") for row in table] == ["kd", "dist", "ckd"]
    assert page.count("| control: `ce` |") == 1
    assert {len(row) for row in table} == {11}


def add_search(ledger: Ledger, name: str, *, network: dict[str, object], temperature: float) -> None:
    """A finished search whose only finalist is KD at this temperature, one point better than its control."""
    tested: dict[str, dict[str, float]] = {}
    for seed in SEEDS:
        control = student(ledger, name, "ce", "baseline", seed, network=network)
        searched: dict[str, object] = {"temperature": temperature, "standardise": False}
        finalist = student(ledger, name, "kd", "finalist", seed, parameters=searched, network=network)
        for number in range(2):
            student(ledger, name, f"draw{number}", "search", seed, network=network)
        tested |= {control: {"accuracy": 0.85, "ece": 0.1}, finalist: {"accuracy": 0.86, "ece": 0.1}}
    ledger.append(StageEvent(stage="test", key=name, status="finished", seconds=1.0, result=tested))


def test_students_of_another_search_are_held_against_kd_at_its_defaults(ledger: Ledger) -> None:
    add_search(ledger, "same", network={"name": "mlp"}, temperature=2.0)
    add_search(ledger, "other", network={"name": "mlp", "cosine_head": 64}, temperature=2.0)
    _, same, other = evidence_of(ledger)
    (tuned,) = same.groups
    assert tuned.parameters == {"temperature": 2.0}  # what is at its default is not told
    assert tuned.over_kd is not None
    assert tuned.over_kd.mean == pytest.approx(86 - statistics.fmean(ACCURACY["kd"]) * 100)
    assert other.groups[0].over_kd is None  # KD at its defaults was never trained with this network
    page = page_of(Chapter("F.", evidence_of(ledger)))
    assert "## After a search of 8 trials: kd\n" in page
    assert "## After a search of 8 trials: kd, students with cosine_head 64\n" in page
    assert "| `kd` (temperature 2) |" in page
    assert page.count("Differences are paired by seed") == 1  # for all tables


def test_kd_at_its_defaults_is_what_the_others_of_a_search_are_held_against(tmp_path: Path) -> None:
    ledger, tested = Ledger(tmp_path), {}
    for seed in SEEDS:
        tested[student(ledger, "s", "ce", "baseline", seed)] = {"accuracy": 0.8, "ece": 0.1}
        for standardise, accuracy in ((True, 0.9), (False, 0.85)):
            options: dict[str, object] = {"standardise": standardise, "temperature": 4, "warmup_epochs": 1}
            trial = student(ledger, "s", "kd", "finalist", seed, parameters=options)
            tested[trial] = {"accuracy": accuracy, "ece": 0.1}
    ledger.append(StageEvent(stage="test", key="k", status="finished", seconds=1.0, result=tested))
    (found,) = evidence_of(ledger)
    lskd, kd = found.groups
    assert (lskd.parameters, kd.parameters) == ({"standardise": True}, {})
    assert kd.over_kd is None
    assert lskd.over_kd is not None
    assert lskd.over_kd.mean == pytest.approx(5.0)
    page = page_of(Chapter("F.", [found]))
    assert "## 2 settings of kd\n" in page
    assert "Better than KD: `kd` (standardise True)." in page


def width_search(ledger: Ledger) -> None:
    """KD of widths 64 and 16, each with its control; at width 64 there is a control of a worse recipe too."""
    tested: dict[str, dict[str, float]] = {}
    for shift, seed in enumerate(SEEDS):
        for width, ce, kd in ((64, 0.85, 0.89), (16, 0.80, 0.81)):
            network: dict[str, object] = {"name": "mlp", "width": width}
            own: dict[str, object] = {"student.width": width}
            control = student(ledger, "w", "ce", "baseline", seed, parameters=own, network=network)
            finalist = student(ledger, "w", "kd", "finalist", seed, parameters=own, network=network)
            tested[control] = {"accuracy": ce + shift / 100, "ece": 0.1}
            tested[finalist] = {"accuracy": kd + shift / 100, "ece": 0.1}
        own = {"student.width": 64, "training.lr": 0.4}
        network = {"name": "mlp", "width": 64}
        worse = student(
            ledger, "w", "ce", "baseline", seed, parameters=own, network=network, lr=0.4, accuracy=0.4
        )
        tested[worse] = {"accuracy": 0.86 + shift / 100, "ece": 0.1}
    ledger.append(StageEvent(stage="test", key="w", status="finished", seconds=1.0, result=tested))


def test_each_finalist_is_held_against_the_control_of_its_own_width(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    width_search(ledger)
    (found,) = evidence_of(ledger)
    assert [one.parameters["student.width"] for one in found.groups] == [64, 16]
    # Over the control of width 16, the other one, width 64 would gain nine points.
    assert [one.over_ce and one.over_ce.mean for one in found.groups] == pytest.approx([4.0, 1.0])
    large, small = found.by_control
    assert [one.over_ce and one.over_ce.mean for one in large.beside] == [pytest.approx(1.0)]
    assert (small.beside, found.student) == ((), {"name": "mlp"})
    page = page_of(Chapter("F.", [found]))
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ") and "`" in line]
    assert rows == [
        "| control: `ce` (student.width 64)",
        "| other recipe: `ce` (student.width 64, training.lr 0.4)",
        "| `kd` (student.width 64)",
        "| control: `ce` (student.width 16)",
        "| `kd` (student.width 16)",
    ]
    assert "The CE of a row is the nearest control above it" in page
    assert "another architecture" not in page


def test_kd_of_another_width_is_nothing_to_be_held_against(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    width_search(ledger)
    tested = {}
    for seed in SEEDS:
        network: dict[str, object] = {"name": "mlp", "width": 16}
        own: dict[str, object] = {"student.width": 16}
        dist = student(ledger, "w", "dist", "finalist", seed, parameters=own, network=network)
        tested[dist] = {"accuracy": 0.83, "ece": 0.1}
    ledger.append(StageEvent(stage="test", key="d", status="finished", seconds=1.0, result=tested))
    (found,) = evidence_of(ledger)
    over_kd = {(one.objective, one.parameters["student.width"]): one.over_kd for one in found.groups}
    assert over_kd["kd", 64] is over_kd["kd", 16] is None
    difference = over_kd["dist", 16]
    assert difference is not None
    assert difference.mean == pytest.approx(83 - 82.5)  # to KD of width 16; KD of width 64 has 90.5


def test_a_search_of_cross_entropy_is_held_against_its_best_recipe(tmp_path: Path) -> None:
    ledger, tested = Ledger(tmp_path), {}
    for seed in SEEDS:
        tested[student(ledger, "s", "ce", "baseline", seed)] = {"accuracy": 0.8, "ece": 0.1}
        for lr, selected, accuracy in ((0.2, 0.7, 0.9), (0.4, 0.6, 0.85)):
            own: dict[str, object] = {"training.lr": lr}
            trial = student(ledger, "s", "ce", "finalist", seed, parameters=own, lr=lr, accuracy=selected)
            tested[trial] = {"accuracy": accuracy, "ece": 0.1}
    ledger.append(StageEvent(stage="test", key="k", status="finished", seconds=1.0, result=tested))
    (found,) = evidence_of(ledger)
    (controlled,) = found.by_control
    assert controlled.control is controlled.finalists[0]
    assert controlled.control.parameters == {"training.lr": 0.2}
    (other,) = controlled.beside
    gains = [one.over_ce and one.over_ce.mean for one in (*controlled.finalists, other)]
    assert gains == [None, pytest.approx(-5.0), pytest.approx(-10.0)]
    assert "## 2 settings of ce\n" in page_of(Chapter("F.", [found]))


def test_where_each_objective_is_at_its_best_kd_is_too(tmp_path: Path) -> None:
    ledger, tested = Ledger(tmp_path), {}
    for lr in (0.1, 0.2):
        for name in ("ce", "kd", "dist"):
            own: dict[str, object] = {"training.lr": lr}
            student(ledger, "s", name, "search", 1, parameters=own, lr=lr)
    best = {"ce": (0.2, 0.82), "kd": (0.2, 0.86), "dist": (0.1, 0.88)}
    for place, seed in enumerate(SEEDS):
        tested[student(ledger, "s", "ce", "baseline", seed)] = {"accuracy": 0.8, "ece": 0.1}
        for name, (lr, accuracy) in best.items():
            trial = student(
                ledger, "s", name, "finalist", seed, parameters={"training.lr": lr}, lr=lr, accuracy=0.6
            )
            tested[trial] = {"accuracy": accuracy + place / 1000, "ece": 0.1}
    ledger.append(StageEvent(stage="test", key="k", status="finished", seconds=1.0, result=tested))
    (found,) = evidence_of(ledger)
    assert found.is_tuned
    difference = of(found, "dist").over_kd
    assert difference is not None  # though the two were trained at other rates
    assert difference.mean == pytest.approx(2.0)
    over_ce = of(found, "dist").over_ce
    assert over_ce is not None  # the control is the better of both recipes of cross-entropy
    assert over_ce.mean == pytest.approx(6.0)
    page = page_of(Chapter("F.", [found]))
    assert "## 3 objectives, each at the best of its share of 6 trials\n" in page


def test_chapters_of_a_page_are_found_again(ledger: Ledger) -> None:
    found = evidence_of(ledger)
    chapters = {name: Chapter(f"Experiment `{name}`: it.", found).text for name in ("a", "b_2")}
    for steps in ({}, {"kd": 1.05}):
        assert chapters_of(methods_page(chapters.values(), title="T", steps=steps)) == chapters
    assert chapters_of("# Another page\n") == {}


def test_a_page_has_a_chapter_for_each_experiment(ledger: Ledger) -> None:
    (found,) = evidence_of(ledger)
    chapters = [Chapter("The first.", [found]), Chapter("The second.", [found])]
    page = page_of(*chapters)
    assert page.index("The first.") < page.index("## 3 objectives") < page.index("The second.")
    assert page.count("each at its defaults") == 2


def test_a_control_of_another_architecture_in_an_earlier_ledger_is_told(tmp_path: Path) -> None:
    ledger, tested = Ledger(tmp_path), {}
    for seed in SEEDS:
        own: dict[str, object] = {"student.width": 64}
        network: dict[str, object] = {"name": "mlp", "width": 64}
        tested[student(ledger, "s", "ce", "baseline", seed)] = {"accuracy": 0.8, "ece": 0.1}
        trial = student(ledger, "s", "kd", "finalist", seed, parameters=own, network=network)
        tested[trial] = {"accuracy": 0.9, "ece": 0.1}
    ledger.append(StageEvent(stage="test", key="k", status="finished", seconds=1.0, result=tested))
    page = page_of(Chapter("F.", evidence_of(ledger)))
    said = "`kd` (student.width 64): its control has another architecture or number of epochs; an earlier"
    assert f"* {said} version trained one for all.\n" in page


def test_seeds_that_failed_are_told_with_their_reason(ledger: Ledger) -> None:
    for seed in SEEDS[:2]:
        student(ledger, "whole", "clkd", "finalist", seed, failure="the loss is nan in epoch 1")
    (found,) = evidence_of(ledger)
    page = page_of(Chapter("F.", [found]))
    said = "`clkd`: 2 of 4 seeds failed and have no part in this: the loss is nan in epoch 1."
    assert f"* {said}\n" in page
    assert "| `clkd`" not in page


def test_rows_with_fewer_seeds_are_named_with_their_number(ledger: Ledger) -> None:
    tested = {
        student(ledger, "whole", "clkd", "finalist", seed): {"accuracy": 0.3, "ece": 0.1}
        for seed in SEEDS[2:]
    }
    student(ledger, "whole", "clkd", "finalist", SEEDS[0], failure="the loss is nan in epoch 1")
    ledger.append(StageEvent(stage="test", key="c", status="finished", seconds=1.0, result=tested))
    page = page_of(Chapter("F.", evidence_of(ledger)))
    assert "* 4 seeds each, the same for all but `clkd` (2).\n" in page


def test_where_the_control_lost_a_seed_the_others_keep_their_number(tmp_path: Path) -> None:
    ledger, tested = Ledger(tmp_path), {}
    for seed in SEEDS:
        if seed != SEEDS[0]:
            tested[student(ledger, "s", "ce", "baseline", seed)] = {"accuracy": 0.8, "ece": 0.1}
        tested[student(ledger, "s", "kd", "finalist", seed)] = {"accuracy": 0.9, "ece": 0.1}
    ledger.append(StageEvent(stage="test", key="k", status="finished", seconds=1.0, result=tested))
    page = page_of(Chapter("F.", evidence_of(ledger)))
    assert "* 4 seeds each, the same for all but `ce` (3).\n" in page


def test_where_all_rows_have_as_many_seeds_no_row_is_named(ledger: Ledger) -> None:
    page = page_of(Chapter("F.", evidence_of(ledger)))
    assert "* 4 seeds each, the same for all.\n" in page


def test_the_facts_name_teacher_and_student(ledger: Ledger) -> None:
    loaded = load_experiment("digits")
    text = facts_of(loaded, ledger)
    assert "174,000 parameters, 90.00 % on the test split" in text
    assert "Its stages took 0 minutes in all," in text  # two seconds
    first = loaded.source.read_text(encoding="utf-8").splitlines()[0]
    assert f"```text\n{first.removeprefix('# ')}\n" in text


def test_a_ledger_without_tested_finalists_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    student(ledger, "half", "kd", "finalist", 11)
    with pytest.raises(StillhouseError, match="no search whose finalists were tested"):
        evidence_of(ledger)


def test_steps_come_from_a_file_of_benchmarks(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert read_steps(path) == {}
    path.write_text(
        json.dumps({"objective_step_over_ce.kd": {"value": 1.1}, "kd_step_over_ce": {"value": 1}})
    )
    assert read_steps(path) == {"kd": 1.1}
    path.write_text("[1]")
    with pytest.raises(StillhouseError, match="no file of benchmarks"):
        read_steps(path)


def test_costs_that_were_not_measured_again_stay_on_the_page() -> None:
    page = methods_page([], title="Objectives", steps={"kd": 1.0625, "crld": 1.93})
    assert steps_told(page) == {"kd": 1.06, "crld": 1.93}
    again = methods_page([], title="Objectives", steps={**steps_told(page), "kd": 1.5})
    assert steps_told(again) == {"kd": 1.5, "crld": 1.93}
    assert steps_told("# Objectives\n\n| `ce` | 77.03 | no cost |\n") == {}


def test_a_gain_is_told_over_cross_entropy_of_the_same_compute_too(ledger: Ledger) -> None:
    """DML of two networks: 88 % beside 81.5 % at equal epochs, and 86 % at twice the epochs."""
    tested: dict[str, dict[str, float]] = {}
    for role, objective, epochs, ratio, accuracy in (
        ("baseline", "ce", 5, 1.0, 0.82),
        ("baseline", "ce", 10, 1.0, 0.86),
        ("finalist", "dml", 5, 2.0, 0.88),
    ):
        for seed in SEEDS[:2]:
            trial = student(
                ledger,
                "peers",
                objective,
                role,
                seed,
                parameters={"training.epochs": epochs} if epochs == 10 else None,
                training={"epochs": epochs},
                told={"train/compute_over_ce": ratio},
            )
            tested[trial] = {"accuracy": accuracy + seed / 1e4, "ece": 0.1}
    ledger.append(StageEvent(stage="test", key="peers", status="finished", seconds=1.0, result=tested))
    *_, found = evidence_of(ledger)
    (controlled,) = found.by_control
    (dml,) = controlled.finalists
    assert dml.over_ce is not None
    assert dml.over_ce.mean == pytest.approx(6.0)
    assert dml.over_same_compute is not None
    assert dml.over_same_compute.mean == pytest.approx(2.0)
    (longer,) = controlled.longer
    assert (longer.epochs, longer.objective) == (10, "ce")
    page = page_of(Chapter("F.", [found]))
    assert "| same compute: `ce` (training.epochs 10) |" in page
    assert "* Over CE of the same compute, points: `dml` **+2.00 [+2.00, +2.00]**." in page
