"""Which of MLflow's errors pass, and which do not."""

from __future__ import annotations

import re
from typing import Final

from mlflow.exceptions import MlflowException, RestException
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.terminal.masking import without_secrets
from trainables.errors import StillhouseError

_REFUSALS: Final = frozenset(
    {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "INVALID_STATE"}
)
_PASSES: Final = re.compile(r"InterfaceError|QueuePool limit|rolled back|server closed the connection")
"""MLflow says BAD_REQUEST, too, when its database went away in the middle, or has no connection left."""
_DENIALS: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
LET_IN: Final = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) where the driver "
    "runs, or write user and password into the tracking URI"
)
"""What to do about `AccessDenied`."""


class StoreAway(StillhouseError):
    """The store cannot be reached, or not now; the same call may work later."""


class AccessDenied(StoreAway):
    """The server knows neither user nor token, or does not let them in: waiting seldom helps."""


class WriteRefused(StillhouseError):
    """The store answered that it will never take this write."""


class translated:
    """A context that turns the errors of MLflow and of what lies below it into StoreAway and WriteRefused.

    MLflow quotes the store's address in full.
    """

    def __init__(self, *, remote: bool) -> None:
        self._remote = remote

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, MlflowException) and self._refused(error):
            raise WriteRefused(without_secrets(str(error))) from error
        if isinstance(error, MlflowException) and self._remote and error.error_code in _DENIALS:
            said = without_secrets(str(error))
            raise AccessDenied(
                f"the MLflow server does not let this user in; {LET_IN}; it says: {said}"
            ) from error
        if isinstance(error, MlflowException | SQLAlchemyError | RequestException | OSError):
            raise StoreAway(without_secrets(f"{type(error).__name__}: {error}")) from error

    def _refused(self, error: MlflowException) -> bool:
        # A proxy in front of a server that is away may answer 404, without MLflow's JSON: that passes.
        answered = isinstance(error, RestException) or not self._remote
        return answered and error.error_code in _REFUSALS and not _PASSES.search(str(error))
