"""A PostgreSQL server of a test's own: a new cluster in a folder that goes away, on a free port."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.integration.served import free_port

MISSING: Final = "PostgreSQL is not installed: apt-get install postgresql"
_DEBIAN: Final = Path("/usr/lib/postgresql")
_ACCOUNT: Final = "postgres"
_USER: Final = "mlflow"
_START_S: Final = 300.0


def programs() -> Path | None:
    """The folder of its programs, which Debian keeps off the path; none where it is not installed."""
    found = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path:
        return Path(on_path).resolve().parent
    return found[-1].parent if found else None


@dataclass
class Postgres:
    """One cluster; its server can be killed and started again."""

    programs: Path
    folder: Path
    port: int
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    _server: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its database, as `mlflow server --backend-store-uri` takes it.

        With the driver's name: without it SQLAlchemy means psycopg2 up to 2.0, and psycopg from 2.1 on.
        """
        return f"postgresql+psycopg2://{_USER}:{self.password}@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        """Make the cluster."""
        secret = self.folder / "password"
        secret.write_text(self.password)
        if os.getuid() == 0:
            shutil.chown(self.folder, _ACCOUNT)
            shutil.chown(secret, _ACCOUNT)
        options = ["--auth=scram-sha-256", f"--username={_USER}", f"--pwfile={secret}", "--no-sync"]
        options += ["--encoding=UTF8", "--locale=C", "--pgdata", str(self.folder / "data")]
        command = [str(self.programs / "initdb"), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **_account())

    def start(self) -> None:
        """Start the server, and wait until it listens.

        Raises:
            AssertionError: it ended, or does not listen in time.
        """
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-h", "127.0.0.1", "-k", str(self.folder), "-c", "fsync=off"]
        log = self.folder / "server.log"
        with log.open("ab") as said:
            self._server = subprocess.Popen(command, cwd=self.folder, stdout=said, stderr=said, **_account())
        deadline = time.monotonic() + _START_S
        while not self._listens():
            assert self._server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """End it as a crash does: at once, with all its connections."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it in good order, without waiting for clients to leave."""
        self._end(signal.SIGINT)

    def _end(self, number: signal.Signals) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(number)
            self._server.wait(60)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _account() -> dict[str, Any]:
    """Who it runs as: PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    account = pwd.getpwnam(_ACCOUNT)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server.

    Raises:
        RuntimeError: it is not installed.
    """
    found = programs()
    if found is None:
        raise RuntimeError(MISSING)
    # Not in pytest's folder, which root alone may enter.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as name:
        server = Postgres(found, Path(name), free_port())
        server.make()
        try:
            server.start()
            yield server
        finally:
            server.stop()
