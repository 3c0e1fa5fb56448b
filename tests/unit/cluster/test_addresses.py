from __future__ import annotations

import os
from pathlib import Path

import pytest
from ray.exceptions import AuthenticationError

from cluster.auth import is_readable_by_others, protect_token, require_token, token_source
from cluster.environment import DRIVER_SETTINGS, missing_settings, variables
from cluster.errors import ClusterError
from cluster.session import cluster_address, connect
from cluster.storage import free_bytes, is_local, resolve


@pytest.mark.parametrize(
    ("address", "environment", "expected"),
    [
        (None, {}, None),
        ("local", {"RAY_ADDRESS": "10.0.0.1:6379"}, None),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, "10.0.0.1:6379"),
        ("auto", {}, "auto"),
        ("head:6379", {"RAY_ADDRESS": "10.0.0.1:6379"}, "head:6379"),
        (None, {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, "auto"),
    ],
)
def test_an_existing_cluster_is_used_where_one_is_meant(
    address: str | None, environment: dict[str, str], expected: str | None
) -> None:
    assert cluster_address(address, environment) == expected


@pytest.mark.parametrize("address", ["http://head:8265", "ray://head:10001"])
def test_an_address_for_jobs_or_clients_is_refused_with_a_way_out(address: str) -> None:
    with pytest.raises(ClusterError, match=r"RAY_ADDRESS is .* submit the run as a job"):
        cluster_address(None, {"RAY_ADDRESS": address})


def test_numbers_of_cpus_are_refused_for_a_cluster_of_others() -> None:
    with pytest.raises(ClusterError, match="has its own CPUs"), connect("head:6379", cpus=2):
        pass


def test_an_address_where_nothing_listens_fails_at_once() -> None:
    with (
        pytest.raises(ClusterError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"),
        connect("127.0.0.1:1"),
    ):
        pass


def test_settings_of_the_user_win() -> None:
    name = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
    assert name in DRIVER_SETTINGS
    assert name not in missing_settings({name: "2"})
    assert missing_settings({}) == dict(DRIVER_SETTINGS)


def test_variables_are_put_back_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEN_BEFORE", "old")
    monkeypatch.delenv("NOT_SEEN", raising=False)
    with pytest.raises(ValueError, match="stop"), variables({"SEEN_BEFORE": "new", "NOT_SEEN": "1"}):
        assert os.environ["SEEN_BEFORE"] == "new"
        raise ValueError("stop")
    assert os.environ["SEEN_BEFORE"] == "old"
    assert "NOT_SEEN" not in os.environ


def test_the_source_of_the_token_is_told_and_not_the_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert token_source({"RAY_AUTH_TOKEN_PATH": str(path)}) is None
    path.write_text("secret")
    assert token_source({"RAY_AUTH_TOKEN_PATH": str(path)}) == f"the file {path}"
    assert token_source({"RAY_AUTH_TOKEN": "secret"}) == "the variable RAY_AUTH_TOKEN"


@pytest.mark.parametrize("place", ["an empty variable", "no file", "an empty file"])
def test_a_token_that_is_not_there_is_told_before_ray_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    if place == "an empty variable":
        monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    elif place == "an empty file":
        (tmp_path / "token").write_text("\n")
    assert token_source() is None  # so the doctor says it too
    with pytest.raises(AuthenticationError):
        require_token("127.0.0.1:9")


def test_the_token_file_becomes_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    assert is_readable_by_others(path)
    protect_token()
    assert not is_readable_by_others(path)


def test_a_relative_path_is_local_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("out/x")[1] == str(tmp_path / "out" / "x")
    assert is_local("out")
    assert free_bytes("out/that/will/be") == pytest.approx(free_bytes(str(tmp_path)), rel=0.1)


def test_object_storage_has_no_free_space() -> None:
    assert not is_local("s3://bucket/folder")
    assert free_bytes("s3://bucket/folder") is None


def test_an_unknown_kind_of_storage_is_refused() -> None:
    with pytest.raises(ClusterError, match="cannot use nothing://x"):
        resolve("nothing://x")
