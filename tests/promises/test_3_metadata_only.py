"""Promise 3: no input, output or identifier of a person is written anywhere.

Seen to fail: with `detail=str(body)` in a problem document's record, `principal=...` taken from the
unverified token, `model=call.model` in `record_of`, or `logger.error(..., error)` in the pipeline, the
search finds the canary; the last test shows that it finds a leak planted on purpose.
"""

import base64
import contextlib
import gzip
import io
import itertools
import json
import os
import socket
import time
import zipfile
import zlib

import numpy as np
import pytest
from grpc import RpcError, StatusCode
from support import call, records_of, siem
from support.canaries import Planter
from support.grpc import Caller
from support.grpc import row as grpc_row
from support.http2 import exchange, headers_of
from support.nodes import NodeProcess
from support.officers import ConsoleProcess, fill, hospital
from support.raw import read_to_end
from support.sites import ROW

from audit.export import ExportSettings
from bedside.children import Child, bedside_command
from bedside.demo.canaries import written_files
from bedside.up import environment_of
from inference_node.schema import message_class
from policies import Role

LISTENER_S = 20


def well_formed(gateway, plant):
    """Requests that are served, with a canary wherever a caller can put one."""
    for _ in range(40):
        headers = {
            "Bedside-Subject": plant.text(),
            "X-Patient-Name": plant.text(),
            "User-Agent": plant.text(),
            "Referer": f"https://{plant.text()}/",
        }
        body = {
            **plant.row(),
            "id": plant.text(),
            "parameters": {plant.text(): plant.text()},
        }
        url = f"{gateway.infer_url}?patient={plant.text()}"
        reply = call("POST", url, token=gateway.token(), headers=headers, body=body)
        assert reply.status == 200
        plant.canaries.add_values(np.array(reply.json["outputs"][0]["data"], np.float32))
        raw, length = plant.binary_row()
        binary = {**headers, "Inference-Header-Content-Length": str(length)}
        assert call("POST", url, token=gateway.token(), headers=binary, body=raw).status == 200
    for _ in range(3):
        url, headers = gateway.infer_url, {"Bedside-Subject": plant.text()}
        zipped = gzip.compress(json.dumps(plant.row()).encode())
        coded = {**headers, "Content-Encoding": "gzip", "Accept-Encoding": "deflate"}
        assert call("POST", url, token=gateway.token(), headers=coded, body=zipped).status == 200
        stream = f"{gateway.infer_url}_stream?patient={plant.text()}"
        body = {**plant.row(), "id": plant.text(), "parameters": {plant.text(): plant.text()}}
        reply = call("POST", stream, token=gateway.token(), headers=headers, body=body)
        assert reply.headers["content-type"] == "text/event-stream"
        (first, *_) = reply.body.split(b"\n\n")
        given = json.loads(first.removeprefix(b"data: "))["outputs"][0]["data"]
        plant.canaries.add_values(np.array(given, np.float32))
    for _ in range(5):
        consents(gateway, plant)


def consents(gateway, plant):
    """A consent that is given, used, shown and withdrawn."""
    url, subject = f"{gateway.url}/v1/consents", plant.text()
    named = {"Bedside-Subject": subject, "User-Agent": plant.text()}
    given = {"subject": subject, "purposes": ["HRESCH"], "expires": "2035-01-01T00:00:00Z"}
    assert call("POST", url, token=gateway.token(), headers=named, body=given).status == 201
    asked = {**named, "Bedside-Purpose": "HRESCH"}
    researcher = gateway.token("r.curie", Role.RESEARCHER)
    answer = call("POST", gateway.infer_url, token=researcher, headers=asked, body=plant.row())
    assert answer.status == 200
    plant.canaries.add_values(np.array(answer.json["outputs"][0]["data"], np.float32))
    shown = call("GET", f"{url}?subject={plant.text()}", token=gateway.token(), headers=named)
    assert shown.json["consents"][0]["state"] == "in-force"
    assert not list(plant.canaries.matches(shown.body))
    assert call("DELETE", url, token=gateway.token(), body={"subject": subject}).status == 200


def malformed(gateway, plant):
    """Requests that fail in every way we know, each with canaries in what is wrong about it."""
    word = plant.text
    row = plant.row
    infer = gateway.infer_url
    models = f"{gateway.url}/v2/models"
    yield infer, {}, word().encode()
    yield infer, {}, json.dumps({"inputs": word()}).encode()
    yield infer, {}, json.dumps({"inputs": [{**row()["inputs"][0], "name": word()}]}).encode()
    yield infer, {}, json.dumps({"inputs": [{**row()["inputs"][0], "datatype": word()}]}).encode()
    yield infer, {}, json.dumps({"inputs": [{**row()["inputs"][0], "shape": [1, 2]}]}).encode()
    yield infer, {}, json.dumps({"inputs": [{**row()["inputs"][0], "data": [word()] * 3}]}).encode()
    yield infer, {}, json.dumps({**row(), "outputs": [{"name": word()}]}).encode()
    for name in ("quantiles", "intervals", "moments"):
        yield infer, {}, json.dumps({**row(), "parameters": {name: word()}}).encode()
    yield f"{models}/{word()}/infer", {}, json.dumps(row()).encode()
    yield f"{models}/breast-cancer/versions/{word()}/infer", {}, json.dumps(row()).encode()
    yield f"{models}/../{word()}", {}, json.dumps(row()).encode()
    yield f"{gateway.url}/{word()}", {}, json.dumps(row()).encode()
    yield f"{gateway.url}/v1/{word()}", {}, json.dumps(row()).encode()
    yield f"{gateway.url}/tile/{word()}", {}, b""
    for name in ("Data-Class", "Jurisdiction", "Purpose", "Consent", "Emergency"):
        yield infer, {f"Bedside-{name}": word()}, json.dumps(row()).encode()
    yield infer, {"Bedside-Subject": word() * 30}, json.dumps(row()).encode()
    yield infer, {"Inference-Header-Content-Length": word()}, json.dumps(row()).encode()
    zipped = gzip.compress(json.dumps(row()).encode())
    yield infer, {"Content-Encoding": "br"}, zipped
    yield infer, {"Content-Encoding": word()}, zipped
    yield infer, {"Content-Encoding": "gzip"}, zipped[:-9]
    yield infer, {"Content-Encoding": "deflate"}, word().encode()
    yield infer, {"Content-Encoding": "gzip"}, gzip.compress(word().encode())
    yield infer, {"Bedside-Timeout": word()}, json.dumps(row()).encode()
    yield f"{infer}_stream", {}, word().encode()
    yield f"{infer}_stream", {}, json.dumps({**row(), "outputs": [{"name": word()}]}).encode()
    yield f"{models}/{word()}/infer_stream", {}, json.dumps(row()).encode()
    yield f"{models}/{word()}/config", {}, b""
    yield f"{models}/{word()}/stats", {}, b""
    repository = f"{gateway.url}/v2/repository"
    yield f"{repository}/index", {}, word().encode()
    yield (
        f"{repository}/models/{word()}/load",
        {},
        json.dumps({"parameters": {"config": word()}}).encode(),
    )
    yield f"{repository}/models/{word()}/load", {}, b"{}"
    yield f"{repository}/models/{word()}/unload", {}, b"{}"
    for fields in ({}, {"purposes": [word()]}, {"models": [word()]}, {"expires": word()}, {word(): 1}):
        good = {"subject": word(), "purposes": ["TREAT"], "expires": "2035-01-01T00:00:00Z"}
        body = json.dumps({**good, **fields}).encode()
        yield f"{gateway.url}/v1/consents/{word()}", {}, body
        if fields:
            yield f"{gateway.url}/v1/consents?subject={word()}", {}, body
    for path in ("placements", "receipts", "consents"):
        url = f"{gateway.url}/v1/{path}"
        yield url, {}, word().encode()
        yield url, {}, json.dumps({"model": word(), "subject": word()}).encode()
        yield url, {}, json.dumps({"model": [word()], word(): word()}).encode()
        yield url, {}, json.dumps({"id": word(), "token": word()}).encode()


def well_formed_grpc(gateway, plant):
    """The same over gRPC: typed and raw contents, calls and streams."""
    random = np.random.default_rng()
    with Caller(gateway.grpc_address, gateway.token()) as caller:
        for _ in range(20):
            metadata = [("bedside-subject", plant.text()), ("x-patient-name", plant.text())]
            values = random.normal(size=3).astype(np.float32)
            plant.canaries.add_values(values)
            request = grpc_row(values, id=plant.text())
            request.parameters[plant.text()].string_param = plant.text()
            answer = caller.infer(request, metadata).message
            plant.canaries.add_values(np.frombuffer(answer.raw_output_contents[0], np.float32))
            del request.raw_input_contents[:]
            request.inputs[0].contents.fp32_contents.extend(values.tolist())
            (streamed,) = caller.stream([request], metadata)
            plant.canaries.add_values(
                np.array(streamed.infer_response.outputs[0].contents.fp32_contents)
            )


def malformed_grpc(gateway, plant, token):
    """Calls that fail, with canaries in what is wrong about them; what comes back in each case."""
    word = plant.text
    with Caller(gateway.grpc_address, token) as caller:
        requests = [
            word().encode(),
            grpc_row(model=word()),
            grpc_row(model_version=word()),
            *(grpc_row() for _ in range(4)),
        ]
        requests[3].inputs[0].name = word()
        requests[4].inputs[0].datatype = word()
        requests[5].outputs.add(name=word())
        requests[6].raw_input_contents[0] = word().encode()
        for request in requests:
            yield caller.infer(request)
        for name in ("data-class", "jurisdiction", "purpose", "consent", "emergency"):
            yield caller.infer(metadata=[(f"bedside-{name}", word())])
        yield caller.infer(metadata=[("bedside-subject", word() * 30)])
        yield caller.call(f"/{word()}/{word()}", b"")
        yield caller.call("LogSettings", word().encode())
        yield caller.call("ModelMetadata", message_class("ModelMetadataRequest")(name=word()))
        unload = message_class("RepositoryModelUnloadRequest")(model_name=word())
        yield caller.call("RepositoryModelUnload", unload)
        try:
            yield from caller.stream(requests)
        except RpcError as error:
            yield error.details()
    for path, name in ((b"/x", b"bedside-subject"), (b"/\xff" + word().encode(), b"x")):
        try:
            headers = headers_of(path, (name, b"\xff" + word().encode()))
            exchange(gateway.grpc_address, headers, word().encode())
        except OSError as error:
            # A connection to a listener that breaks off just then.
            yield str(error)


def tokens(gateway, plant):
    claims = json.dumps({"sub": plant.text(), "roles": ["clinician"]}).encode()
    fake = b".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"EdDSA"}', claims, b"x")
    )
    yield gateway.token()
    yield gateway.token("b.keller", Role.BILLING)
    yield plant.text()
    yield fake.decode()
    yield None


def test_over_grpc_nothing_is_found_in_anything_written(gateway, tmp_path):
    plant = Planter()
    well_formed_grpc(gateway, plant)
    answers = []
    for token in tokens(gateway, plant):
        answers += [str(answer) for answer in malformed_grpc(gateway, plant, token)]
    assert len(answers) > 80
    assert not [answer for answer in answers if "INTERNAL" in answer or "UNKNOWN" in answer]
    assert not list(plant.canaries.matches("\n".join(answers).encode()))
    # A method whose name is no text ends its listener: a connection that was being made to that one is
    # lost, and the next is served by the one that took its place, once it is there.
    until = time.monotonic() + LISTENER_S
    while time.monotonic() < until:
        with Caller(gateway.grpc_address, gateway.token()) as caller:
            last = caller.infer()
        if last.code is not StatusCode.UNAVAILABLE:
            break
    assert last.message is not None, last
    gateway.stop()
    files = written_files(tmp_path)
    assert gateway.log in files
    assert list(plant.canaries.search(files)) == []


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
def test_nothing_that_was_sent_or_answered_is_found_in_anything_written(gateway, tmp_path, crash):
    plant = Planter()
    well_formed(gateway, plant)
    asked = 0
    replies = []
    for url, headers, body in malformed(gateway, plant):
        for token, method in itertools.product(tokens(gateway, plant), ("POST", "PUT")):
            reply = call(method, url, token=token, headers=headers, body=body)
            assert 400 <= reply.status < 500, (url, reply.status, reply.body)
            replies.append(reply.body)
            asked += 1
    assert asked > 200
    metrics = call("GET", f"{gateway.url}/metrics", token=gateway.token("ops", Role.OPERATOR))
    assert metrics.status == 200
    replies.append(metrics.body)
    assert not list(plant.canaries.matches(b"\n".join(replies)))
    if crash:
        gateway.kill()
    else:
        gateway.stop()
    files = written_files(tmp_path)
    assert any(path.suffix == ".wal" for path in files)
    assert gateway.log in files
    assert list(plant.canaries.search(files)) == []


def broken(token, word):
    """What is no request, no WebSocket or none that is served, with canaries in it."""
    head = b"POST /v2/models/breast-cancer/infer HTTP/1.1\r\nHost: x\r\nX-Patient: %s\r\n" % word()
    known = b"Authorization: Bearer %s\r\n" % token.encode()
    yield word() + b"\r\n\r\n"
    yield b"GET /%s\xff HTTP/1.1\r\nHost: x\r\n\r\n" % word()
    yield head + b"X Y: %s\r\n\r\n" % word()
    yield head + b"Content-Length: %s\r\n\r\n" % word()
    yield head + b"Transfer-Encoding: %s\r\n\r\n" % word()
    yield head + known + b"Transfer-Encoding: chunked\r\n\r\n%s\r\n" % word()
    yield head + b"Y: %s\r\n\r\n" % (word() * 4000)
    yield head + known + b'Content-Length: 1000\r\n\r\n{"inputs": "%s' % word()
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    for path in (b"/v1/channel?patient=%s" % word(), b"/%s" % word()):
        for field in (known, b"Authorization: Bearer %s\r\n" % word(), b""):
            asked = b"GET %s HTTP/1.1\r\nHost: x\r\nOrigin: %s\r\n" % (path, word())
            yield asked + field + upgrade + key + b"\r\n"
    yield (
        b"GET /v1/channel HTTP/1.1\r\nHost: x\r\n" + upgrade + b"Sec-WebSocket-Key: %s\r\n\r\n" % word()
    )
    for path in (
        b"/metrics",
        b"/openapi.json",
        b"/v1/work/%s" % word(),
        b"/v1/work/%s/result" % word(),
    ):
        for method in (b"GET", b"DELETE", b"BREW"):
            yield b"%s %s?x=%s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (method, path, word(), known)


def test_what_is_no_request_leaves_nothing_behind_either(gateway, tmp_path):
    """On the gateway's socket and on a node's own: neither writes down what it could not read."""
    plant = Planter()

    def word():
        return plant.text().encode()

    with NodeProcess(gateway.site, tmp_path, "node") as node:
        for port in (gateway.site.config.gateway.port, int(node.where.rpartition(":")[2])):
            replies = []
            for data in broken(gateway.token(), word):
                with (
                    socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
                    contextlib.suppress(ConnectionResetError, BrokenPipeError),
                ):
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    replies.append(read_to_end(connection))
            assert len(replies) > 15
            assert not list(plant.canaries.matches(b"\n".join(replies)))
            for url, headers, body in malformed(gateway, plant):
                there = url.replace(gateway.url, f"http://127.0.0.1:{port}")
                call("POST", there, token=gateway.token(), headers=headers, body=body)
    gateway.stop()
    files = written_files(tmp_path)
    assert {gateway.log, tmp_path / "node.log"} <= set(files)
    assert list(plant.canaries.search(files)) == []


def test_nothing_that_was_sent_leaves_for_a_siem(gateway, tmp_path):
    plant = Planter()
    well_formed(gateway, plant)
    for url, headers, body in malformed(gateway, plant):
        call("POST", url, token=gateway.token(), headers=headers, body=body)
    gateway.stop()
    made = len(records_of(gateway.site))
    with siem.SyslogReceiver() as syslog, siem.OtlpReceiver() as otlp:
        export = ExportSettings(syslog={"address": syslog.address}, otlp={"url": otlp.url})
        child = Child(
            "export",
            bedside_command("audit", "export"),
            log=tmp_path / "export.log",
            environment=environment_of(gateway.site.config.model_copy(update={"export": export})),
        )
        for receiver in (syslog, otlp):
            receiver.taken.until(lambda messages: len(messages) == made)
        child.stop()
    sent = [b"".join(receiver.taken.raw) for receiver in (syslog, otlp)]
    for bytes_ in sent:
        assert b"dr.adams" in bytes_
        assert not list(plant.canaries.matches(bytes_))
    assert list(plant.canaries.search(written_files(tmp_path))) == []


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
def test_nothing_typed_into_the_console_is_found_in_anything_written(tmp_path, crash):
    plant = Planter()
    word = plant.text
    site = hospital(tmp_path, account_failures=100, address_failures=100)
    fill(site, 20)
    with ConsoleProcess(site, tmp_path) as console:
        visitor = console.visitor()
        answers = [visitor.sign_in(word(), word(), next=word()) for _ in range(3)]
        answers.append(visitor.sign_in("c.officer", word(), **{word(): word()}))
        officer = console.officer()
        officer.http.headers.update({"User-Agent": word(), "Referer": f"http://{word()}/"})
        person = plant.text()
        found = officer.post("/search/person", identifier=person)
        assert found.status_code == 303
        answers += [found, officer.get(found.headers["location"])]
        assert officer.post("/reports", kind="subject", identifier=person).status_code == 303
        for name in ("principal", "model", "placement", "subject", "jurisdiction", "since", "after"):
            answers.append(officer.get(f"/search?{name}={word()}"))
            answers.append(officer.post("/views", **{name: word(), word(): word()}))
        for path in ("/search/person", "/reports", "/emergencies", "/policy/diff", "/account"):
            fields = ("kind", "record", "verdict", "before", "after", "old", "new", "identifier")
            typed = {name: word() * 30 for name in fields}
            answers.append(officer.post(path, **typed))
            answers.append(officer.submit(path, {"form_key": word()}))
            answers.append(officer.http.post(path, content=word(), headers={"Origin": word()}))
        for path in ("/{}", "/records/{}/0", "/subjects/{}", "/reports/{}/zip", "/static/{}"):
            answers.append(officer.get(path.format(word())))
        officer.http.cookies.set("bedside-console", word(), domain="127.0.0.1")
        answers.append(officer.get("/"))
        assert not any(answer.status_code >= 500 for answer in answers)
        # A search's own form shows what is looked for in it, and its part links to the next page.
        kept = [answer for answer in answers if answer.status_code != 200]
        assert len(kept) > 20
        shown = b"".join(answer.content + str(answer.headers).encode() for answer in kept)
        assert not list(plant.canaries.matches(shown))
        if crash:
            console.kill()
    files = written_files(tmp_path)
    assert {console.log, site.data / "console" / "console.sqlite"} <= set(files)
    assert list(plant.canaries.search(files)) == []


def leaks(word, values):
    """The ways in which a text or values could stand in what is written."""
    base64s = {f"base64 at {n}": base64.b64encode(b"abc"[:n] + word + b"xyz") for n in range(3)}
    numbers = {
        f"float text {form}": form.format(float(values[0])).encode()
        for form in ("{!r}", "{:.1f}", "{:.3f}", "{:.6f}", "{:.6e}", "{:.8E}", "{:.7g}", "{:+.2f}")
    }
    raw = {
        f"bytes {form}": values[1:].astype(form).tobytes()
        for form in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8")
    }
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.json", b"log: " + word)
    return {
        "raw": word,
        **base64s,
        "base64 for addresses": base64.urlsafe_b64encode(b"\xfb\xff" + word + b"\xfb\xff"),
        "hex": word.hex().encode(),
        "HEX": word.hex().upper().encode(),
        "gzip": gzip.compress(b"log: " + word),
        "zlib": zlib.compress(b"log: " + word),
        "zip": zipped.getvalue(),
        "gzip twice": gzip.compress(gzip.compress(b"log: " + word)),
        "gzip, cut off": gzip.compress(b"log: " + word + os.urandom(9000))[:-5000],
        "gzip of base64": gzip.compress(base64.b64encode(word)),
        "base64 of bytes": base64.b64encode(np.asarray(values, "<f4").tobytes()),
        "json": json.dumps(values.tolist()).encode(),
        **numbers,
        **raw,
    }


def test_the_search_finds_leaks_in_every_encoding(tmp_path):
    plant = Planter()
    word = plant.text().encode()
    values = np.array([482193.72, 0.12345678, 1326.4837, -2.7182817, 31.415926], np.float32)
    plant.canaries.add_values(values)
    found = leaks(word, values)
    assert len(found) > 25
    path = tmp_path / "some.log"
    for name, leak in found.items():
        path.write_bytes(os.urandom(50) + bytes(100) + leak + b" after")
        assert list(plant.canaries.search([path])), name
    path.write_bytes(b"nothing to see here 0.5 1.0 1326 " + os.urandom(1 << 20))
    assert not list(plant.canaries.search([path]))


def test_unverified_callers_are_recorded_without_a_name(gateway):
    call("POST", gateway.infer_url, token="forged.by.someone", body=ROW)
    gateway.stop()
    (record,) = records_of(gateway.site)
    assert record.principal is None
    assert record.model is None
    assert record.status == 401
