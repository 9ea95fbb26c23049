"""What a node makes of clients that are slow, lie or ask for nonsense, and of being told to stop.

Seen to fail: without `draining` in `serve_node`, and with the secret compared for POST only.
"""

import asyncio
import json
import signal

import pytest
from support import call, linear_model, make_site, publish_linear
from support.nodes import NodeProcess
from support.sites import ROW

from inference_node import NodeSettings

SECRET = "between-us"
BODY = json.dumps(ROW).encode()
PATH = "/v2/models/breast-cancer/infer"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    site = make_site(folder)
    publish_linear(site, folder)
    (folder / "secret").write_text(SECRET)
    with NodeProcess(site, folder, "node", secret=f"file:{folder}/secret") as running:
        yield running


def head(length, path=PATH):
    return (
        f"POST {path} HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer {SECRET}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


async def connect(node):
    host, port = node.where.split(":")
    return await asyncio.open_connection(host, int(port))


async def say(node, *parts):
    """Send bytes, close our side, and return all that comes back."""
    reader, writer = await connect(node)
    for part in parts:
        writer.write(part)
        await writer.drain()
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


@pytest.mark.parametrize(
    "raw",
    [
        head("-5") + BODY,
        head("many") + BODY,
        head("5, 6") + BODY,
        head(len(BODY) + 50) + BODY,
        head(3) + BODY,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        head(10**30) + BODY,
        b"GET " + b"/" * 100_000,
    ],
)
async def test_lies_about_length_harm_nobody_else(node, raw):
    answer = await say(node, raw)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    reply = await asyncio.to_thread(call, "POST", f"{node.url}{PATH}", token=SECRET, body=ROW)
    assert reply.status == 200


async def test_a_body_that_comes_slowly_holds_up_nobody_else(node):
    reader, writer = await connect(node)
    writer.write(head(len(BODY)))
    for byte in BODY[:-1]:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    reply = await asyncio.to_thread(call, "POST", f"{node.url}{PATH}", token=SECRET, body=ROW)
    assert reply.status == 200
    writer.write(BODY[-1:])
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v2/nothing"),
        ("GET", "/v3"),
        ("POST", "/metrics"),
        ("DELETE", "/v2/models/breast-cancer"),
        ("PUT", PATH),
        ("GET", PATH),
        ("GET", "/v2/models/breast-cancer/versions"),
        ("POST", "/v2/repository/models/breast-cancer"),
        ("GET", "/v2/models/%2e%2e%2fsecret"),
    ],
)
def test_unknown_paths_and_methods_are_refused(node, method, path):
    reply = call(method, f"{node.url}{path}", token=SECRET, body=b"")
    assert reply.status in (404, 405)
    assert reply.json["error"]
    assert "secret" not in reply.body.decode()


@pytest.mark.parametrize("method", [b"OPTIONS", b"GET", b"POST"])
async def test_a_request_that_names_no_path_is_refused(node, method):
    fields = b"Host: node\r\nAuthorization: Bearer " + SECRET.encode()
    answer = await say(node, method + b" * HTTP/1.1\r\n" + fields + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("path", [PATH, "/v2", "/metrics", "/v2/repository/index", "/nothing"])
def test_without_the_secret_there_is_nothing_but_health(node, path):
    for token in (None, "wrong", SECRET + "x"):
        for method in ("POST", "GET", "DELETE"):
            assert call(method, f"{node.url}{path}", token=token, body=ROW).status == 401
    assert call("GET", f"{node.url}/v2/health/ready").status == 200


async def test_told_to_stop_it_finishes_what_is_under_way(tmp_path):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with NodeProcess(site, tmp_path, "node") as node:
        reader, writer = await connect(node)
        writer.write(head(len(BODY)) + BODY[:-1])
        # A request that is answered after it was sent shows that the node has read this far.
        assert (await asyncio.to_thread(call, "GET", f"{node.url}/v2/health/ready")).status == 200
        node.signal(signal.SIGTERM)
        while True:
            try:
                _, other = await connect(node)
            except ConnectionError:
                break
            other.close()
        writer.write(BODY[-1:])
        assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 200")
        writer.close()


def test_told_to_stop_it_is_not_ready_first_and_serves_on_for_a_while(tmp_path):
    models = tmp_path / "models"
    linear_model(models / "breast-cancer/1/model.onnx")
    site = make_site(tmp_path, node=NodeSettings(repository=models, drain_s=3))
    with NodeProcess(site, tmp_path, "node") as node:
        assert call("GET", f"{node.url}/v2/health/ready").status == 200
        node.signal(signal.SIGTERM)
        while call("GET", f"{node.url}/v2/health/ready").status != 503:
            pass
        assert call("POST", f"{node.url}{PATH}", body=ROW).status == 200
        assert call("GET", f"{node.url}/v2/health/live").status == 200
