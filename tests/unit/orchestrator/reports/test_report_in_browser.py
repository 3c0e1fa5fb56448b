"""The report in headless Chromium: on wide and narrow screens, light and dark, by keyboard, for axe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from orchestrator.reports.html_report import report_html
from tests.browser import MISSING, chromium, open_browser, opened
from tests.synthetic_answers import SyntheticAnswers
from tests.synthetic_run import SyntheticRun
from trainables.evaluation.disagreement import MOST_SHOWN

pytestmark = [pytest.mark.browser, pytest.mark.skipif(chromium() is None, reason=MISSING)]

WIDTHS = (1280, 390)
LEAST_TEXT_PX = 8.5
# Of every text that is shown in a chart, the size at which it is shown.
TEXT_SIZES = """() => [...document.querySelectorAll('.chart svg text')]
    .filter(text => text.getClientRects().length)
    .map(text => parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a)"""
SHOWN = """() => [...document.querySelectorAll('.chart')].map(chart => [chart.id,
    [...chart.querySelectorAll('.panels svg, .single svg')].map(svg => svg.getBoundingClientRect())
        .filter(box => box.width > 0).map(box => [box.left, box.right, box.height])])"""
# Of every image its own width, alternative text, and where it and its words are.
PICTURES = """() => [...document.querySelectorAll('.pictures li')].map(item => {
    const image = item.querySelector('img'), box = image.getBoundingClientRect();
    const words = item.querySelector('div').getBoundingClientRect();
    return [image.naturalWidth, image.alt, box.left, box.right, words.left, words.right] })"""
# Colours of what is drawn, as the browser computes them from the page's variables.
BRIGHTNESS = """(colour) => { const [r, g, b] = colour.match(/[0-9.]+/g).map(Number);
    return (0.299 * r + 0.587 * g + 0.114 * b) / 255 }"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a finished run, and that of one that goes on."""
    folder = tmp_path_factory.mktemp("pages")
    files = {}
    for name, is_over in (("finished", True), ("going_on", False)):
        run = SyntheticRun(trials=60, epochs=4, seeds=2, is_over=is_over, answers=SyntheticAnswers())
        files[name] = folder / f"{name}.html"
        files[name].write_text(report_html(run.facts(folder / name)), encoding="utf-8")
    return files


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["finished", "going_on"])
def test_all_charts_are_shown_and_none_makes_the_page_scroll_sideways(
    browser: Browser, pages: dict[str, Path], name: str, width: int, tmp_path: Path
) -> None:
    with opened(browser, pages[name], width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        shown = dict(page.evaluate(SHOWN))
        charts = ["curves", "search", "importance", "slices", "kept", "timeline"]
        if name == "finished":
            charts = ["cost", "front", "curves", "reliability", "classes", *charts[1:]]
        assert [*shown] == [f"chart-{chart}" for chart in charts]
        for boxes in shown.values():
            assert boxes
            assert all(left >= 0 and right <= width and height > 40 for left, right, height in boxes)
        picture = tmp_path / f"{name}-{width}.png"
        page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 50_000  # an empty page takes 10 kB


@pytest.mark.parametrize("width", WIDTHS)
def test_every_text_in_a_chart_is_large_enough_to_read(
    browser: Browser, pages: dict[str, Path], width: int
) -> None:
    with opened(browser, pages["finished"], width=width) as page:
        sizes = page.evaluate(TEXT_SIZES)
        assert len(sizes) > 50
        assert min(sizes) >= LEAST_TEXT_PX


@pytest.mark.parametrize("width", WIDTHS)
def test_images_of_disagreements_are_whole_and_beside_their_words(
    browser: Browser, pages: dict[str, Path], width: int
) -> None:
    with opened(browser, pages["finished"], width=width) as page:
        shown = page.evaluate(PICTURES)
        assert len(shown) == MOST_SHOWN
        for pixels, alt, left, right, words_left, words_right in shown:
            assert pixels == SyntheticAnswers().side
            assert alt.startswith("Test image ")
            assert 0 <= left < right <= words_left < words_right <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["finished", "going_on"])
def test_axe_finds_no_serious_fault(browser: Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    for width in WIDTHS:
        with opened(browser, pages[name], width=width, scheme=scheme) as page:
            found = Axe().run(page).response["violations"]
            serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
            assert not [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in serious]


def test_a_dark_screen_has_light_lines_on_a_dark_page(browser: Browser, pages: dict[str, Path]) -> None:
    def brightness(page: Page, element: str, property_name: str) -> float:
        colour = page.eval_on_selector(element, f"e => getComputedStyle(e).{property_name}")
        return float(page.evaluate(BRIGHTNESS, colour))

    for scheme, is_dark in (("light", False), ("dark", True)):
        with opened(browser, pages["finished"], scheme=scheme) as page:
            assert (brightness(page, "section", "backgroundColor") < 0.5) is is_dark
            assert (brightness(page, "#chart-curves .wide text", "fill") > 0.5) is is_dark


def test_print_is_light_on_a_dark_screen_too(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["finished"], scheme="dark") as page:
        page.emulate_media(media="print")
        colour = page.eval_on_selector("section", "e => getComputedStyle(e).backgroundColor")
        assert page.evaluate(BRIGHTNESS, colour) > 0.9


def test_tables_below_charts_open_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    with opened(browser, pages["finished"]) as page:
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.tagName") == "SUMMARY":
                break
        page.keyboard.press("Enter")
        table = page.locator("details[open] table")
        assert table.count() == 1
        assert table.first.is_visible()


def test_a_page_with_a_script_in_it_would_not_run_it(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    changed = tmp_path / "changed.html"
    text = pages["going_on"].read_text(encoding="utf-8")
    changed.write_text(text.replace("</main>", "<script>document.title = 'ran'</script></main>"))
    with (
        pytest.raises(AssertionError, match="Content Security Policy"),
        opened(browser, changed) as page,
    ):
        assert page.title() == "synthetic: report"
