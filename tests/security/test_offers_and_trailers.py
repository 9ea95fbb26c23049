"""What a head offers and what follows a body: neither may make one request into another or two.

Seen to fail: with uvicorn's own reading, the body of a request that offers HTTP/2 is read as the next
request; with trailers taken for fields of the head, a token that comes behind the body is believed.
"""

import json
import time

import pytest
from support import call
from support.raw import exchange
from support.sites import ROW

BODY = json.dumps(ROW).encode()
CHUNKS = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
# Each needs no token: were it read as a request, it would be answered.
SMUGGLED = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"
H2C = (
    b"Connection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
)
OFFERS = {
    "HTTP/2": H2C,
    "TLS": b"Connection: upgrade\r\nUpgrade: TLS/1.0\r\n",
    "something else": b"Upgrade: foo\r\nConnection: keep-alive, Upgrade\r\n",
    "WebSocket among others": b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
    "no token": b"Connection: Upgrade\r\nUpgrade: \r\n",
}


def infer(gateway, *fields, token=True):
    authorization = b"Authorization: Bearer %s\r\n" % gateway.token().encode() if token else b""
    return b"".join(
        (
            b"POST /v2/models/breast-cancer/infer HTTP/1.1\r\nHost: bedside\r\n",
            authorization,
            *fields,
            b"\r\n",
        )
    )


def asked(gateway, *parts):
    """Send `parts` one after the other, each in a packet of its own."""
    return exchange(gateway.site.config.gateway.port, *parts)


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offer_that_is_not_taken_up_changes_nothing(gateway, offer, apart):
    """RFC 9110 section 7.8. Java's client offers HTTP/2 with its first request, body and all."""
    length = b"Content-Length: %d\r\n" % len(BODY)
    head, last = infer(gateway, offer, length), infer(gateway, length, b"Connection: close\r\n")
    sent = (head, BODY, last, BODY) if apart else (head + BODY + last + BODY,)
    statuses, received = asked(gateway, *sent)
    assert statuses == [200, 200], received
    assert received.count(b'"model_name":"breast-cancer"') == 2


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_the_body_behind_an_offer_is_never_a_request(gateway, offer, apart):
    length = b"Content-Length: %d\r\n" % len(SMUGGLED)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    for framing, body in ((length, SMUGGLED), (b"Transfer-Encoding: chunked\r\n", chunks)):
        head = infer(gateway, offer, framing, b"Connection: close\r\n")
        statuses, received = asked(gateway, *((head, body) if apart else (head + body,)))
        assert statuses == [400], received
        assert b"body-malformed" in received


def test_offers_in_a_row_are_each_passed_over(gateway):
    length = b"Content-Length: %d\r\n" % len(BODY)
    request = infer(gateway, H2C, length) + BODY
    last = infer(gateway, H2C, length, b"Connection: close\r\n") + BODY
    statuses, _ = asked(gateway, request * 30 + last)
    assert statuses == [200] * 31


def test_a_websocket_does_not_begin_before_what_was_asked_is_answered(gateway):
    """The answer would come within it."""
    request = infer(gateway, b"Content-Length: %d\r\n" % len(BODY)) + BODY
    websocket = (
        b"GET /v1/channel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    # By itself it is for the WebSocket protocol to answer.
    assert asked(gateway, websocket)[0] == [403]
    assert asked(gateway, request + websocket)[0] == []


def test_a_body_in_many_packets_is_not_taken_for_fields(gateway):
    """Sizes of chunks come by themselves here, many more bytes of them than a head may have."""
    chunk = b"0" * 4000 + b"1\r\n", b" \r\n"
    head = infer(gateway, b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n")
    end = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    statuses, received = asked(gateway, head, *(chunk * 20), end)
    assert statuses == [200], received


def test_an_offer_is_held_to_the_limits_of_a_head(gateway):
    fields = [b"X-%d: y\r\n" % number for number in range(125)]
    statuses, _ = asked(gateway, infer(gateway, H2C, *fields, b"Content-Length: 0\r\n"))
    assert statuses == [431]


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
@pytest.mark.parametrize(
    ("trailer", "token", "status"),
    [
        (b"Bedside-Jurisdiction: ZZ\r\n", True, 200),
        (b"Bedside-Data-Class: no such\r\n", True, 200),
        (b"Authorization: Bearer ", False, 401),
    ],
    ids=["a fact", "a wrong fact", "a token"],
)
def test_a_field_behind_the_body_says_nothing(gateway, trailer, token, status, apart):
    """A proxy has looked at the head by then (RFC 9110 section 6.5.1)."""
    if not token:
        trailer += gateway.token().encode() + b"\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"
    head, body = infer(gateway, *chunked, token=token), CHUNKS + trailer + b"\r\n"
    statuses, received = asked(gateway, *((head, body) if apart else (head + body,)))
    assert statuses == [status], received


@pytest.mark.parametrize("ends", [True, False], ids=["fields that end", "one that does not"])
def test_what_comes_behind_a_body_has_a_limit(gateway, ends):
    head = infer(gateway, b"Transfer-Encoding: chunked\r\n")
    trailer = b"X: " + b"y" * 8000 + (b"\r\n" if ends else b"")
    statuses, received = asked(gateway, head, CHUNKS, *([trailer] * 12))
    assert statuses == [431], received


@pytest.mark.parametrize("value", [b"close", b"Close", b"TE, close", b"close, TE"])
def test_a_connection_that_is_to_close_is_closed_however_it_is_asked(gateway, value):
    """The options are a list, and their case does not matter (RFC 9110 section 7.6.1)."""
    began = time.monotonic()
    request = infer(gateway, b"Content-Length: %d\r\n" % len(BODY), b"Connection: %s\r\n" % value)
    statuses, received = asked(gateway, request + BODY)
    assert statuses == [200]
    assert b"connection: close" in received
    assert time.monotonic() - began < 5


def test_the_gateway_still_serves(gateway):
    assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
