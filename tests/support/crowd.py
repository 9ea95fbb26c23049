"""Callers that ask a gateway over and over while something happens to it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Self
from urllib.parse import urlsplit

CALLERS = 8
PATIENCE_S = 30


class Crowd:
    """Callers that keep their connections open and count what they get, until the end of the block.

    `answered` is told each answer that is a 200, and its body.
    """

    def __init__(
        self,
        url: str,
        token: str,
        body: Any,
        *,
        callers: int = CALLERS,
        answered: Callable[[HTTPResponse, Any], None] = lambda *_: None,
    ) -> None:
        self.statuses: Counter[int] = Counter()
        self.problems: Counter[str] = Counter()
        self._url, self._body, self._answered = urlsplit(url), json.dumps(body), answered
        self._headers = {"Authorization": f"Bearer {token}"}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def wait_for(self, more: int) -> None:
        """Wait until so many more were answered with 200."""
        until, end = self.statuses[200] + more, time.monotonic() + PATIENCE_S
        while self.statuses[200] < until:
            assert time.monotonic() < end, self.statuses
            time.sleep(0.01)

    def _run(self) -> None:
        connection = HTTPConnection(self._url.hostname or "", self._url.port, timeout=20)
        while not self._stop.is_set():
            connection.request("POST", self._url.path, self._body, self._headers)
            reply = connection.getresponse()
            body = json.loads(reply.read())
            self.statuses[reply.status] += 1
            if reply.status == 200:
                self._answered(reply, body)
            else:
                self.problems[body["type"]] += 1
        connection.close()
