"""Shapes in the answers of other people's servers: what their models declare, and the request's rows.

Seen to fail: with shapes not looked at, every answer here was served; with the configuration not asked
for, the model that does not batch was not.
"""

import http.server
import json
import math
import threading

import pytest
from support import GatewayProcess, call, make_site

from bedside.config import EXAMPLE_ACCESS

MODELS = {
    # Its inputs and outputs, and what its configuration says of batches.
    "batching": (((-1, 3), (-1, 2)), {"max_batch_size": 8}),
    "untold": (((-1, 3), (-1, 2)), None),
    "alone": (((-1, 3), (-1, 2)), {"max_batch_size": 0}),
    "silent": (((-1, 3), (-1, 2)), {}),
    "fixed": (((-1, 3), (1, 2)), None),
    "pooling": (((2, 3), (-1,)), None),
    "shapeless": (((-1, 3), None), None),
}
OPEN = dict.fromkeys(MODELS, EXAMPLE_ACCESS)


class _Server(http.server.BaseHTTPRequestHandler):
    """Answers every model with the shape that it was told."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, _, _, name, *rest = [*self.path.split("/"), "", ""]
        if name not in MODELS:
            self._reply(404, {})
            return
        (takes, gives), config = MODELS[name]
        if rest[0] == "config":
            self._reply(*((404, {}) if config is None else (200, {"name": name, **config})))
            return
        outputs = [{"name": "y", "datatype": "FP32"} | ({} if gives is None else {"shape": gives})]
        inputs = [{"name": "x", "datatype": "FP32", "shape": takes}]
        self._reply(200, {"name": name, "inputs": inputs, "outputs": outputs})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, _, kind, name, *_ = self.path.split("/")
        if kind == "repository":
            self._reply(200, [{"name": name, "state": "READY"} for name in MODELS])
            return
        shape, datatype = self.server.shape, self.server.datatype
        data = ["a" if datatype == "BYTES" else 0.5] * math.prod(shape)
        output = {"name": "y", "datatype": datatype, "shape": shape, "data": data}
        self._reply(200, {"model_name": name, "outputs": [output]})

    def _reply(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def server():
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    serving.shape, serving.datatype = [], "FP32"
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, server):
    folder = tmp_path_factory.mktemp("gateway")
    node = {"id": "foreign", "jurisdiction": "US-CA", "url": f"http://127.0.0.1:{server.server_port}"}
    with GatewayProcess(make_site(folder, gateway={"nodes": [node]}, models=OPEN), folder) as running:
        yield running


def ask(gateway, model, rows, **more):
    data = [0.5] * rows * 3
    body = {"inputs": [{"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": data}], **more}
    return call("POST", f"{gateway.url}/v2/models/{model}/infer", token=gateway.token(), body=body)


BELIEVED = [
    ("batching", 1, [1, 2]),
    ("batching", 3, [3, 2]),
    ("untold", 2, [2, 2]),
    ("alone", 1, [7, 2]),
    ("alone", 1, [0, 2]),
    ("silent", 1, [1, 2]),
    ("fixed", 4, [1, 2]),
    ("pooling", 2, [5]),
    ("shapeless", 1, [7, 5]),
]
REFUSED = [
    *((model, 1, shape) for model in ("batching", "untold", "silent")
      for shape in ([7, 2], [1, 5], [], [0, 2], [2], [1, 2, 1])),
    ("batching", 3, [1, 2]),
    ("alone", 1, [7, 5]),
    ("alone", 1, [2]),
    ("fixed", 4, [4, 2]),
    ("pooling", 2, [5, 1]),
]  # fmt: skip


@pytest.mark.parametrize(("model", "rows", "shape"), BELIEVED)
def test_an_answer_of_the_declared_shape_is_served(gateway, server, model, rows, shape):
    server.shape = shape
    reply = ask(gateway, model, rows)
    assert reply.status == 200, reply.body
    assert reply.json["outputs"][0]["shape"] == shape


@pytest.mark.parametrize(("model", "rows", "shape"), REFUSED)
def test_an_answer_of_another_shape_is_a_failure(gateway, server, model, rows, shape):
    server.shape = shape
    reply = ask(gateway, model, rows)
    assert (reply.status, reply.json["type"]) == (502, "urn:bedside:problem:execution-failed")


def test_classes_have_shapes_of_their_own(gateway, server):
    server.shape, server.datatype = [1, 1], "BYTES"
    try:
        outputs = [{"name": "y", "parameters": {"classification": 1}}]
        assert ask(gateway, "batching", 1, outputs=outputs).status == 200
    finally:
        server.datatype = "FP32"
