"""The way to a user's own code: what is found, and what a wrong name says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainables.errors import ConfigError
from trainables.factories import call_factory, load_factory

WriteModule = Callable[[str, str], str]


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Writes a module into the current directory, which is not on sys.path, and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in {"", str(tmp_path)}])
    before = set(sys.modules)

    def write(name: str, text: str) -> str:
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_function_of_an_installed_module_is_found() -> None:
    assert load_factory("json:dumps")([1]) == "[1]"


def test_a_module_in_the_current_directory_is_found_and_sys_path_is_left_as_it_was(
    write_module: WriteModule,
) -> None:
    write_module("beside_it", "answer = 42")
    write_module("user_module_a", "import beside_it\ndef make():\n    return beside_it.answer")
    before = list(sys.path)
    assert load_factory("user_module_a:make")() == 42
    assert sys.path == before


def test_sys_path_is_left_as_it_was_when_the_import_fails(write_module: WriteModule) -> None:
    write_module("user_module_b", "raise RuntimeError('mine')")
    before = list(sys.path)
    with pytest.raises(ConfigError, match="RuntimeError: mine"):
        load_factory("user_module_b:make")
    assert sys.path == before


def test_an_unknown_module_names_near_ones(write_module: WriteModule) -> None:
    write_module("flowers_data", "def make(): ...")
    with pytest.raises(ConfigError, match=r"no module named 'flower_data'.*near: flowers_data"):
        load_factory("flower_data:make")


def test_an_unknown_module_of_a_package_names_near_ones(write_module: WriteModule) -> None:
    write_module("user_package.__init__", "")
    write_module("user_package.flowers", "def make(): ...")
    with pytest.raises(ConfigError, match=r"'user_package.flower'.*near: user_package.flowers"):
        load_factory("user_package.flower:make")


def test_an_unknown_function_names_the_file_and_near_ones(write_module: WriteModule) -> None:
    write_module("user_module_c", "def make_images(): ...")
    with pytest.raises(
        ConfigError, match=r"user_module_c\.py\) has no function 'make_image'; near: make_images"
    ):
        load_factory("user_module_c:make_image")


def test_what_is_not_callable_is_refused(write_module: WriteModule) -> None:
    write_module("user_module_d", "make = 3")
    with pytest.raises(ConfigError, match="is a int, not a function"):
        load_factory("user_module_d:make")


def test_a_missing_import_of_the_module_is_told_from_a_missing_module(write_module: WriteModule) -> None:
    write_module("user_module_e", "import not_installed_anywhere")
    with pytest.raises(ConfigError, match=r"imports 'not_installed_anywhere', which is not installed"):
        load_factory("user_module_e:make")


def test_a_wrong_import_from_an_installed_module_is_told(write_module: WriteModule) -> None:
    write_module("user_module_f", "from json import no_such_name")
    with pytest.raises(ConfigError, match=r"'user_module_f' cannot be imported.*no_such_name"):
        load_factory("user_module_f:make")


def test_a_syntax_error_names_file_and_line(write_module: WriteModule) -> None:
    write_module("user_module_g", "x = 1\ndef make(:\n")
    with pytest.raises(ConfigError, match=r"syntax error in .*user_module_g\.py, line 2"):
        load_factory("user_module_g:make")


@pytest.mark.parametrize("path", ["", "module", ":function", "module:"])
def test_a_path_of_another_form_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match='not of the form "module:function"'):
        load_factory(path)


def test_a_call_passes_both_kinds_of_keywords(write_module: WriteModule) -> None:
    write_module("user_module_h", "def make(split, side=1):\n    return split, side")
    assert call_factory("user_module_h:make", {"split": "train"}, {"side": 7}) == ("train", 7)


def test_a_keyword_that_the_function_does_not_take_is_named_with_the_signature(
    write_module: WriteModule,
) -> None:
    write_module("user_module_i", "def make(split): ...")
    with pytest.raises(ConfigError, match=r"signature \(split\).*unexpected keyword argument 'side'"):
        call_factory("user_module_i:make", {"split": "train"}, {"side": 7})


def test_arguments_may_not_hold_what_stillhouse_passes(write_module: WriteModule) -> None:
    write_module("user_module_j", "def make(split): ...")
    with pytest.raises(ConfigError, match="`arguments` may not hold split"):
        call_factory("user_module_j:make", {"split": "train"}, {"split": "test"})


def test_what_the_function_raises_is_one_line_with_its_place(write_module: WriteModule) -> None:
    write_module("user_module_k", "def make(split):\n    return len(split, split)")
    with pytest.raises(
        ConfigError,
        match=r"'user_module_k:make' raised TypeError: len.* \(user_module_k\.py, line 2\); mend it",
    ) as caught:
        call_factory("user_module_k:make", {"split": "train"}, {})
    assert isinstance(caught.value.__cause__, TypeError)


def test_what_a_module_raises_is_one_line_with_its_place(write_module: WriteModule) -> None:
    write_module("user_module_l", "raise RuntimeError('no\\nlicence')")
    with pytest.raises(
        ConfigError, match=r"raised RuntimeError: no licence \(user_module_l\.py, line 1\) when"
    ):
        load_factory("user_module_l:make")


def test_code_that_ends_the_process_is_told_like_any_other_error(write_module: WriteModule) -> None:
    write_module("user_module_end", "import sys\nsys.exit('no GPU here')")
    with pytest.raises(ConfigError, match=r"raised SystemExit: no GPU here \(user_module_end.py, line 2\)"):
        load_factory("user_module_end:make")
    write_module("user_module_leave", "def make(): raise SystemExit(0)")
    with pytest.raises(ConfigError, match=r"raised SystemExit: 0 \(user_module_leave.py, line 1\)"):
        call_factory("user_module_leave:make", {}, {})
