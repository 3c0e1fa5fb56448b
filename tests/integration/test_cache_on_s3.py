"""A teacher cache on a real S3 endpoint: with credentials, with wrong ones, and when the line is cut."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.integration.s3_server import S3, CutLine, running_s3
from tests.unit.trainables.cache.tiny_caches import TinyCache, random_data, tiny_teacher
from trainables.cache.format.manifest import MANIFEST, read_manifest
from trainables.cache.format.storage import open_place
from trainables.cache.tools.export_table import export_plain
from trainables.cache.tools.inspection import Fault, inspect_cache
from trainables.cache.tools.repair import withdraw
from trainables.cache.tools.statistics import bank_figures
from trainables.data.splits import split_facts
from trainables.errors import CacheError
from trainables.teacher.alignment_proof import prove_alignment

SHARD = "bank=weak/view=0001/shard-00002.parquet"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def tiny_at(uri: str, folder: Path) -> TinyCache:
    data = random_data()
    return TinyCache(folder, data, tiny_teacher(), split_facts(data), at=uri)


def test_a_cache_on_s3_is_built_proved_grown_and_read(s3: S3, tmp_path: Path) -> None:
    tiny = tiny_at(s3.uri("whole"), tmp_path)
    assert len(tiny.build(("weak",))) == 6
    assert tiny.build(("weak",)) == []
    assert {shard.bank for shard in tiny.build()} == {"strong"}
    proof = prove_alignment(tiny.open(), tiny.data, tiny.teacher, tiny.views, tiny.seed)
    assert proof.pairs == 64
    local = tiny_at(str(tmp_path / "local"), tmp_path)
    local.build()
    rows = torch.arange(40)
    assert torch.equal(
        tiny.open().signal("weak", 1, rows).logits_BC, local.open("other").signal("weak", 1, rows).logits_BC
    )


def test_a_cache_on_s3_is_verified_mended_and_told_of(s3: S3, tmp_path: Path) -> None:
    tiny = tiny_at(s3.uri("looked-at"), tmp_path)
    tiny.build()
    place = open_place(tiny.uri)
    assert inspect_cache(place, deep=True).findings == ()
    place.remove(SHARD)
    place.write("bank=weak/stray.parquet", b"PAR1")
    found = inspect_cache(place)
    assert [(finding.fault, finding.file) for finding in found.findings] == [
        (Fault.MISSING, SHARD),
        (Fault.FOREIGN, "bank=weak/stray.parquet"),
    ]
    place.remove("bank=weak/stray.parquet")
    withdraw(place, found)
    assert [shard.file for shard in tiny.build()] == [SHARD]
    assert inspect_cache(place, deep=True).findings == ()
    manifest, _ = read_manifest(place)
    assert {bank.bank: bank.rows for bank in bank_figures(place, manifest)} == {"strong": 40, "weak": 80}
    assert place.free_bytes() is None
    assert export_plain(place, manifest, tmp_path / "plain.parquet", banks=["strong"]) == 40


@pytest.mark.parametrize(("key", "secret"), [(None, "not-the-secret"), ("AKIAFOREIGN", "not-the-secret")])
def test_a_wrong_credential_is_a_clear_error_that_does_not_repeat_it(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, secret: str
) -> None:
    if key is not None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    tiny = tiny_at(s3.uri("refused"), tmp_path)
    with pytest.raises(CacheError, match=r"check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as raised:
        tiny.build()
    told = "".join(traceback.format_exception(raised.value.with_traceback(None)))
    assert not any(word in told for word in (s3.key, s3.secret, secret, key or secret))


def test_a_connection_cut_in_mid_write_commits_nothing_and_the_next_run_completes(
    s3: S3, tmp_path: Path
) -> None:
    line = CutLine(s3.port)
    tiny = tiny_at(s3.uri("cut", port=line.port), tmp_path)
    line.cut(b"PUT", b"view%3D0001/shard-00000.parquet", after_bytes=900)
    with pytest.raises(CacheError, match=r"cannot write .*view=0001/shard-00000.parquet: .*run again when"):
        tiny.build(("weak",))
    assert line.cuts > 0
    there = open_place(s3.uri("cut")).sizes()
    assert not [name for name in there if "view=0001" in name or "weak-0001" in name or name == MANIFEST]
    assert sum(name.startswith("_commits/weak-0000") for name in there) == 3
    line.mend()
    assert {shard.view for shard in tiny.build(("weak",))} == {1}
    line.close()
    manifest, _ = read_manifest(open_place(s3.uri("cut")))
    for record in manifest.shards:
        data = open_place(s3.uri("cut")).read(record.file)
        assert hashlib.sha256(data).hexdigest() == record.sha256


def test_a_bucket_that_does_not_exist_is_named(s3: S3, tmp_path: Path) -> None:
    tiny = tiny_at(s3.uri("x").replace("bucket/x", "nowhere/x"), tmp_path)
    with pytest.raises(CacheError, match=r"nowhere"):
        tiny.build()


def test_credentials_in_the_uri_are_refused_without_repeating_them() -> None:
    for uri in ("s3://AKIAKEY:hidden/word@bucket/folder", "s3://AKIAKEY:hidden@bucket/folder"):
        with pytest.raises(CacheError, match=r"holds credentials.*AWS_ACCESS_KEY_ID") as raised:
            open_place(uri)
        assert "AKIAKEY" not in str(raised.value)
        assert "hidden" not in str(raised.value)
