"""Servers of the Open Inference Protocol that answer probes, and do at work what a test says."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from secure_gateway import NodeEntry

At = Callable[["StubNode", http.server.BaseHTTPRequestHandler], None]


class StubNode(http.server.ThreadingHTTPServer):
    """One such server; with a `digest` it passes for a node of Bedside's own, which keeps nothing."""

    daemon_threads = True

    def __init__(self, at_work: At, digest: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.at_work = at_work
        self.asked = 0
        self.described = 0
        self.datatype = "FP32"
        self.answering = True
        """Whether it answers probes."""
        self.released = threading.Event()
        """Lets go of what hangs."""
        self._digest = {} if digest is None else {"digest": digest}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def entry(self, name: str) -> NodeEntry:
        return NodeEntry(id=name, jurisdiction="US-CA", url=self.url)

    def index(self) -> list[dict[str, Any]]:
        return [{"name": "breast-cancer", "version": "1", "state": "READY", **self._digest}]

    def metadata(self) -> dict[str, Any]:
        return {
            "name": "breast-cancer",
            "versions": ["1"],
            "platform": "none",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": self.datatype, "shape": [-1, 2]}],
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubNode

    def do_GET(self) -> None:
        if self.path.endswith("/config"):
            self.reply(404, {})
            return
        if self.path.startswith("/v2/models/"):
            self.server.described += 1
        self.reply(200, self.server.metadata())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/infer" in self.path:
            self.server.asked += 1
            self.server.at_work(self.server, self)
        elif self.server.answering:
            self.reply(200, self.server.index())
        else:
            self.reply(500, {})

    def reply(self, status: int, document: Any, **headers: str) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def breaks(_: StubNode, handler: Any) -> None:
    """End the connection without an answer."""
    handler.close_connection = True


def hangs(node: StubNode, handler: Any) -> None:
    """Answer nothing, for as long as the test lasts."""
    node.released.wait()
    handler.close_connection = True


def answers(node: StubNode, handler: Any) -> None:
    """Answer as a model does."""
    output = {"name": "y", "datatype": node.datatype, "shape": [1, 2], "data": [0.25, 0.75]}
    handler.reply(200, {"model_name": "breast-cancer", "model_version": "1", "outputs": [output]})


def says(status: int, **headers: str) -> At:
    """Answer every request with `status`."""
    return lambda _, handler: handler.reply(status, {"error": "no"}, **headers)


@contextmanager
def stub_node(at_work: At, digest: str | None = "0" * 64) -> Iterator[StubNode]:
    server = StubNode(at_work, digest)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
