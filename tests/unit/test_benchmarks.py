from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import main, run
from tests.benchmarks.docs import BEGIN, END, PAGE, table, with_table
from tests.benchmarks.figures import Bound, Figure, read_figures
from tests.benchmarks.registry import BENCHMARKS

ROOT = Path(__file__).parents[2]


def _figure(value: float, bound: Bound | None = None) -> Figure:
    return Figure(value, "x", "counted by hand", bound)


@pytest.mark.parametrize("path", BENCHMARKS.values())
def test_every_benchmark_of_the_table_is_a_function_that_gives_a_figure(path: str) -> None:
    module, _, function = path.split()[0].partition(":")
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    defined = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == function]
    assert [ast.unparse(node.returns) for node in defined if node.returns] == ["Figure"]


@pytest.mark.parametrize(
    ("value", "bound", "ok"),
    [
        (20.0, Bound(20, at_least=True), True),
        (19.9, Bound(20, at_least=True), False),
        (1.1, Bound(1.1), True),
        (1.11, Bound(1.1), False),
        (math.nan, Bound(1.1), False),
        (99.0, None, True),
    ],
)
def test_a_figure_is_ok_up_to_its_bound_and_without_one(value: float, bound: Bound | None, ok: bool) -> None:
    assert _figure(value, bound).ok is ok


def test_all_benchmarks_replace_the_file_and_print_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "bench.json"
    path.parent.mkdir()
    path.write_text('{"gone": {"value": 1}}')

    assert run(None, path, measure=lambda _: _figure(30.5, Bound(20, at_least=True))) == 0

    entry = {"value": 30.5, "unit": "x", "bound": 20, "ok": True, "how": "counted by hand"}
    assert json.loads(path.read_text()) == dict.fromkeys(BENCHMARKS, entry)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [[name, "30.500", "x", ">=", "20", "ok"] for name in BENCHMARKS]


def test_one_benchmark_keeps_the_other_entries_and_a_broken_bound_is_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    run(None, path, measure=lambda _: _figure(1.0))

    assert run("kd_step_over_ce", path, measure=lambda _: _figure(1.2, Bound(1.1))) == 1

    entries = read_figures(path)
    assert list(entries) == list(BENCHMARKS)
    assert {name for name, entry in entries.items() if not entry["ok"]} == {"kd_step_over_ce"}
    assert entries["online_step_over_ce"]["bound"] is None
    assert "BROKEN" in capsys.readouterr().out.splitlines()[-1]


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["kd_step"])
    assert "kd_step_over_ce" in capsys.readouterr().err


def test_the_page_shows_each_figure_with_its_bound_and_keeps_the_text_around() -> None:
    figures = {
        "fast": _figure(30.5, Bound(20, at_least=True)),
        "slow": _figure(1.2, Bound(1.1)),
        "free": _figure(4.0),
    }
    written = table({name: figure.plain() for name, figure in figures.items()})

    assert "| `fast` | 30.5 x | ≥ 20 | yes |" in written
    assert "| `slow` | 1.2 x | ≤ 1.1 | **no** |" in written
    assert "| `free` | 4 x | none |  |" in written
    assert "* `free`: counted by hand." in written
    page = with_table(f"before {BEGIN} old {END} after", written)
    assert page.startswith("before ")
    assert page.endswith(" after")
    assert "old" not in page
    assert with_table(page, written) == page


def test_figures_measured_now_take_the_place_of_theirs_and_the_others_stay() -> None:
    first, second, gone = "trial_overhead_ratio", "first_report_seconds", "of an earlier version"
    before = table({name: _figure(2.0, Bound(3)).plain() for name in (gone, first, second)})
    assert gone in before
    after = table({first: _figure(4.0, Bound(3)).plain()}, before)
    assert [line for line in after.splitlines() if line.startswith("| `")] == [
        f"| `{first}` | 4 x | ≤ 3 | **no** |",
        f"| `{second}` | 2 x | ≤ 3 | yes |",
    ]
    assert after.count("counted by hand") == 2
    assert gone not in after


def test_the_page_has_the_marks_and_one_without_them_is_refused() -> None:
    with_table((ROOT / PAGE).read_text(encoding="utf-8"), "")
    with pytest.raises(ValueError, match="lacks the marks"):
        with_table("a page", "")
