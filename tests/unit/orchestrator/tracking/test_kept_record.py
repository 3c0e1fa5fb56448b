"""Whether MLflow still has a finished run's record; asked of the record of a real one."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.config.tracking_uri import default_tracking_uri
from orchestrator.records.events import Agreed
from orchestrator.records.ledger import Ledger
from orchestrator.tracking.kept_record import Lack, require_sound, what_is_lacking
from tests.older_runs.unpacking import unpack_older_run
from trainables.errors import StillhouseError

NAME = "stillhouse/three_trials"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return unpack_older_run(tmp_path).parent / "out" / "three_trials"


def lacking(out: Path) -> Lack | None:
    ledger = Ledger(out)
    ledger.close()
    return what_is_lacking(ledger, uri=default_tracking_uri(out), experiment=NAME, out=out)


def without_a_run(out: Path) -> None:
    with closing(sqlite3.connect(out / "mlflow.db")) as store, store:
        store.execute("DELETE FROM runs WHERE run_uuid IN (SELECT run_uuid FROM runs LIMIT 1)")


def with_a_new_event(out: Path) -> None:
    ledger = Ledger(out)
    ledger.append(Agreed(key="k", value="v"))
    ledger.close()


def test_a_record_that_is_there_lacks_nothing(out: Path) -> None:
    assert lacking(out) is None


@pytest.mark.parametrize(
    ("harm", "why", "from_the_start"),
    [
        (lambda out: (out / "mlflow.db").unlink(), r"mlflow\.db is gone", False),
        (lambda out: (out / "mlflow.db").write_bytes(b""), r"mlflow\.db has no runs", False),
        (lambda out: (out / "mlflow.json").unlink(), "it is not known what MLflow has", False),
        (lambda out: shutil.rmtree(out / "mlartifacts"), "files of MLflow's runs are gone", True),
        (without_a_run, r"mlflow\.db lacks 1 of the runs", False),
        (with_a_new_event, "MLflow lacks 1 events of the ledger", False),
    ],
)
def test_what_is_missing_is_said(
    out: Path, harm: Callable[[Path], object], why: str, from_the_start: bool
) -> None:
    harm(out)
    found = lacking(out)
    assert found is not None
    assert found.from_the_start == from_the_start
    assert re.search(why, found.why)


def test_a_damaged_store_is_refused_at_once_with_how_it_is_made_again(out: Path) -> None:
    database = out / "mlflow.db"
    good, drawn, refused = database.read_bytes(), random.Random(1), 0
    for number in range(120):
        content = bytearray(good)
        at = drawn.randrange(len(good))
        if number % 3 == 0:
            del content[at:]
        elif number % 3 == 1:
            content[at : at + 4096] = bytes(min(4096, len(good) - at))
        else:  # the pages' own order, and the name of the format
            for _ in range(4):
                content[drawn.randrange(100)] ^= 1 << drawn.randrange(8)
        database.write_bytes(content)
        try:
            require_sound(database)
        except StillhouseError as error:
            refused += 1
            assert "is damaged (" in str(error)
            assert "move it away and run the experiment again" in str(error)
            assert "\n" not in str(error)
    assert refused >= 110
    database.write_bytes(good)
    require_sound(database)


def test_a_store_that_is_being_written_is_no_damaged_one(out: Path) -> None:
    with closing(sqlite3.connect(out / "mlflow.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        require_sound(out / "mlflow.db")
