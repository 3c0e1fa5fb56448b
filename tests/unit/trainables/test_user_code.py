"""Where a user's modules are found, and which files a factory's code is made of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import own_packages
from trainables.errors import ConfigError
from trainables.factories import call_factory, load_factory
from trainables.user_code import FOLDER_VARIABLE, OWN_PACKAGES, code_folders, look_in, sources_of

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The experiment's folder, which the command was not started from."""
    place = tmp_path / "project"
    place.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    look_in(place)
    before = set(sys.modules)
    yield place
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(folder: Path) -> Write:
    def file(name: str, text: str = "") -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return file


def names(factory: str) -> list[str]:
    sources = sources_of(factory)
    assert sources is not None
    return list(sources.files)


def test_a_module_beside_the_experiment_is_found_from_another_folder(write: Write) -> None:
    write("beside_a.py", "answer = 42")
    write("task_a.py", "def make():\n    from beside_a import answer\n    return answer")
    before = list(sys.path)
    assert call_factory("task_a:make", {}, {}) == 42
    assert sys.path == before


def test_the_folder_of_the_experiment_comes_before_the_current_one(write: Write) -> None:
    Path("task_b.py").write_text("def make(): return 'here'")
    write("task_b.py", "def make(): return 'beside'")
    assert call_factory("task_b:make", {}, {}) == "beside"


def test_another_process_is_told_the_folder(write: Write, tmp_path: Path) -> None:
    write("task_c.py", "def make(): return 'found'")
    told = "from trainables.factories import load_factory; print(load_factory('task_c:make')())"
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "found\n"


def test_where_a_node_has_the_job_elsewhere_the_way_from_its_working_folder_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in ("head", "worker"):
        (tmp_path / node / "sub").mkdir(parents=True)
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    monkeypatch.chdir(tmp_path / "head")
    look_in(Path("sub"))
    (tmp_path / "head" / "sub").rmdir()
    monkeypatch.chdir(tmp_path / "worker")
    assert code_folders() == [tmp_path / "worker" / "sub", tmp_path / "worker"]


def test_code_is_what_a_module_imports_from_beside_it_in_any_way(write: Write) -> None:
    write("pkg/__init__.py", "from .inner import layer")
    write("pkg/inner.py", "from . import deep\nfrom ..nothing import x\nimport torch")
    write("pkg/deep.py")
    write("pkg/unused.py")
    write("late.py")
    write("other.py")
    write("task.py", "import pkg, json\ndef make():\n    import late")
    assert names("task:make") == ["late", "pkg", "pkg.deep", "pkg.inner", "task"]


@pytest.mark.parametrize("edited", ["task.py", "late.py", "pkg/deep.py"])
def test_an_edit_anywhere_in_it_is_other_code_and_nothing_is_run(write: Write, edited: str) -> None:
    write("task.py", "import late\nfrom pkg.deep import x\nraise RuntimeError")
    write("late.py")
    write("pkg/deep.py")
    before = sources_of("task:make")
    path = write("unrelated.py", "x = 1").with_name(Path(edited).name).parent / edited
    assert sources_of("task:make") == before
    path.write_text(path.read_text() + "\n# another")
    after = sources_of("task:make")
    assert before is not None
    assert after is not None
    assert before.digest != after.digest


def test_of_an_installed_library_the_factorys_module_alone_counts() -> None:
    assert names("json:dumps") == ["json"]
    assert names("torch.nn:Linear") == ["torch", "torch.nn"]


def test_what_cannot_be_read_as_python_still_counts_and_what_is_not_there_does_not(write: Write) -> None:
    write("broken.py", "def make(:")
    assert names("broken:make") == ["broken"]
    assert sources_of("not_there:make") is None
    assert sources_of("math:sqrt") is None
    assert sources_of("broken.part:make") is None


def test_an_import_from_a_package_that_a_module_is_not_in_names_no_file(write: Write) -> None:
    write("helper.py")
    write(
        "top.py",
        "try:\n    from .helper import x\n    from . import helper\nexcept ImportError: import helper",
    )
    assert names("top:make") == ["helper", "top"]


@pytest.mark.parametrize("factory", ["top.:make", ".top:make", ":make"])
def test_a_name_that_no_module_can_have_is_of_no_file(write: Write, factory: str) -> None:
    write("top.py", "def make(): ...")
    assert sources_of(factory) is None
    with pytest.raises(ConfigError, match="factory"):
        load_factory(factory)


def test_code_too_deep_to_be_read_as_python_still_counts(write: Write) -> None:
    write("deep.py", f"x = {'-' * 100_000}1")
    assert names("deep:make") == ["deep"]


def test_a_file_that_cannot_be_read_is_told_in_one_line(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("closed.py")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=rf"factory 'closed:make' cannot be read: .* denied: '{file}'"):
        sources_of("closed:make")


@pytest.mark.parametrize(
    ("statement", "called"),
    [
        ("import cluster", "cluster"),
        ("from cluster.helpers import x", "cluster.helpers"),
        ("def make():\n    import cluster.helpers", "cluster.helpers"),
    ],
)
@pytest.mark.parametrize("file", ["cluster.py", "cluster/helpers.py"])
def test_an_import_of_a_file_that_has_the_name_of_our_package_is_refused_by_name(
    write: Write, statement: str, called: str, file: str
) -> None:
    write(file, "x = 1")
    write("task_d.py", statement)
    with pytest.raises(
        ConfigError, match=rf"task_d\.py imports `{called}`.*rename it, as my_cluster"
    ) as caught:
        load_factory("task_d:make")
    assert all(name in str(caught.value) for name in OWN_PACKAGES)


def test_so_is_a_factory_in_such_a_file(write: Write) -> None:
    write("trainables.py", "def make(): ...")
    with pytest.raises(
        ConfigError, match=r"factory 'trainables:make' imports `trainables`.*my_trainables\.py"
    ):
        load_factory("trainables:make")


def test_a_file_of_that_name_which_nothing_imports_disturbs_nobody(write: Write) -> None:
    write("cluster.py", "raise RuntimeError")
    write("task_e.py", "from trainables.errors import ConfigError\ndef make(): return ConfigError")
    assert call_factory("task_e:make", {}, {}) is ConfigError


def test_our_packages_have_one_list() -> None:
    assert own_packages.OWN_PACKAGES == OWN_PACKAGES


def test_the_command_line_is_ours_where_the_current_folder_has_files_of_all_other_names(
    tmp_path: Path,
) -> None:
    for name in set(OWN_PACKAGES) - {"orchestrator"}:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('theirs')")
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "objectives"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_settles_our_packages_before_a_folder_of_the_user_is_on_its_path(tmp_path: Path) -> None:
    for name in OWN_PACKAGES:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('theirs')")
    module, _, function = own_packages.SETUP_HOOK.rpartition(".")
    told = (
        f"import sys; from {module} import {function}; {function}(); sys.path.insert(0, {str(tmp_path)!r}); "
        "import cluster.errors, orchestrator.records, search_spaces, trainables.slots"
    )
    subprocess.run([sys.executable, "-c", told], check=True)
