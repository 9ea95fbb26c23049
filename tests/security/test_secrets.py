"""Secrets are compared in constant time, and nothing that holds one says it."""

import ast
import re
from pathlib import Path

import pytest

from inference_node import server as node_server

ROOT = Path(__file__).parents[2]
PACKAGES = ("audit", "bedside", "coordinator", "inference_node", "policies", "secure_gateway")
SECRET = re.compile(r"secret|password|hmac|(^|_)mac($|_)|signature|(^|_)proof($|_)", re.IGNORECASE)
# A key's identifier and a number of bytes are no secrets.
HARMLESS = re.compile(r"\.keyid$|\.size$|[A-Z_]+_BYTES$")


def comparisons():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Compare) and any(
                    isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops
                ):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_no_secret_is_compared_with_an_equals_sign():
    found = []
    for place, node in comparisons():
        for side in (node.left, *node.comparators):
            text = ast.unparse(side)
            if (
                isinstance(side, ast.Name | ast.Attribute)
                and SECRET.search(text)
                and not HARMLESS.search(text)
            ):
                found.append((place, ast.unparse(node)))
    assert found == []


def test_the_search_finds_one():
    node = ast.parse("self._secret == sent").body[0].value
    assert SECRET.search(ast.unparse(node.left))


@pytest.mark.parametrize("sent", [b"", b"Bearer wrong", b"Bearer right", b"Bearer right "])
async def test_a_nodes_secret_is_compared_in_constant_time(monkeypatch, sent):
    compared = []

    def spy(one, other):
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(node_server.hmac, "compare_digest", spy)
    server = node_server.NodeServer(None, version="1", secret="right")
    sent_back = []

    async def send(event):
        sent_back.append(event)

    scope = {"type": "http", "method": "GET", "path": "/v2/nothing/here", "headers": []}
    scope["headers"] = [(b"authorization", sent)] if sent else []
    await server(scope, None, send)
    assert compared == [(sent, b"Bearer right")]
    assert sent_back[0]["status"] == (404 if sent == b"Bearer right" else 401)
