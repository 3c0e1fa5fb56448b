"""Which of a server's errors pass, and which do not."""

from __future__ import annotations

import pytest
from mlflow.exceptions import RestException

from orchestrator.tracking.faults.errors import LET_IN, AccessDenied, StoreAway, WriteRefused, translated

PASSING = (
    "(psycopg2.InterfaceError) connection already closed",
    "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00",
    "Can't reconnect until invalid transaction is rolled back.",
    "(psycopg2.DatabaseError) server closed the connection unexpectedly",
)


def answered(code: str, message: str) -> RestException:
    return RestException({"error_code": code, "message": message})  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("message", PASSING)
def test_a_database_that_lost_its_connection_is_waited_for(message: str) -> None:
    with pytest.raises(StoreAway, match=r"connection|rolled back"), translated(remote=True):
        raise answered("BAD_REQUEST", message)


@pytest.mark.parametrize(
    "error",
    [
        answered("BAD_REQUEST", "(psycopg2.errors.StringDataRightTruncation) value too long"),
        answered("INVALID_PARAMETER_VALUE", "planted"),
        answered("RESOURCE_DOES_NOT_EXIST", "planted"),
    ],
)
def test_what_the_server_will_never_take_is_not_waited_for(error: RestException) -> None:
    with pytest.raises(WriteRefused), translated(remote=True):
        raise error


@pytest.mark.parametrize("code", ["INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "TEMPORARILY_UNAVAILABLE"])
def test_trouble_of_the_server_is_waited_for(code: str) -> None:
    with pytest.raises(StoreAway) as caught, translated(remote=True):
        raise answered(code, "planted")
    assert not isinstance(caught.value, AccessDenied)


def test_who_is_not_let_in_is_told_what_to_do_without_the_password() -> None:
    with pytest.raises(AccessDenied) as caught, translated(remote=True):
        raise answered("UNAUTHENTICATED", "401 of https://me:s3cret@host")
    assert LET_IN in str(caught.value)
    assert "s3cret" not in str(caught.value)
