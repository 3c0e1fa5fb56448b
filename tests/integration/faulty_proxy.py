"""A proxy before a real server: it answers as servers in trouble do, before or after a request was done."""

from __future__ import annotations

import http.client
import itertools
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Final

_OF_A_CONNECTION: Final = frozenset(
    {"host", "connection", "transfer-encoding", "content-length", "keep-alive"}
)
_ID: Final = re.compile(r"[0-9a-f]{32}|m-[0-9a-f]{32}|/\d+(?=/|$)")
_PATIENCE_S: Final = 120.0


@dataclass(frozen=True)
class Fault:
    """What a client gets instead of the server's answer."""

    status: int
    """Of the answer; 0 closes the connection without one."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"<html>The server is in trouble.</html>"
    is_carried_out: bool = False
    """Whether the server did what it was asked for."""
    is_late: bool = False
    """Whether it does so later, when the client has looked for what there is and found nothing."""


INTERNAL: Final = b'{"error_code": "INTERNAL_ERROR", "message": "planted"}'
LIMITED: Final = b'{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "planted"}'
ARRIVED: Final = (
    Fault(500, is_carried_out=True),
    Fault(0, is_carried_out=True),
    Fault(504, is_carried_out=True),
)
"""The write arrived, its answer was lost."""
REFUSED: Final = (
    Fault(500, body=INTERNAL),
    Fault(429),
    Fault(429, {"Retry-After": "1"}),
    # Nobody waits that long for a record.
    Fault(429, {"Retry-After": "3600"}, LIMITED),
    Fault(503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}),
)
"""Nothing was done."""
Plan = Callable[[int, str], Fault | None]
"""The fault for a request, by its number from 0 and its kind: method and path without ids."""


def each_kind_twice() -> Plan:
    """Of each kind of request the first arrives and its answer is lost, the second is refused."""
    seen: Counter[str] = Counter()

    def plan(number: int, kind: str) -> Fault | None:
        seen[kind] += 1
        faults = {1: ARRIVED, 2: REFUSED}.get(seen[kind])
        return faults[len(seen) % len(faults)] if faults else None

    return plan


def share(fraction: float, seed: int) -> Plan:
    """A seeded share of all requests fails, in any of the ways."""
    random = Random(seed)

    def plan(number: int, kind: str) -> Fault | None:
        return random.choice(ARRIVED + REFUSED) if random.random() < fraction else None

    return plan


def stretch(begin: int, end: int) -> Plan:
    """All requests from one number to another fail, the first of which arrives."""

    def plan(number: int, kind: str) -> Fault | None:
        if not begin <= number < end:
            return None
        return ARRIVED[0] if number == begin else REFUSED[number % len(REFUSED)]

    return plan


def nth_of_kind(wanted: str, nth: int, fault: Fault) -> Plan:
    """One request alone fails: the nth, from 1, of those whose kind ends so."""
    seen = itertools.count(1)

    def plan(number: int, kind: str) -> Fault | None:
        return fault if kind.endswith(wanted) and next(seen) == nth else None

    return plan


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Proxy:
    """Passes requests on to a port of this machine, but for those that a plan fails."""

    def __init__(self, port: int, plan: Plan) -> None:
        self._port = port
        self._plan = plan
        self._lock = threading.Lock()
        self._held: list[_Request] = []
        self.kinds: list[str] = []
        """Of all requests, in their order."""
        self.faults: list[tuple[str, Fault]] = []
        """Those that failed, by the kind of request."""

    def fault_for(self, request: _Request) -> Fault | None:
        kind = f"{request.method} {_ID.sub('ID', request.path.partition('?')[0])}"
        with self._lock:
            fault = self._plan(len(self.kinds), kind)
            self.kinds.append(kind)
            if fault is not None:
                self.faults.append((kind, fault))
            if fault is not None and fault.is_late:
                self._held.append(request)
        return fault

    def answer(self, request: _Request) -> tuple[int, list[tuple[str, str]], bytes]:
        """The server's answer; what was held is carried out when the client has looked."""
        answer = self._passed_on(request)
        if request.path.partition("?")[0].endswith("/runs/search"):
            with self._lock:
                late, self._held = self._held, []
            for each in late:
                self._passed_on(each)
        return answer

    def _passed_on(self, request: _Request) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_S)
        try:
            connection.request(request.method, request.path, request.body, dict(request.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


@contextmanager
def proxy_before(port: int, plan: Plan) -> Iterator[tuple[str, Proxy]]:
    """A proxy before the server of a port, and its address."""
    proxy = Proxy(port, plan)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _serve(self) -> None:
            kept = {k: v for k, v in self.headers.items() if k.lower() not in _OF_A_CONNECTION}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = _Request(self.command, self.path, kept, body)
            fault = proxy.fault_for(request)
            if fault is None:
                self._send(*proxy.answer(request))
                return
            if fault.is_carried_out:
                proxy.answer(request)
            if fault.status:
                self._send(fault.status, list(fault.headers.items()), fault.body)

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _OF_A_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", proxy
        finally:
            server.shutdown()
            thread.join()
