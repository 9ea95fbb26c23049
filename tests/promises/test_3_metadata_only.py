"""Promise 3: no input, output or identifier of a person is written anywhere.

Seen to fail: with `detail=str(body)` in a problem document's record, `principal=...` taken from the
unverified token, `model=call.model` in `record_of`, or `logger.error(..., error)` in the pipeline, the
search finds the canary; the last test shows that it finds a leak planted on purpose.
"""

import base64
import gzip
import itertools
import json
import secrets

import numpy as np
import pytest
from support import call
from support.sites import ROW

from bedside.demo.canaries import Canaries, written_files
from policies import Role


class Planter:
    """Makes canaries, each used once, and remembers them."""

    def __init__(self) -> None:
        self.canaries = Canaries()

    def text(self) -> str:
        word = f"canary-{secrets.token_hex(8)}"
        self.canaries.add_text(word)
        return word

    def row(self) -> dict:
        values = np.random.default_rng().normal(size=3).astype(np.float32)
        self.canaries.add_values(values)
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": values.tolist()}
        return {"inputs": [tensor]}

    def binary_row(self) -> tuple[bytes, int]:
        values = np.random.default_rng().normal(size=3).astype("<f4")
        self.canaries.add_values(values)
        parameters = {"binary_data_size": 12}
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": parameters}
        head = json.dumps({"inputs": [tensor]}).encode()
        return head + values.tobytes(), len(head)


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
    yield infer, {"Content-Encoding": "gzip"}, gzip.compress(json.dumps(row()).encode())
    for path in ("placements", "receipts"):
        url = f"{gateway.url}/v1/{path}"
        yield url, {}, word().encode()
        yield url, {}, json.dumps({"model": word(), "subject": word()}).encode()
        yield url, {}, json.dumps({"model": [word()], word(): word()}).encode()
        yield url, {}, json.dumps({"id": word(), "token": word()}).encode()


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
    assert not list(plant.canaries.matches(b"\n".join(replies)))
    if crash:
        gateway.kill()
    else:
        gateway.stop()
    files = written_files(tmp_path)
    assert any(path.suffix == ".wal" for path in files)
    assert gateway.log in files
    assert list(plant.canaries.search(files)) == []


def test_the_search_finds_leaks_in_every_encoding(tmp_path):
    plant = Planter()
    word = plant.text()
    values = np.array([0.12345678, 1326.4837], np.float32)
    plant.canaries.add_values(values)
    leaks = {
        "raw": word.encode(),
        "base64": base64.b64encode(b"ab" + word.encode()),
        "hex": word.encode().hex().encode(),
        "gzip": gzip.compress(b"log: " + word.encode()),
        "floats": values.tobytes(),
        "float64 text": repr(float(values[1])).encode(),
        "json": json.dumps(values.tolist()).encode(),
    }
    for name, leak in leaks.items():
        path = tmp_path / "some.log"
        path.write_bytes(b"before " + leak + b" after")
        assert list(plant.canaries.search([path])), name
    path.write_bytes(b"nothing to see here 0.5 1.0 1326")
    assert not list(plant.canaries.search([path]))


def test_unverified_callers_are_recorded_without_a_name(gateway):
    from support import records_of

    call("POST", gateway.infer_url, token="forged.by.someone", body=ROW)
    gateway.stop()
    (record,) = records_of(gateway.site)
    assert record.principal is None
    assert record.model is None
    assert record.status == 401
