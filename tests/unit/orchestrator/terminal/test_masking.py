"""Secrets in addresses: which parts of a text are left out, and which stay."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.terminal.console import Console
from orchestrator.terminal.masking import (
    MaskedRecord,
    data_without_secrets,
    mask_process,
    without_secrets,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pw@host:80/x", "http://host:80/x"),
        ("https://pw@host", "https://host"),
        ("http://me:p@w@host/x", "http://host/x"),
        ("http://me:p/w@host/x", "http://host/x"),
        ("http://me:p?w#w@host/x", "http://host/x"),
        ("from http://me:pw@a to 'http://me:pw@b'.", "from http://a to 'http://b'."),
        ("http://h?token=pw", "http://h?token=***"),
        ("http://h/x?a=1&password=pw&b=2", "http://h/x?a=1&password=***&b=2"),
        ("url: /api?page=1&api_key=pw (Caused by", "url: /api?page=1&api_key=*** (Caused by"),
        ("http://h?TOKEN=pw/api/2.0", "http://h?TOKEN=***"),
        ("s3://b/x?X-Amz-Signature=pw&X-Amz-Date=1", "s3://b/x?X-Amz-Signature=***&X-Amz-Date=1"),
        ("http://h#access_token=pw", "http://h#access_token=***"),
        ('<a href="http://h?x=1&amp;sig=pw">', '<a href="http://h?x=1&amp;sig=***">'),
        ("http://me:pw@h?secret=pw'", "http://h?secret=***'"),
    ],
)
def test_user_password_and_secret_parameters_are_left_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////a@b.db",
        "http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=best&orderByKey=metrics",
        "http://[::1]:5000/x@y",
        "http://host:80/x@y",
        "mail me@host, see http://host",
        "token=4 of 5, a password is needed: see --help",
        "lr=0.1, keys=3",
        "http://head:PORT",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert without_secrets(text) == text


@given(st.text("ab:/@?&=#. 'token0", max_size=40))
def test_masking_twice_is_masking_once(text: str) -> None:
    once = without_secrets(f"http://{text}")
    assert without_secrets(once) == once


def test_data_keep_their_shape_and_lose_their_secrets() -> None:
    data = {
        "uri": "http://me:pw@h",
        "arguments": {"hf_token": "pw", "tokens": 5, "temperature": 4.0},
        "list": ["http://h?token=pw", None, True],
    }
    assert data_without_secrets(data) == {
        "uri": "http://h",
        "arguments": {"hf_token": "***", "tokens": 5, "temperature": 4.0},
        "list": ["http://h?token=***", None, True],
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nothing_that_a_console_prints_holds_a_secret(stream: type[io.StringIO]) -> None:
    address = "http://me:hunter2@h?token=hunter2"
    out, results = stream(), io.StringIO()
    console = Console(out=out)
    console.info(address)
    console.stage(address)
    console.table(address, (address, "b"), [(address, 1)])
    console.table(address, (address, "b"), [(f"{'wide ' * 30}{address}", 2)])
    with console.progress(address, 2) as progress:
        progress.update(1, address)
    Console(json_only=True, out=results, err=out).result({"a": {"b": [address]}, "token": "hunter2"})
    assert "hunter2" not in out.getvalue() + results.getvalue()
    assert "http://h" in out.getvalue()


def fail() -> None:
    raise ValueError("http://me:hunter2@h?token=hunter2")


@pytest.fixture
def masked() -> Iterator[logging.Logger]:
    factory, hook, thread_hook = logging.getLogRecordFactory(), sys.excepthook, threading.excepthook
    mask_process()
    yield logging.getLogger("some.library")
    logging.setLogRecordFactory(factory)
    sys.excepthook, threading.excepthook = hook, thread_hook


def test_logs_of_all_libraries_are_without_secrets(masked: logging.Logger) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    masked.addHandler(handler)
    try:
        masked.warning("no answer of %s in %d s", "http://me:hunter2@h", 5)
        try:
            fail()
        except ValueError:
            masked.exception("it broke")
    finally:
        masked.removeHandler(handler)
    assert out.getvalue().startswith("no answer of http://h in 5 s\nit broke\nTraceback")
    assert out.getvalue().endswith("ValueError: http://h?token=***\n")
    assert isinstance(logging.makeLogRecord({"msg": "x"}), MaskedRecord)


@pytest.mark.usefixtures("masked")
def test_what_nobody_catches_is_told_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    thread = threading.Thread(target=fail, name="recorder")
    thread.start()
    thread.join()
    error = ValueError("http://me:hunter2@h?token=hunter2")
    sys.excepthook(ValueError, error, None)
    said = capsys.readouterr().err
    assert said.startswith("Exception in recorder:\nTraceback")
    assert said.count("ValueError: http://h?token=***\n") == 2
    assert "hunter2" not in said
