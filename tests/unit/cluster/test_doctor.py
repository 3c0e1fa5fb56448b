from __future__ import annotations

from pathlib import Path

import pytest

from cluster import doctor
from cluster.doctor import Check, checks, different_versions


def _check(name: str, **options: str) -> Check:
    return next(check for check in checks(**options) if check.name == name)


def test_versions_of_all_that_nodes_must_share_are_told(tmp_path: Path) -> None:
    detail = _check("versions", output=str(tmp_path)).detail
    assert all(f"{name} " in detail for name in ("python", *doctor.PACKAGES))


def test_differences_between_nodes_are_named() -> None:
    here = {"ray": "2.60.0", "torch": "2.13.0"}
    assert different_versions(here, here) == ""
    assert different_versions(here, {"ray": "2.59.0", "torch": "2.13.0"}) == "ray 2.59.0 (here 2.60.0)"


def test_a_little_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GiB free" in _check("disk", output=str(tmp_path)).detail
    monkeypatch.setattr(doctor, "free_bytes", lambda _: 1024)
    found = _check("disk", output=str(tmp_path))
    assert not found.ok
    assert "free some" in found.next_step


@pytest.mark.parametrize("how", ["RAY_AUTH_MODE", "file"])
def test_a_token_that_others_can_read_is_to_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    path = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    if how == "file":
        path.write_text("very-secret")
        path.chmod(0o644)
        assert _check("token file", output=str(tmp_path)).next_step == f"chmod 600 {path}"
    else:  # no token yet: who makes one is told to close it
        assert "chmod 600 ~/.ray/auth_token" in _check("authentication", output=str(tmp_path)).next_step


def test_where_a_cluster_listens_is_told() -> None:
    assert doctor.listening(["127.0.0.1"]).detail == "Ray listens on the loopback interface only"
    found = doctor.listening(["127.0.0.1", "10.0.0.7"])
    assert "all interfaces of 10.0.0.7: a firewall" in found.detail


def test_authentication_switched_off_is_a_problem_and_no_token_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("very-secret")
    path.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    found = {check.name: check for check in checks(output=str(tmp_path))}
    assert not found["authentication"].ok
    assert not found["token file"].ok
    assert "very-secret" not in str(found)
