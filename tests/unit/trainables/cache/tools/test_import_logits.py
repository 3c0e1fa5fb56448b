from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.unit.trainables.cache.tiny_caches import TinyCache, random_data
from trainables.cache.format.identity import make_identity
from trainables.cache.format.manifest import read_manifest
from trainables.cache.format.records import Origin
from trainables.cache.format.storage import open_place
from trainables.cache.node.reader import open_cache
from trainables.cache.tools.export_table import export_plain
from trainables.cache.tools.import_logits import BroughtLogits, check_logits, import_logits
from trainables.cache.tools.logit_files import read_logits
from trainables.config import BankConfig, Precision, ViewsConfig
from trainables.data import ImageSplit, TrainingData
from trainables.data.splits import split_facts
from trainables.errors import CacheError, DataError
from trainables.teacher.alignment_proof import prove_alignment

CLEAN = {"weak": BankConfig()}


@pytest.fixture(scope="module")
def data() -> TrainingData:
    """Forty training samples, and eight for selection, whose ids lie between theirs."""
    source = random_data(48)
    ids = torch.arange(48)
    held = ids % 6 == 2
    splits = [
        ImageSplit(source.train.images[rows], source.train.labels[rows], ids[rows]) for rows in (~held, held)
    ]
    return TrainingData(splits[0], splits[1], source.classes, source.mean, source.std, source.digest)


def answers(data: TrainingData, *, wrong: int = 10) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Ids and logits of a teacher that is wrong on the first few training samples, in random order."""
    generator = np.random.default_rng(0)
    train = data.train
    logits = generator.normal(size=(len(train.ids), 5)).astype(np.float32)
    logits[np.arange(len(logits)), train.labels.numpy()] += 8
    logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
    order = generator.permutation(len(logits))
    return train.ids.numpy()[order], logits[order]


def written(folder: Path, ids: Any, logits: Any, kind: str = "npz") -> Path:
    path = folder / f"logits.{'npz' if kind == 'npz' else 'parquet'}"
    if kind == "npz":
        np.savez(path, ids=ids, logits=logits)
    elif kind == "lists":
        pq.write_table(pa.table({"ids": ids, "logits": list(logits)}), path)
    else:
        columns = {f"logit_{index}": logits[:, index] for index in range(logits.shape[1])}
        pq.write_table(pa.table({"sample_id": ids, **columns}), path)
    return path


def checked(data: TrainingData, path: Path) -> BroughtLogits:
    return check_logits(path, *read_logits(path), data)


def brought_into(folder: Path, data: TrainingData, path: Path) -> tuple[int, str]:
    """Import a file, and give the number of shards that were written and the place."""
    brought = checked(data, path)
    facts = split_facts(data)
    identity = make_identity(brought.record.teacher, facts, seed=7, precision=Precision.FP16)
    origin = Origin(
        identity=identity,
        n_rows=facts.n_train,
        classes=facts.classes,
        rows_per_shard=16,
        recipes={"weak": ()},
    )
    place = open_place(str(folder / "cache"))
    return len(import_logits(place, origin, CLEAN, brought, data)), place.uri


@pytest.mark.parametrize("kind", ["npz", "lists", "columns"])
def test_brought_logits_become_a_cache_in_the_order_of_the_split(
    data: TrainingData, tmp_path: Path, kind: str
) -> None:
    ids, logits = answers(data)
    count, uri = brought_into(tmp_path, data, written(tmp_path, ids, logits, kind))
    assert count == 3
    reader = open_cache(uri, scratch=tmp_path / "scratch")
    assert torch.equal(reader.ids, data.train.ids)
    found = reader.signal("weak", 0, torch.arange(40)).logits_BC
    wanted = torch.from_numpy(logits[np.argsort(ids)])
    torch.testing.assert_close(found, wanted - wanted.amax(1, keepdim=True), atol=5e-3, rtol=1e-3)
    proof = prove_alignment(reader, data, None, ViewsConfig(), 7, banks=["weak"])
    assert (proof.pairs, proof.accuracy) == (0, {"weak": (30 / 40,)})


def test_importing_again_writes_what_is_missing_only(data: TrainingData, tmp_path: Path) -> None:
    path = written(tmp_path, *answers(data))
    _, uri = brought_into(tmp_path, data, path)
    before = read_manifest(open_place(uri))
    (Path(uri) / "bank=weak/view=0000/shard-00001.parquet").unlink()
    assert brought_into(tmp_path, data, path)[0] == 1
    assert brought_into(tmp_path, data, path)[0] == 0
    assert read_manifest(open_place(uri)) == before


def test_the_teacher_of_brought_logits_is_known_by_its_answers_alone(
    data: TrainingData, tmp_path: Path
) -> None:
    ids, logits = answers(data)
    first = checked(data, written(tmp_path, ids, logits)).record
    again = checked(data, written(tmp_path, ids[::-1], logits[::-1].astype(np.float64), "lists")).record
    changed = logits.copy()
    changed[0, 0] += 0.001
    other = checked(data, written(tmp_path, ids, changed)).record
    assert (again.teacher, first.accuracy) == (first.teacher, 0.75)
    assert other.teacher != first.teacher


def test_other_logits_do_not_go_into_the_same_folder(data: TrainingData, tmp_path: Path) -> None:
    ids, logits = answers(data)
    brought_into(tmp_path, data, written(tmp_path, ids, logits))
    with pytest.raises(CacheError, match=r"written by teacher .*, this experiment uses"):
        brought_into(tmp_path, data, written(tmp_path, ids, logits * 2))


def test_logits_of_the_selection_split_tell_the_accuracy_there(data: TrainingData, tmp_path: Path) -> None:
    ids, logits = answers(data)
    alone = checked(data, written(tmp_path, ids, logits))
    assert (alone.record.selection_accuracy, alone.selection_NC) == (None, None)
    right = 9 * np.eye(5, dtype=np.float32)[data.selection.labels.numpy()]
    right[0] = np.roll(right[0], 1)
    path = written(tmp_path, np.append(data.selection.ids.numpy(), ids), np.concatenate([right, logits]))
    brought = checked(data, path)
    record = brought.record
    assert record.selection_accuracy == 7 / 8
    assert brought.selection_NC is not None
    assert np.array_equal(brought.selection_NC, right)
    assert record.teacher == checked(data, written(tmp_path, ids, logits)).record.teacher


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, z: (i[1:], z[1:]), r"1 missing \(\d+\)"),
        (lambda i, z: (np.append(i, i[0]), np.append(z, z[:1], 0)), r"1 given more than once"),
        (lambda i, z: (np.append(i, 1000), np.append(z, z[:1], 0)), r"1 of neither .* split \(1000\)"),
        (lambda i, z: (i + 1, z), r"missing .*its row in the training part"),
        (lambda i, z: (i, z[:, :4]), r"4 logits in a row, but the data set has 5 classes \(ant, bee"),
        (lambda i, z: (i, np.where(i[:, None] == 7, np.nan, z)), r"not finite in 1 rows \(sample ids 7\)"),
        (lambda i, z: (i, np.where(i[:, None] == 7, np.inf, z)), r"not finite in 1 rows \(sample ids 7\)"),
        (
            lambda i, z: (i, np.roll(z[np.argsort(i)], 1, 0)[np.argsort(np.argsort(i))]),
            r"by chance; the ids are",
        ),
        (lambda i, z: (i, np.roll(z, 1, axis=1)), r"by chance; .*the classes are in another order"),
        (lambda i, z: (i.astype(np.float32), z), r"ids are float32"),
        (lambda i, z: (i, z.astype(np.int32)), r"logits int32; allowed: integers and floats"),
        (lambda i, z: (i[:-1], z), r"ids of shape \(39,\), logits of shape \(40, 5\)"),
    ],
)
def test_logits_that_do_not_fit_the_split_are_refused(
    data: TrainingData, tmp_path: Path, change: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        checked(data, written(tmp_path, *change(*answers(data, wrong=0))))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"PK\x03\x04 broken", "cannot be read"),
        ("a.npz", pickle.dumps({"ids": 1}), "nothing that needs pickle is loaded"),
        ("a.parquet", b"PAR1 broken", "cannot be read"),
        ("a.pt", b"", "found suffix '.pt'; allowed: .npz or .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read_logits(tmp_path / name)


def softmax(logits: Any) -> Any:
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return exp / exp.sum(1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["npz", "lists"])
def test_probabilities_are_not_taken_for_logits(
    data: TrainingData, tmp_path: Path, dtype: Any, kind: str
) -> None:
    ids, logits = answers(data)
    path = written(tmp_path, ids, softmax(logits).astype(dtype), kind)
    message = (
        r"these are probabilities and no logits: in 40 of 40 rows .* sum is 1; give --values probabilities"
    )
    with pytest.raises(DataError, match=message):
        read_logits(path)


def test_half_precision_of_a_thousand_classes_still_sums_to_one(tmp_path: Path) -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(50, 1000), scale=3)).astype(np.float16)
    path = written(tmp_path, np.arange(50), rows)
    with pytest.raises(DataError, match="in 50 of 50 rows"):
        read_logits(path)
    found = read_logits(path, "probabilities")[1]
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found.argmax(1), rows.argmax(1))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_are_kept_as_their_logarithms(data: TrainingData, tmp_path: Path, dtype: Any) -> None:
    ids, logits = answers(data)
    path = written(tmp_path, ids, softmax(logits).astype(dtype))
    found = read_logits(path, "probabilities")[1]
    assert found.dtype == np.float32
    likely = softmax(logits) > 1e-3
    wanted = np.log(softmax(logits))
    np.testing.assert_allclose(found[likely], wanted[likely], atol=1e-3)


@pytest.mark.parametrize(("dtype", "least"), [(np.float16, 2.0**-24), (np.float32, 2.0**-149)])
def test_a_probability_of_zero_counts_as_the_least_that_its_type_can_hold(
    tmp_path: Path, dtype: Any, least: float
) -> None:
    path = written(tmp_path, np.arange(2), np.array([[1, 0], [0.25, 0.75]], dtype))
    found = read_logits(path, "probabilities")[1]
    np.testing.assert_allclose(found, np.log([[1, least], [0.25, 0.75]]), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_log_probabilities_are_logits(data: TrainingData, tmp_path: Path, dtype: Any) -> None:
    ids, logits = answers(data)
    values = np.log(softmax(logits)).astype(dtype)
    assert np.array_equal(read_logits(written(tmp_path, ids, values))[1], values.astype(np.float32))


@pytest.mark.parametrize(
    "change", [lambda p: p * 100, lambda p: p - 0.5, lambda p: np.log(p), lambda p: np.full_like(p, np.nan)]
)
def test_what_is_no_probability_is_not_taken_for_one(data: TrainingData, tmp_path: Path, change: Any) -> None:
    ids, logits = answers(data)
    path = written(tmp_path, ids, change(softmax(logits)))
    with pytest.raises(DataError, match=r"40 of 40 rows are no probabilities.*leave out --values probabilit"):
        read_logits(path, "probabilities")


def test_the_identity_tells_probabilities_from_their_logarithms(data: TrainingData, tmp_path: Path) -> None:
    ids, logits = answers(data)
    path = written(tmp_path, ids, softmax(logits))
    brought = check_logits(path, *read_logits(path, "probabilities"), data, "probabilities")
    same = written(tmp_path, ids, read_logits(path, "probabilities")[1])
    as_logits = checked(data, same)
    assert np.array_equal(brought.logits_NC, as_logits.logits_NC)
    assert brought.record.teacher != as_logits.record.teacher
    assert (brought.record.plain()["values"], "values" in as_logits.record.plain()) == (
        "probabilities",
        False,
    )


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.arange(3), logits=np.array([{}, {}, {}], dtype=object))
    with pytest.raises(DataError, match="nothing that needs pickle is loaded"):
        read_logits(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"logits": [[1.0, 2.0]]}, "needed: ids or sample_id"),
        ({"ids": [1], "scores": [1.0]}, "needed: logits, or logit_0"),
        ({"ids": [1, 2], "logits": [[1.0, 2.0], [1.0]]}, "rows of different lengths"),
        ({"ids": [1], "logits": [1.0]}, "column logits is double; needed: lists"),
    ],
)
def test_a_table_that_lacks_a_column_is_told_what_is_needed(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read_logits(tmp_path / "a.parquet")


def test_an_exported_bank_can_be_brought_again(tiny: TinyCache, tmp_path: Path) -> None:
    tiny.but(views=ViewsConfig()).build(("weak",))
    place = open_place(tiny.uri)
    export_plain(place, read_manifest(place)[0], tmp_path / "plain.parquet", banks=["weak"])
    ids, logits = read_logits(tmp_path / "plain.parquet")
    assert ids.tolist() == tiny.data.train.ids.tolist()
    assert logits.shape == (40, 5)
