"""Paths that point elsewhere, and addresses that a caller would like the gateway to call."""

import json
import socket
import threading

import pytest
from support import call
from support.raw import exchange
from support.sites import ROW

from secure_gateway import NodeEntry

CLIMBS = [
    "..", "../..", "../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd",
    "%252e%252e%252fetc", "....//....//etc", "..\\..\\etc", "%2e%2e%5c", "/etc/passwd", "//etc/passwd",
    "breast-cancer/../breast-cancer", "breast-cancer%00", "breast-cancer%2f..", ".", "%ff%fe",
]  # fmt: skip


@pytest.mark.parametrize("climb", CLIMBS)
def test_no_path_leads_out_of_what_is_served(gateway, climb):
    port, token = gateway.site.config.gateway.port, gateway.token().encode()
    body = json.dumps(ROW).encode()
    for template in (
        "/v2/models/{}/infer",
        "/v2/models/breast-cancer/versions/{}/infer",
        "/v2/models/{}",
        "/v2/models/{}/ready",
        "/v1/models/{}/work",
        "/v1/work/{}",
        "/v1/work/{}/result",
        "/tile/{}",
        "/tile/0/{}",
        "/tile/entries/{}",
        "/checkpoint/{}",
        "/{}",
    ):
        for method in ("GET", "POST"):
            request = (
                f"{method} {template.format(climb)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n"
            ).encode()
            statuses, received = exchange(
                port, request + b"Authorization: Bearer " + token + b"\r\n\r\n" + body
            )
            assert statuses[0] in (400, 404, 405), (method, template, received)
            assert b"root:" not in received


@pytest.fixture
def trap():
    """A server that nobody configured: whoever connects to it was sent by a caller."""
    connected = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        closing = threading.Event()

        def accept():
            while not closing.is_set():
                try:
                    server.accept()[0].close()
                    connected.set()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], connected
        closing.set()
        thread.join()


def test_only_the_configuration_says_where_a_request_goes(gateway, trap):
    port, connected = trap
    url = f"http://127.0.0.1:{port}/"
    names = (
        "Host", "X-Forwarded-Host", "X-Forwarded-For", "Forwarded", "Location", "Referer", "Origin",
        "X-Original-URL", "X-Rewrite-URL", "Destination", "Bedside-Placement", "Bedside-Subject",
    )  # fmt: skip
    headers = dict.fromkeys(names, url)
    body = {
        **ROW,
        "id": url,
        "parameters": {"url": url, "node": url, "callback": url, "shared_memory_region": url},
    }
    own = gateway.site.config.gateway.port
    served = call("POST", gateway.infer_url, token=gateway.token(), headers=headers, body=body)
    assert served.status in (200, 400)
    for path in (f"/v2/models/{url}/infer", f"/v1/models/{url}/work", f"/tile/{url}"):
        call("POST", f"{gateway.url}{path}", token=gateway.token(), headers=headers, body=body)
    call(
        "POST",
        f"{gateway.url}/v1/placements",
        token=gateway.token(),
        body={"model": url, "subject": url},
    )
    raw = f"GET {url}v2 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    statuses, received = exchange(own, raw.encode())
    assert statuses == [200], received
    assert b'"bedside"' in received
    assert not connected.is_set()
    # The trap does notice a visitor.
    socket.create_connection(("127.0.0.1", port)).close()
    assert connected.wait(10)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/",
        "host:8000",
        "http://",
        "http://user:secret@host:8000",
        "http://host:8000/?token=secret",
        "http://host:8000/#part",
        "unix:",
        "unix:relative/path",
    ],
)
def test_a_nodes_address_is_one_and_holds_no_secret(url):
    with pytest.raises(ValueError, match="url"):
        NodeEntry(id="one", jurisdiction="US-CA", url=url)


@pytest.mark.parametrize(
    "url", ["http://host:8000", "https://host/prefix", "unix:/run/node.sock", None]
)
def test_addresses_that_are_allowed(url):
    assert NodeEntry(id="one", jurisdiction="US-CA", url=url).url == url
