"""A user id without a home, or without a name, is given both; whoever has them keeps them."""

from __future__ import annotations

import getpass
import os
import pwd
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.home import ensure_home
from trainables.local_files import expanded

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "somebody")
    return folder


@pytest.fixture
def _unlisted(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user id is in no list."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_whoever_has_both_keeps_both(scratch: Path) -> None:
    before = dict(os.environ)
    assert ensure_home() == ""
    assert dict(os.environ) == before
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("_unlisted")
def test_an_id_without_home_and_name_gets_a_folder_of_its_own_and_is_told(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    told = ensure_home()
    place = scratch / f"stillhouse-{os.getuid()}" / "home"
    assert told.startswith(
        f"note: user id {os.getuid()} has no home folder; {place} takes its place: set HOME"
    )
    assert Path.home() == place
    assert place.stat().st_mode & 0o077 == place.parent.stat().st_mode & 0o077 == 0
    assert getpass.getuser() == f"uid-{os.getuid()}"
    assert ensure_home() == ""


@pytest.mark.usefixtures("_unlisted")
def test_a_name_alone_is_given_silently(tmp_path: Path) -> None:
    assert ensure_home() == ""
    assert Path.home() == tmp_path
    assert getpass.getuser() == f"uid-{os.getuid()}"


@pytest.mark.parametrize("home_folder", ["/proc/self", "/no/such/folder"])
def test_a_home_that_cannot_be_written_is_replaced(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, home_folder: str
) -> None:
    monkeypatch.setenv("HOME", home_folder)
    monkeypatch.setattr("os.access", lambda *_: False)  # whoever is root may write anywhere
    assert f"the home folder {home_folder} of user id {os.getuid()} cannot be written" in ensure_home()
    assert Path.home().is_relative_to(scratch)


def test_what_lies_in_a_home_that_can_only_be_read_stays_in_use(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STILLHOUSE_HOME", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # and so taken back afterwards
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    monkeypatch.setattr("os.access", lambda _, mode: not mode & os.W_OK)
    assert "cannot be written" in ensure_home()
    assert Path.home().is_relative_to(scratch)
    assert expanded("~/data") == tmp_path / "data"
    assert (expanded("~"), expanded("~root")) == (tmp_path, Path("~root").expanduser())
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(token)


def test_where_no_folder_can_be_made_either_there_is_one_line_with_what_to_do(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/no/such/folder")
    scratch.rmdir()
    scratch.write_text("a file")
    with pytest.raises(ClusterError, match=r"cannot be made: .*; set HOME to a folder that can be written"):
        ensure_home()


def test_a_folder_of_another_user_is_not_taken(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/no/such/folder")
    (scratch / "theirs").mkdir()
    (scratch / f"stillhouse-{os.getuid()}").symlink_to(scratch / "theirs")
    with pytest.raises(ClusterError, match="belongs to another user; set HOME"):
        ensure_home()
