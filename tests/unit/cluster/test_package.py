from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from cluster import package
from cluster.errors import ClusterError
from cluster.package import pack, sources
from cluster.submit import submit_job


def _write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def _packed(folder: Path) -> list[str]:
    return [source.path.as_posix() for source in sources(folder)]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    _write(folder, "a.py", "env/tracked.py", "gone.py")
    git = ["git", "-C", str(folder)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    (folder / "gone.py").unlink()
    (folder / ".gitignore").write_text("secret.txt\n")
    return folder


def test_a_repository_gives_what_it_tracks_and_what_is_new(repository: Path) -> None:
    _write(repository, "new.yaml", "secret.txt", "out/weights.bin", ".venv/x.py", "pkg/__pycache__/x.pyc")
    assert _packed(repository) == [".gitignore", "a.py", "env/tracked.py", "new.yaml"]


def test_a_plain_folder_gives_all_but_results_and_caches(tmp_path: Path) -> None:
    _write(tmp_path, "run.py", "conf/my.yaml", "out/x", "mlruns/1/y", ".venv/lib/z.py", "my.egg-info/PKG")
    assert _packed(tmp_path) == ["conf/my.yaml", "run.py"]


def test_a_folder_that_a_repository_ignores_can_be_packed(repository: Path) -> None:
    (repository / ".gitignore").write_text("scratch/\n")
    _write(repository, "scratch/run.py")
    assert _packed(repository / "scratch") == ["run.py"]


def test_the_same_sources_give_the_same_archive(repository: Path, tmp_path: Path) -> None:
    pack(repository, tmp_path / "one.zip")
    (repository / "a.py").touch()
    pack(repository, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_the_archive_holds_contents_and_rights(tmp_path: Path) -> None:
    _write(tmp_path / "src", "run.sh")
    (tmp_path / "src" / "run.sh").chmod(0o755)
    size = pack(tmp_path / "src", tmp_path / "x.zip")
    assert size == (tmp_path / "x.zip").stat().st_size
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.read("run.sh") == b"run.sh"
        assert archive.getinfo("run.sh").external_attr >> 16 == 0o755


@pytest.mark.parametrize("raw_limit", [10, 10**9])
def test_too_much_is_refused_with_the_ten_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw_limit: int
) -> None:
    for index in range(12):
        (tmp_path / f"f{index:02}.py").write_bytes(b"x" * (index + 1))
    monkeypatch.setattr(package, "UPLOAD_LIMIT_BYTES", 20)
    monkeypatch.setattr(package, "_RAW_LIMIT_BYTES", raw_limit)
    with pytest.raises(ClusterError, match=r"12 files; a cluster takes .* The largest:") as caught:
        pack(tmp_path, tmp_path / "out.zip")
    named = [line.split()[-1] for line in str(caught.value).splitlines()[1:]]
    assert named == [f"f{index:02}.py" for index in range(11, 1, -1)]


def test_a_folder_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="holds no sources"):
        sources(tmp_path)
    with pytest.raises(ClusterError, match="is no folder"):
        sources(tmp_path / "missing")


def test_the_token_does_not_travel_with_a_job() -> None:
    with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN must not travel"):
        submit_job(["true"], address="http://127.0.0.1:1", env={"RAY_AUTH_TOKEN": "secret"})


def test_an_address_without_http_is_refused() -> None:
    with pytest.raises(ClusterError, match="write it as http://host:8265"):
        submit_job(["true"], address="127.0.0.1:6379")


def test_a_job_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "a.py")
    with pytest.raises(ClusterError, match=r"no job server answers at http://127\.0\.0\.1:1"):
        submit_job(["true"], address="http://127.0.0.1:1", working_dir=tmp_path)


def _committed(folder: Path) -> None:
    git = ["git", "-C", str(folder), "-c", "user.email=a@example.org", "-c", "user.name=a"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *command], check=True)


@pytest.mark.parametrize("tracked", [True, False])
def test_a_folder_behind_a_link_is_sent_under_the_name_of_the_link(tmp_path: Path, tracked: bool) -> None:
    _write(tmp_path, "project/a.py", "shared/pkg/__init__.py", "shared/pkg/__pycache__/x.pyc", "shared/b.py")
    project = tmp_path / "project"
    (project / "pkg").symlink_to("../shared/pkg")
    (project / "b.py").symlink_to("../shared/b.py")
    if tracked:
        _committed(project)
    assert _packed(project) == ["a.py", "b.py", "pkg/__init__.py"]
    pack(project, tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.read("pkg/__init__.py") == b"shared/pkg/__init__.py"


def test_of_a_repository_behind_a_link_what_it_ignores_stays(tmp_path: Path) -> None:
    _write(tmp_path, "project/a.py", "shared/b.py", "shared/weights.bin")
    (tmp_path / "shared" / ".gitignore").write_text("*.bin\n")
    _committed(tmp_path / "shared")
    (tmp_path / "project" / "shared").symlink_to("../shared")
    assert _packed(tmp_path / "project") == ["a.py", "shared/.gitignore", "shared/b.py"]


@pytest.mark.parametrize("target", [".", "..", "inner"])
def test_a_link_that_leads_back_ends_there(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "project"
    _write(folder, "a.py", "inner/b.py")
    (folder / "inner" / "back").symlink_to(folder / target)
    packed = _packed(folder)
    assert {"a.py", "inner/b.py"} <= set(packed)
    assert len(packed) < 10


@pytest.mark.parametrize("as_submodule", [True, False])
def test_a_submodule_and_a_repository_within_are_sent_with_their_files(
    tmp_path: Path, as_submodule: bool
) -> None:
    _write(tmp_path, "project/a.py", "other/__init__.py", "other/deep/c.py")
    _committed(tmp_path / "other")
    project = tmp_path / "project"
    git = ["git", "-C", str(project), "-c", "protocol.file.allow=always"]
    subprocess.run([*git, "init", "-q"], check=True)
    if as_submodule:
        command = ["submodule", "--quiet", "add", str(tmp_path / "other"), "sub"]
    else:
        command = ["clone", "-q", str(tmp_path / "other"), str(project / "sub")]
    subprocess.run([*git, *command], check=True, capture_output=True)
    own = [".gitmodules"] if as_submodule else []
    assert _packed(project) == [*own, "a.py", "sub/__init__.py", "sub/deep/c.py"]


def test_a_submodule_that_is_not_checked_out_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "project/a.py", "other/__init__.py")
    _committed(tmp_path / "other")
    project = tmp_path / "project"
    git = ["git", "-C", str(project), "-c", "protocol.file.allow=always"]
    subprocess.run([*git, "init", "-q"], check=True)
    add = ["submodule", "--quiet", "add", str(tmp_path / "other"), "sub"]
    subprocess.run([*git, *add], check=True, capture_output=True)
    for file in [*(project / "sub").iterdir()]:
        file.unlink()
    with pytest.raises(
        ClusterError, match=r"submodule .*/sub is not checked out.*git submodule update --init"
    ):
        sources(project)


def test_a_link_to_more_than_a_cluster_takes_is_refused_before_all_of_it_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, "project/a.py", *(f"images/{index}.png" for index in range(9)))
    (tmp_path / "project" / "data").symlink_to("../images")
    monkeypatch.setattr(package, "_MOST_FILES", 3)
    with pytest.raises(
        ClusterError, match=r"4 files; .*and links to them, in .gitignore.*\n(.*\n)*.* data/0\.png"
    ):
        sources(tmp_path / "project")


def test_links_that_fork_on_each_level_come_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in range(24):
        (tmp_path / str(level)).mkdir()
        for name in "ab":
            (tmp_path / str(level) / name).symlink_to(f"../{level + 1}")
    _write(tmp_path, "24/a.py")
    monkeypatch.setattr(package, "_MOST_FOLDERS", 30)
    with pytest.raises(ClusterError, match=r"links lead to over 30 folders, as .*name them in \.gitignore"):
        sources(tmp_path / "0")
