"""An S3 server that checks credentials (moto's), and a connection to it that can be cut in mid-write."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
from moto.server import ThreadedMotoServer

HOST = "127.0.0.1"
BUCKET = "bucket"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


@dataclass(frozen=True)
class S3:
    """A bucket, and the only user who may use it."""

    port: int
    key: str
    secret: str

    def uri(self, folder: str, *, port: int | None = None) -> str:
        """A folder of the bucket; through another port, as of a `CutLine`, when it is given."""
        endpoint = f"{HOST}:{port or self.port}"
        return f"s3://{BUCKET}/{folder}?scheme=http&endpoint_override={endpoint}&region=us-east-1"


@contextmanager
def running_s3() -> Iterator[S3]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    try:
        _check_requests_after(port, b"inf")
        _post(port, "reset")  # what an earlier server of this process was told, this one knows too
        made = S3(port, *_make_user(f"http://{HOST}:{port}"))
        _check_requests_after(port, b"0")  # from now on every request is checked
        yield made
    finally:
        _check_requests_after(port, b"inf")
        server.stop()


def _make_user(endpoint: str) -> tuple[str, str]:
    options = {
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "founder",
        "aws_secret_access_key": "founder",
    }
    iam = boto3.client("iam", **options)
    iam.create_user(UserName="distiller")
    iam.put_user_policy(UserName="distiller", PolicyName="s3", PolicyDocument=json.dumps(POLICY))
    key = iam.create_access_key(UserName="distiller")["AccessKey"]
    boto3.client("s3", **options).create_bucket(Bucket=BUCKET)
    return key["AccessKeyId"], key["SecretAccessKey"]


def _check_requests_after(port: int, body: bytes) -> None:
    _post(port, "reset-auth", body)


def _post(port: int, what: str, body: bytes = b"") -> None:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.request("POST", f"/moto-api/{what}", body, {"Content-Type": "application/octet-stream"})
    answer = connection.getresponse()
    connection.close()
    assert answer.status == 200


class CutLine:
    """A line to a server that drops every upload whose first bytes match, after so many bytes of it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._cut: tuple[bytes, bytes, int] | None = None
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, method: bytes, path_part: bytes, *, after_bytes: int) -> None:
        """From now on drop a connection on which such a request comes, when so many bytes are through."""
        self._cut = (method, path_part, after_bytes)

    def mend(self) -> None:
        self._cut = None

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((HOST, self._target))
            threading.Thread(target=self._upload, args=(client, server), daemon=True).start()
            threading.Thread(target=self._download, args=(server, client), daemon=True).start()

    def _upload(self, client: socket.socket, server: socket.socket) -> None:
        left: int | None = None
        while data := _received(client):
            if self._cut is not None and left is None and self._is_doomed(data):
                left = self._cut[2]
            if left is not None:
                _sent(server, data[:left])
                left -= len(data)
                if left <= 0:
                    self.cuts += 1
                    break
            elif not _sent(server, data):
                break
        _ended(client, server)

    def _download(self, server: socket.socket, client: socket.socket) -> None:
        while data := _received(server):
            if not _sent(client, data):
                break
        _ended(client, server)

    def _is_doomed(self, data: bytes) -> bool:
        assert self._cut is not None
        line = data.split(b"\r\n", 1)[0]
        return line.startswith(self._cut[0] + b" ") and self._cut[1] in line


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65_536)
    except OSError:
        return b""


def _sent(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
    except OSError:
        return False
    return True


def _ended(*ends: socket.socket) -> None:
    for end in ends:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # the other thread was first
