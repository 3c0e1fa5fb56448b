"""Debian's Chromium without a window, driven by Playwright, for tests and benchmarks of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright

NAMES: Final = ("chromium", "chromium-browser")
MISSING: Final = "Chromium is not installed: apt-get install chromium"


def chromium() -> str | None:
    """The program; none where it is not installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser, ended at the end.

    Raises:
        RuntimeError: it is not installed.
    """
    program = chromium()
    if program is None:
        raise RuntimeError(MISSING)
    with sync_playwright() as driver:
        # Its sandbox refuses to start for root, as tests in a container are run.
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, file: Path, *, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """A file as a page without a network, on a screen of this width and `light` or `dark`."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        offline=True,
    )
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(file.absolute().as_uri(), wait_until="load")
    try:
        yield page
        if problems:
            raise AssertionError(f"the console of {file.name} says: {'; '.join(problems)}")
    finally:
        context.close()
