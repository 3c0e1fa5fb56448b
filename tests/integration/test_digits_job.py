"""The shipped experiment as a job on a real head node, by Ray's command line; a newcomer's path then."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser
from sklearn.datasets import load_digits

from orchestrator.records.kept_answers import answers_file
from tests.browser import MISSING, chromium, open_browser
from tests.integration.head_node import HeadNode, ray_command
from tests.integration.pictures import (
    picture_of_mlflow,
    picture_of_report,
    picture_of_terminal,
    served_ui,
    stillhouse,
)
from trainables.evaluation.answers_file import read_answers

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("orchestrator", "trainables", "search_spaces", "cluster")


BUDGET = ("--trials", "6", "--finalists", "1")


@pytest.fixture(scope="module")
def results(head_node: HeadNode, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a small budget of the demo left what it found as a Ray job."""
    folder = tmp_path_factory.mktemp("job")
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, folder / package)
    out = folder / "results"
    options = [*BUDGET, "--out", str(out)]
    job = [*ray_command(), "job", "submit", "--working-dir", ".", "--"]
    ended = head_node.run(
        [*job, "python", "-m", "orchestrator", "run", "digits", *options], cwd=folder, timeout_s=1200
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert head_node.token not in ended.stdout + ended.stderr
    return out


@pytest.fixture(scope="module")
def summary(results: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((results / "summary.json").read_text())
    return document


def test_the_job_finds_a_champion(summary: dict[str, Any]) -> None:
    assert len(summary["trials"]) == 6
    assert summary["champion"]["trial_id"]


def test_the_demos_teacher_is_good_enough_to_learn_from(summary: dict[str, Any]) -> None:
    assert summary["teacher"]["selection_accuracy"] >= 0.98


def test_the_demos_champion_is_above_the_control_which_has_room(summary: dict[str, Any]) -> None:
    champion = summary["champion"]["trial_id"]
    (own,) = (one["control"] for one in summary["finalists"] if champion in one["trials"])
    control = own["selection_mean"]
    assert 0.90 <= control <= 0.98
    assert summary["champion"]["selection_accuracy"] > control


def test_the_report_has_single_answers_of_champion_control_and_teacher(
    results: Path, summary: dict[str, Any]
) -> None:
    page = (results / "report.html").read_text(encoding="utf-8")
    found = read_answers(answers_file(results, summary["champion"]["trial_id"]))
    assert found.teacher is not None
    for who, network in (("champion", found.student), ("teacher", found.teacher)):
        assert f"{who}, ece {network.figures['ece']:.4f}" in page
    assert page.count("<img ") == len(found.shown_K) > 0
    assert "Accuracy by class" in page


@pytest.fixture(scope="module")
def demo(request: pytest.FixtureRequest) -> tuple[Path, tuple[str, ...]]:
    """The output folder of the demo, and its options: what `make pictures` names, else the job's."""
    if named := os.environ.get("STILLHOUSE_DEMO"):
        return Path(named).absolute(), ()
    return request.getfixturevalue("results"), BUDGET[:2]


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: into the folder that `make pictures` names, else away."""
    folder = Path(os.environ.get("STILLHOUSE_PICTURES") or tmp_path_factory.mktemp("pictures")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip(MISSING)
    with open_browser() as opened:
        yield opened


def drawn(folder: Path) -> list[int]:
    """Three digits as image files, in the manner of a newcomer; their classes."""
    images, labels = load_digits(return_X_y=True)
    folder.mkdir()
    for number in range(3):
        grey = (images[number].reshape(8, 8) * 255 / 16).astype("uint8")
        Image.fromarray(grey).save(folder / f"digit-{number}.png")
    return [int(label) for label in labels[:3]]


@pytest.mark.browser
def test_a_newcomer_sees_the_champion_first_in_mlflow(
    demo: tuple[Path, tuple[str, ...]], browser: Browser, album: Path
) -> None:
    out, _ = demo
    champion = json.loads((out / "summary.json").read_text())["champion"]["trial_id"]
    with served_ui(["digits", "--out", str(out)], out) as link:
        first, *others = picture_of_mlflow(browser, link, album / "mlflow.png")
    assert first == f"★ {champion}"
    assert others


@pytest.mark.browser
def test_a_newcomer_reads_the_report_and_picks_and_predicts(
    demo: tuple[Path, tuple[str, ...]], browser: Browser, album: Path, tmp_path: Path
) -> None:
    out, options = demo
    picture_of_report(browser, out / "report.html", album / "report.png")
    classes = drawn(tmp_path / "photos")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "digits").symlink_to(out)
    for name, words, says in (
        (
            "pick",
            ["pick", "digits", "--where", "params <= 20000 and accuracy >= 80 %", *options],
            "champion: finalist",
        ),
        ("predict", ["predict", "out/digits", "photos", "--top", "2"], "digit-2.png"),
    ):
        said = stillhouse(words, tmp_path)
        assert says in said
        picture_of_terminal(browser, words, said, album / f"{name}.png")
    told = json.loads(stillhouse(["predict", "out/digits", "photos", "--json"], tmp_path))
    answers = [int(image["top"][0]["class"]) for image in told["images"]]
    assert sum(a == b for a, b in zip(answers, classes, strict=True)) >= 2


def test_the_readme_shows_pictures_that_are_there() -> None:
    shown = re.findall(r"!\[[^]]+\]\((docs/pictures/[^)]+)\)", (REPOSITORY / "README.md").read_text())
    assert {Path(picture).stem for picture in shown} == {"mlflow", "report", "pick", "predict"}
    for picture in shown:
        with Image.open(REPOSITORY / picture) as image:
            assert image.width > 600
        assert (REPOSITORY / picture).stat().st_size < 300_000
