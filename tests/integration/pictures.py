"""Pictures of what people see: MLflow's page, the report, and commands in a terminal."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

COLUMNS = 118
WIDE = {"width": 1600, "height": 720}
REDRAWN = re.compile(r"[^\n]*\r\x1b\[2K")
"""What a bar of progress replaces."""
PATIENCE_MS = 300_000
LINK = re.compile(r"http://127\.0\.0\.1:\S+")
ROWS = ".ag-pinned-left-cols-container [role=row]"
TERMINAL = """<!DOCTYPE html><html><head><meta charset="UTF-8"><style>{stylesheet} body {{ margin: 0 }}
pre {{ display: inline-block; min-width: 640px; margin: 0; padding: 16px 20px; background: #fafafa;
font: 13px/1.35 "DejaVu Sans Mono", "Liberation Mono", monospace; color: #1a1a1a }}</style></head>
<body><pre>{code}</pre></body></html>"""


def stillhouse(words: Sequence[str], folder: Path) -> str:
    """What a command says on a terminal, with its colours; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=folder,
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def picture_of_terminal(browser: Browser, words: Sequence[str], said: str, file: Path) -> None:
    """A command and what it said, as a terminal shows them."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    console.print(Text(f"$ stillhouse {shlex.join(words)}", style="bold"))
    console.print(Text.from_ansi(REDRAWN.sub("", said).rstrip()))
    page = browser.new_page(viewport={"width": 1800, "height": 300})
    page.set_content(console.export_html(theme=DEFAULT_TERMINAL_THEME, code_format=TERMINAL))
    page.locator("pre").screenshot(path=file)
    page.close()


def picture_of_report(browser: Browser, report: Path, file: Path) -> None:
    """The head of the page: why this champion, the table, and the first chart."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(report.absolute().as_uri(), wait_until="load")
    page.screenshot(path=file)
    page.close()


def picture_of_mlflow(browser: Browser, link: str, file: Path) -> list[str]:
    """MLflow's page as `stillhouse ui` opens it; the runs that its table has, from above."""
    page = browser.new_page(viewport=WIDE)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE_MS)
    page.goto(link)
    page.locator(ROWS).get_by_text("★").first.wait_for()
    if (assistant := page.get_by_role("button", name="Close")).count() == 1:
        assistant.click()  # MLflow's own, which takes a quarter of the page when it is new
    by_place = sorted(page.locator(ROWS).all(), key=lambda row: int(row.get_attribute("row-index") or 0))
    names = [row.get_by_role("link").first.inner_text() for row in by_place]
    page.screenshot(path=file)
    page.close()
    return names


@contextmanager
def served_ui(words: Sequence[str], folder: Path) -> Iterator[str]:
    """`stillhouse ui` as people start it: the link that it prints."""
    server = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "ui", *words, "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    said: list[str] = []
    assert server.stdout is not None
    try:
        for line in server.stdout:
            said.append(line)
            if found := LINK.search(line):
                threading.Thread(target=server.stdout.read, daemon=True).start()  # else it waits for a reader
                yield found.group()
                break
        else:
            raise AssertionError(f"no link: {''.join(said)}")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
