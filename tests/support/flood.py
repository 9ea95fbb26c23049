"""Requests to every path of a server, well-formed and malformed, with a canary wherever content can be.

The paths are those of the server's own OpenAPI document, and some that it does not have.
"""

import base64
import gzip
import http.client
import json
import random
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np

from support.canaries import Planter

METHODS = ("get", "post", "put", "delete", "patch")
MODEL = "breast-cancer"
# The other paths begin with: what is not there, and what is and was never meant to be asked so.
STRAY = ("/{stray}", "/v1/{stray}", "/v2/models/../{stray}", "/tile/{stray}", "/tile/0/{stray}")
HEADERS = (
    "Bedside-Subject", "Bedside-Data-Class", "Bedside-Jurisdiction", "Bedside-Purpose",
    "Bedside-Consent", "Bedside-Emergency", "Bedside-Timeout", "Inference-Header-Content-Length",
    "Content-Encoding", "Content-Type", "Accept", "Accept-Encoding", "Cookie", "Referer", "Origin",
    "User-Agent", "traceparent", "X-Request-ID", "X-Forwarded-For", "Range", "If-None-Match",
    "X-Patient-Name", "Expect",
)  # fmt: skip
HARMLESS = ("Bedside-Subject", "Cookie", "Referer", "User-Agent", "traceparent", "X-Patient-Name")


class Flood:
    """Makes requests for one server, each with canaries of its own."""

    def __init__(
        self, url: str, document: dict, tokens: Sequence[str], plant: Planter, seed: int
    ) -> None:
        self.url = urlsplit(url)
        self.plant = plant
        self.replies: list[tuple[str, int, bytes]] = []
        self.broken = 0
        self._tokens = tokens
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._paths = [
            (method, path)
            for path, item in document["paths"].items()
            for method in METHODS
            if method in item
        ]
        self._paths += [(method, path) for path in STRAY for method in ("get", "post")]
        self._members = sorted(
            set(_members(document.get("components", {}))) | {"inputs", "outputs", "id"}
        )

    def run(self, count: int, threads: int = 4) -> None:
        """Make `count` requests, each path in turn, from several connections at once."""
        requests = [self._request(*self._paths[n % len(self._paths)]) for n in range(count)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self._send, (requests[n::threads] for n in range(threads))))

    def _send(self, requests: Sequence[tuple[str, str, dict[str, str], bytes]]) -> None:
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=30)
        for method, path, headers, body in requests:
            try:
                connection.request(method.upper(), path, body, headers)
                answer = connection.getresponse()
                content = answer.read() + str(answer.headers).encode()
                with self._lock:
                    self.replies.append((f"{method} {path}", answer.status, content))
                if answer.status == 200:
                    self._learn(path, content)
            except (OSError, http.client.HTTPException):
                # The server was killed, or would not hear more of that.
                with self._lock:
                    self.broken += 1
                connection.close()
        connection.close()

    def _learn(self, path: str, content: bytes) -> None:
        """Add what a model answered to what must not be found."""
        if "/infer" not in path:
            return
        for found in re.findall(rb'"data":\s*\[([-0-9.,eE+ ]+)\]', content):
            with self._lock:
                self.plant.canaries.add_values(np.array(found.split(b","), np.float32))

    def _request(self, method: str, template: str) -> tuple[str, str, dict[str, str], bytes]:
        pick, word = self._random.choice, self.plant.text
        names = {"model_name": MODEL, "model": MODEL, "name": MODEL}
        known = self._random.random() < 0.6
        path = re.sub(
            r"\{(\w+)[^}]*\}",
            lambda found: names[found[1]] if known and found[1] in names else word(),
            template,
        )
        if self._random.random() < 0.5:
            path += f"?{pick(('patient', 'after', 'x'))}={word()}&{word()}"
        served = template.endswith("/infer") and self._random.random() < 0.5
        fields = HARMLESS if served else HEADERS
        headers = {name: word() for name in self._random.sample(fields, self._random.randint(1, 4))}
        token = self._tokens[0] if served else pick(self._tokens)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if method == "get":
            return method, path, headers, b""
        body, more = pick(list(self._good() if served else self._bodies()))
        return method, path, {**headers, **more}, body

    def _good(self) -> Iterator[tuple[bytes, dict[str, str]]]:
        row = self.plant.row()
        body = json.dumps(
            {**row, "id": self.plant.text(), "parameters": {self.plant.text(): 1}}
        ).encode()
        yield body, {}
        yield gzip.compress(body), {"Content-Encoding": "gzip"}
        yield zlib.compress(body), {"Content-Encoding": "deflate"}
        raw, length = self.plant.binary_row()
        yield raw, {"Inference-Header-Content-Length": str(length)}

    def _bodies(self) -> Iterator[tuple[bytes, dict[str, str]]]:
        word, random_ = self.plant.text, self._random
        yield from self._good()
        yield word().encode(), {}
        yield json.dumps({name: word() for name in random_.sample(self._members, 3)}).encode(), {}
        yield json.dumps({name: [word(), {word(): word()}] for name in self._members}).encode(), {}
        yield json.dumps(self.plant.row()).encode()[:-9], {}
        row = self.plant.row()["inputs"][0]
        yield json.dumps({"inputs": [{**row, "datatype": word()}]}).encode(), {}
        yield json.dumps({"inputs": [{**row, "data": [word()] * 3}]}).encode(), {}
        yield json.dumps({"inputs": [{**row, "data": [[1e300, word()]]}]}).encode(), {}
        yield (
            json.dumps({"inputs": [{**row, "name": word()}], "outputs": [{"name": word()}]}).encode(),
            {},
        )
        yield gzip.compress(word().encode())[:-7], {"Content-Encoding": "gzip"}
        yield f"user={word()}&{word()}={word()}".encode(), _FORM
        yield _multipart(word), {"Content-Type": "multipart/form-data; boundary=x"}
        yield base64.b64encode(word().encode()), {"Content-Type": "text/plain"}
        # What is no UTF-8, in JSON and out of it.
        yield b'{"inputs": "\xff\xfe' + word().encode() + b'"}', {}
        yield b"\x81\xa3" + word().encode(), {"Content-Type": "application/msgpack"}


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def _multipart(word) -> bytes:
    head = f'--x\r\nContent-Disposition: form-data; name="{word()}"; filename="{word()}.dcm"\r\n\r\n'
    return f"{head}{word()}\r\n--x--\r\n".encode()


def _members(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from _members(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _members(value)


def forged(plant: Planter) -> str:
    """A token that nobody issued, with canaries in its claims and its signature."""
    parts = ({"alg": "EdDSA", "kid": plant.text()}, {"sub": plant.text(), "roles": [plant.text()]})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join((*encoded, base64.urlsafe_b64encode(plant.text().encode()))).decode()
