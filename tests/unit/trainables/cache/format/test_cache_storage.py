from __future__ import annotations

import pytest

from trainables.cache.format.storage import open_place, told
from trainables.config import CacheConfig
from trainables.errors import CacheError


def test_no_error_tells_a_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    text = told(OSError("no object for hush and a-token"))
    assert text == "no object for <AWS_SECRET_ACCESS_KEY> and <AWS_SESSION_TOKEN>"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("AWS Error ACCESS_DENIED during PutObject", "check AWS_ACCESS_KEY_ID"),
        ("AWS Error NETWORK_CONNECTION during UploadPart: curlCode: 56", "run again when the storage"),
    ],
)
def test_an_error_of_an_object_store_says_what_to_do(error: str, advice: str) -> None:
    assert advice in told(OSError(error))


@pytest.mark.parametrize(
    "uri", ["s3://key:hidden@bucket/folder", "s3://key:hid/den@bucket/folder", "gs://u@b/c"]
)
def test_credentials_in_a_uri_are_refused_without_repeating_them(uri: str) -> None:
    with pytest.raises(CacheError, match="holds credentials") as raised:
        open_place(uri)
    assert "hid" not in str(raised.value)
    with pytest.raises(ValueError, match="holds credentials"):
        CacheConfig(uri=uri)


def test_a_local_path_may_hold_an_at_sign() -> None:
    assert CacheConfig(uri="/data/me@home/cache").uri == "/data/me@home/cache"
    assert open_place("/data/me@home/cache").is_local
