from __future__ import annotations

from pathlib import Path

import pytest

from tests.size_budgets import folder_violations, main, violations


def _module(folder: Path, text: str) -> Path:
    path = folder / "module.py"
    path.write_text(text)
    return path


def _function(body_lines: int, *, docstring_lines: int = 0, comment: str = "") -> str:
    docstring = '    """' + "a\n" * (docstring_lines - 1) + 'b"""\n' if docstring_lines else ""
    return f"def f() -> None:{comment}\n{docstring}" + "    x = 1\n" * body_lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n" * 299, None),
        ("x = 1\n" * 300, "module of 300 lines"),
        ("# budget: a table\n" + "x = 1\n" * 300, None),
        (_function(38), None),
        (_function(39), "f has 40 lines"),
        (_function(38, docstring_lines=30), None),
        (_function(39, docstring_lines=30), "f has 40 lines"),
        (_function(39, comment="  # budget: one table"), None),
        (_function(39, comment="  # budget:"), "f has 40 lines"),
        ("def f(a, b, c, *, d, e, g): ...\n", None),
        ("def f(a, b, c, *, d, e, g, h): ...\n", "f has 7 parameters"),
        ("class A:\n    def f(self, a, b, c, d, e, g): ...\n", None),
        ("class A:\n    async def f(self, a, b, c, d, e, g, h): ...\n", "f has 7 parameters"),
    ],
)
def test_budgets_hold_up_to_their_limit_and_no_further(
    tmp_path: Path, text: str, message: str | None
) -> None:
    found = list(violations(_module(tmp_path, text)))
    assert len(found) == (message is not None)
    assert (message or "") in "".join(found)


def test_the_exit_status_says_whether_all_is_within_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "__init__.py").write_text('"""What it is. And what it does."""\n')
    _module(tmp_path, "x = 1\n")
    assert main([str(tmp_path)]) == 0
    _module(tmp_path, _function(60))
    assert main([str(tmp_path)]) == 1
    assert "module.py:1: f has 61 lines" in capsys.readouterr().out
    assert main([str(tmp_path / "nothing")]) == 2


@pytest.mark.parametrize(
    ("n_files", "docstring", "messages"),
    [
        (20, "What it is. And what it does.", 0),
        (21, "What it is. And what it does.", 1),
        (3, "One sentence alone.", 1),
        (3, "", 1),
        (21, "One sentence alone.", 2),
    ],
)
def test_a_folder_is_small_and_introduced(
    tmp_path: Path, n_files: int, docstring: str, messages: int
) -> None:
    folder = tmp_path / "room"
    folder.mkdir()
    (folder / "__init__.py").write_text(f'"""{docstring}"""\n' if docstring else "")
    for number in range(n_files - 1):
        (folder / f"file_{number}.yaml").write_text("")
    assert len(list(folder_violations(tmp_path))) == messages
