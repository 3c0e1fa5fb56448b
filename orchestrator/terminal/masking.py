"""Secrets that stand in addresses, left out of what leaves the program: console, files, MLflow, logs."""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

MASK: Final = "***"
# The greedy first parts take a password with an @ in it as a whole.
_USER: Final = re.compile(r"(?<=://)[^\s/?#<>]*@")
# A password with / ? or # breaks its address, and a message says so. What looks like a port is none.
_BROKEN_USER: Final = re.compile(r"(?<=://)[^\s/?#@:<>\[]+:(?!\d*(?:[/?#\s]|$))[^\s<>]*@")
_WORDS: Final = (
    r"token|passw(?:or)?d|passphrase|secret|signature|credentials?|api[_-]?key|access[_-]?key(?:[_-]?id)?"
)
_PARAMETER: Final = re.compile(
    # Short words only as a whole, or after a hyphen: `viewStateShareKey` is no secret.
    rf"([?&;#](?:[\w.%-]*(?:{_WORDS})|(?:[\w.%-]*[_.-])?(?:key|sig|pwd|pass|auth|jwt))=)[^\s&#<>\"']*",
    re.IGNORECASE,
)
_SECRET_KEY: Final = re.compile(rf"[\w.-]*(?:{_WORDS})", re.IGNORECASE)
_SECRET_LINE: Final = re.compile(
    rf"((?<![\w.-])[\w.-]*(?:{_WORDS})[\w.-]*[\"']?\s*:[ \t]+)"
    r"(?:\"[^\"\n]*\"|'[^'\n]*'|(?!-?[\d.eE+-]+[ \t]*(?:[,}\]#\n]|$))[^\s\[{,}#][^\n,}#]*)",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """The text with all addresses in it without user and password, and with secret parameters as ***.

    A second time changes nothing.
    """
    if "://" in text:
        text = _BROKEN_USER.sub("", _USER.sub("", text))
    return _PARAMETER.sub(rf"\1{MASK}", text) if "=" in text else text


def file_without_secrets(text: str) -> str:
    """The text of a YAML file without secrets in addresses, and with *** for texts under keys as `token`.

    Numbers, lists and mappings under such a key stay: `token_weight` is a hyper-parameter.
    """
    return _SECRET_LINE.sub(rf"\g<1>{MASK}", without_secrets(text))


def data_without_secrets(value: Any) -> Any:
    """Plain data whose texts are without secrets; a text under a key such as `token` is one as a whole."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {
            key: MASK if isinstance(each, str) and _names_secret(key) else data_without_secrets(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [data_without_secrets(each) for each in value]
    return value


def mask_process() -> None:
    """Leave secrets out of this process's logs, those of libraries too, and of its tracebacks.

    Side effects: the factory of log records, and the hooks for what nobody catches.
    """
    logging.setLogRecordFactory(MaskedRecord)
    sys.excepthook = _tell_uncaught
    threading.excepthook = _tell_uncaught_in_thread


class MaskedRecord(logging.LogRecord):
    """A log record whose message and traceback hold no secrets."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = _masked_traceback(*self.exc_info).rstrip("\n")  # which formatters then take

    def getMessage(self) -> str:
        """The message with its arguments."""
        return without_secrets(super().getMessage())


def _names_secret(key: object) -> bool:
    return isinstance(key, str) and _SECRET_KEY.fullmatch(key) is not None


def _masked_traceback(
    kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
) -> str:
    return without_secrets("".join(traceback.format_exception(kind, error, where)))


def _tell_uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    sys.stderr.write(_masked_traceback(kind, error, where))


def _tell_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "a thread"
    sys.stderr.write(
        f"Exception in {name}:\n{_masked_traceback(args.exc_type, args.exc_value, args.exc_traceback)}"
    )
