"""MLflow's own page in a real browser: the menu lists the saved views, and the champion stands first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from orchestrator.config.tracking_uri import default_tracking_uri
from orchestrator.records.events import GroupAdded
from orchestrator.tracking.views import ranked_runs_url, view_names
from tests.browser import MISSING, chromium, open_browser
from tests.integration.recorded_scene import Scene
from tests.integration.served import free_port, mlflow_server, wait_until_it_answers
from trainables.config import Role

pytestmark = [
    pytest.mark.mlflow,
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason=MISSING),
]
PATIENCE_MS = 300_000
ROWS = ".ag-pinned-left-cols-container [role=row]"
SEEDS = ("t-2-seed0", "t-2-seed1")


def record(scene: Scene) -> str:
    """Three trials of a search, one of them broken; a finalist of two seeds; the experiment's id."""
    recorder = scene.recorder()
    for number, status in enumerate(("completed", "completed", "failed"), start=1):
        scene.start(f"t-{number}", temperature=float(number))
        scene.train(f"t-{number}", range(1, 3 + number))
        scene.end(f"t-{number}", status, "the loss is nan" if status == "failed" else None)
    for trial in SEEDS:
        scene.start(trial, "finalist", temperature=2.0)
        scene.train(trial, range(1, 3))
        scene.end(trial, "completed")
    for rank, trial in enumerate((*reversed(SEEDS), "t-2", "t-1"), start=1):
        figures = {"rank": rank, "pareto": 1 + rank % 2, "within_budget": float(rank < 4), "params": 10}
        recorder.record_figures(trial, figures, champion=rank == 1 or None)
    group = GroupAdded(
        group="t-2-seeds",
        role=Role.FINALIST,
        search="5ea4c4",
        objective="kd",
        parameters={"temperature": 2.0},
        trials=SEEDS,
        figures={"acc": 0.9, "acc_std": 0.01, "seeds": 2, "rank": 1},
        champion=True,
    )
    scene.ledger.append(group)
    assert not recorder.close("FINISHED")
    return recorder.experiment_id


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("served"), free_port()
    store = default_tracking_uri(folder)
    out: Path = folder / "out"
    out.mkdir()
    experiment = record(Scene(store, out))
    with mlflow_server(folder, store, port):
        wait_until_it_answers(port)
        yield ranked_runs_url(f"http://127.0.0.1:{port}", experiment)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1600, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def names(page: Page) -> list[str]:
    """Of the runs that the table has, from above."""
    rows = page.locator(ROWS)
    rows.first.wait_for()
    by_place = sorted(rows.all(), key=lambda row: int(row.get_attribute("row-index") or 0))
    return [row.get_by_role("link").first.inner_text() for row in by_place]


def test_the_link_opens_the_best_students_with_the_champion_first(link: str, page: Page) -> None:
    page.goto(link)
    page.get_by_text("★ t-2-seed1").wait_for()
    assert names(page) == ["★ t-2-seed1", "t-2-seed0", "0002 kd", "0001 kd"]


def test_the_menu_lists_all_views_by_name(link: str, page: Page) -> None:
    page.goto(link)
    page.get_by_test_id("saved-views-trigger").click()
    for name in view_names():
        page.get_by_role("menu").get_by_text(name, exact=True).wait_for()


@pytest.mark.parametrize(
    ("view", "runs"),
    [
        ("Pareto", ["0001 kd", "t-2-seed0"]),
        ("Within budget", ["★ t-2-seed1", "t-2-seed0", "0002 kd"]),
        ("Finalists (mean and spread)", ["★ t-2-seeds"]),
        ("Failed and why", ["0003 kd"]),
    ],
)
def test_a_view_of_the_menu_shows_its_students_alone(
    link: str, page: Page, view: str, runs: list[str]
) -> None:
    page.goto(link)
    page.get_by_test_id("saved-views-trigger").click()
    page.get_by_role("menu").get_by_text(view, exact=True).click()
    page.wait_for_function(f"document.querySelectorAll({ROWS!r}).length == {len(runs)}")
    assert names(page) == runs
