"""A loopback server that speaks chat completions, well and badly."""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Response:
    """What the server does with one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    missing_bytes: int = 0  # promised in Content-Length and never sent
    is_reset: bool = False  # the connection is torn down without a word
    delay: float = 0.0  # seconds of silence first
    drip: float = 0.0  # seconds between bytes


Behaviour = Sequence[Response] | Callable[[dict[str, Any]], Response]
"""Responses in turn, the last one for ever, or a function of the request's body."""


def completion(content: Any, *, finish: str = "stop", **message: Any) -> Response:
    """A chat completion that says something."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content} | message}
    return as_json({"object": "chat.completion", "choices": [choice | {"finish_reason": finish}]})


def as_json(value: Any, *, status: int = 200, **headers: str) -> Response:
    """Any JSON."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value).encode()
    return Response(status=status, body=body, headers={"Content-Type": "application/json"} | named)


class JudgeServer:
    """The running server and all that it was asked."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.num_open = self.most_open = 0
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def _answer(self, body: dict[str, Any], headers: dict[str, str]) -> Response:
        with self._lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
        if callable(self._behaviour):
            return self._behaviour(body)
        return self._behaviour[min(number, len(self._behaviour) - 1)]

    def _count(self, step: int) -> None:
        with self._lock:
            self.num_open += step
            self.most_open = max(self.most_open, self.num_open)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None: ...

            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                server._count(1)
                try:
                    response = server._answer(json.loads(raw), dict(self.headers))
                    with contextlib.suppress(ConnectionError):
                        self.send(response)
                finally:
                    server._count(-1)

            def send(self, response: Response) -> None:
                time.sleep(response.delay)
                self.close_connection = True
                if response.is_reset:
                    linger = struct.pack("ii", 1, 0)  # close with RST
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.connection.close()
                    return
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                length = len(response.body) + response.missing_bytes
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if not response.drip:
                    self.wfile.write(response.body)
                    return
                for i in range(len(response.body)):
                    self.wfile.write(response.body[i : i + 1])
                    self.wfile.flush()
                    time.sleep(response.drip)

        return Handler

    @contextlib.contextmanager
    def running(self) -> Iterator["JudgeServer"]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()


def serving(behaviour: Behaviour) -> contextlib.AbstractContextManager[JudgeServer]:
    """Start a server for the length of a ``with``."""
    return JudgeServer(behaviour).running()
