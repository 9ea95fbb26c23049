"""Promise 2: a response is sent only after its record is durable; without the log nothing is served.

Seen to fail: with `Pipeline.serve` returning before `await self._record(exchange)` the unwritable disk
goes unnoticed and the answer is sent; with the write taken out of `WriteAheadLog.begin` the killed
gateway forgets requests that it answered; with a failed sync passed over, or what was prepared sent
where the log is unavailable, a prepared answer gets out.
"""

import asyncio
import http.client
import json
import random
import resource
import socket
import threading
from urllib.parse import urlsplit

import pytest
from grpc import StatusCode
from support import GatewayProcess, call, linear_model, make_site, publish_linear, records_of
from support.grpc import Caller, row
from support.models import stepping_model
from support.obliged import served
from support.sites import ROW, free_port
from support.syncs import break_syncs

from audit import open_checkpoint
from audit.merkle import EMPTY_ROOT, Frontier, leaf_hash
from audit.records import Action, Outcome, RequestRecord
from audit.verify import read_entries
from bedside.config import EXAMPLE_ACCESS
from inference_node import NodeSettings
from inference_node.schema import message_class
from policies import Role
from secure_gateway import respond

UNLIMITED = resource.RLIM_INFINITY
# Each costs a start of the whole gateway; tests/audit/test_faults.py kills a bare writer 250 times.
KILLS = 20


def limit_files(gateway, size):
    """Make the kernel refuse writes past `size` bytes to the gateway's process, as a full disk does."""
    resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (size, UNLIMITED))


def infer(gateway, **options):
    return call("POST", gateway.infer_url, token=gateway.token(), body=ROW, **options)


def test_an_answer_is_held_back_while_the_disk_cannot_be_written(gateway):
    assert infer(gateway).status == 200
    limit_files(gateway, 0)
    for _ in range(3):
        reply = infer(gateway)
        assert reply.status == 503
        assert reply.json["type"] == "urn:bedside:problem:log-unavailable"
        assert "outputs" not in reply.json
        assert "retry-after" in reply.headers
    assert call("GET", f"{gateway.url}/v2/health/ready").status == 503
    placement = {"model": "breast-cancer"}
    reply = call("POST", f"{gateway.url}/v1/placements", token=gateway.token(), body=placement)
    assert reply.status == 503
    limit_files(gateway, UNLIMITED)
    assert infer(gateway).status == 200
    gateway.stop()
    served = [r for r in records_of(gateway.site) if r.outcome is Outcome.SERVED]
    assert len(served) == 2


async def test_an_answer_that_was_prepared_is_held_back_if_its_record_does_not_get_there(
    tmp_path, monkeypatch
):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    token = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=60)
    made = []
    http = respond.http
    monkeypatch.setattr(respond, "http", lambda answer: made.append(http(answer)) or made[-1])

    async with served(site) as url:

        async def ask():
            infer_url = f"{url}/v2/models/breast-cancer/infer"
            return await asyncio.to_thread(call, "POST", infer_url, token=token, body=ROW)

        # Records that are alike are prepared for from the second on.
        for _ in range(2):
            assert (await ask()).json["outputs"]
        made.clear()
        with monkeypatch.context() as failing:
            break_syncs(failing)
            reply = await ask()
        [(_, _, body)] = made
        assert json.loads(body)["outputs"]
        assert reply.status == 503
        assert reply.json["type"] == "urn:bedside:problem:log-unavailable"
        assert b"outputs" not in reply.body


def test_over_grpc_an_answer_is_held_back_as_well(gateway):
    with Caller(gateway.grpc_address, gateway.token()) as caller:
        assert caller.infer().code is StatusCode.OK
        limit_files(gateway, 0)
        for _ in range(3):
            answer = caller.infer()
            assert (answer.code, answer.message) == (StatusCode.UNAVAILABLE, None)
            assert answer.trailing["bedside-problem"] == "log-unavailable"
            assert answer.trailing["retry-after"] == "5"
        (response,) = caller.stream([row(id="s")])
        assert "audit log" in response.error_message
        assert not response.infer_response.outputs
        assert not caller.call("ServerReady").message.ready
        limit_files(gateway, UNLIMITED)
        answers = [caller.infer() for _ in range(3)]
        (response,) = caller.stream([row(id="s")])
        assert response.infer_response.outputs
    gateway.stop()
    records = records_of(gateway.site)
    served = [r.action for r in records if r.outcome is Outcome.SERVED]
    assert served == [Action.INFER] * 4 + [Action.STREAM, Action.STREAM_END]
    for answer in answers:
        assert records[int(answer.trailing["bedside-record"].partition("#")[2])].status == 200


@pytest.fixture
def managed(tmp_path):
    """A gateway whose models an operator loads, one of them of many responses."""
    repository = tmp_path / "repository"
    linear_model(repository / "breast-cancer/1/model.onnx")
    stepping_model(repository, steps=STEPS)
    site = make_site(
        tmp_path,
        gateway={"grpc_port": free_port()},
        node=NodeSettings(repository=repository),
        models=dict.fromkeys(("breast-cancer", "halving"), EXAMPLE_ACCESS),
    )
    with GatewayProcess(site, tmp_path) as running:
        yield running


# More than what the sockets between them hold: nobody has sent the end before the first was read.
STEPS = 60_000

REPOSITORY = {
    ("POST", "/v2/repository/index"): Action.INDEX,
    ("GET", "/v2/models/breast-cancer"): Action.MODELS,
    ("GET", "/v2/models/breast-cancer/ready"): Action.MODELS,
    ("GET", "/v2/models/breast-cancer/config"): Action.MODELS,
    ("GET", "/v2/models/stats"): Action.STATISTICS,
    ("POST", "/v2/repository/models/breast-cancer/unload"): Action.UNLOAD,
    ("POST", "/v2/repository/models/breast-cancer/load"): Action.LOAD,
}
METHODS = {
    "RepositoryIndex": ({}, Action.INDEX),
    "ModelMetadata": ({"name": "breast-cancer"}, Action.MODELS),
    "ModelReady": ({"name": "breast-cancer"}, Action.MODELS),
    "ModelConfig": ({"name": "breast-cancer"}, Action.MODELS),
    "ModelStatistics": ({}, Action.STATISTICS),
    "RepositoryModelUnload": ({"model_name": "breast-cancer"}, Action.UNLOAD),
    "RepositoryModelLoad": ({"model_name": "breast-cancer"}, Action.LOAD),
}


def test_repository_calls_are_answered_once_recorded_and_not_without(managed):
    token = managed.token("it.ward", Role.OPERATOR)
    answered = []
    with Caller(managed.grpc_address, token) as caller:
        for (method, path), action in REPOSITORY.items():
            reply = call(method, managed.url + path, token=token)
            assert reply.status == 200, (path, reply.body)
            answered.append((reply.headers["bedside-record"], action))
        for method, (fields, action) in METHODS.items():
            answer = caller.call(method, message_class(f"{method}Request")(**fields))
            assert answer.code is StatusCode.OK, (method, answer.details)
            answered.append((answer.trailing["bedside-record"], action))
        # Not even the last of them was answered before it was on the disk.
        managed.kill()
    managed.start()
    limit_files(managed, 0)
    for method, path in REPOSITORY:
        reply = call(method, managed.url + path, token=token)
        assert (reply.status, reply.json["type"]) == (503, "urn:bedside:problem:log-unavailable")
        assert "bedside-record" not in reply.headers
    with Caller(managed.grpc_address, token) as caller:
        for method, (fields, _) in METHODS.items():
            answer = caller.call(method, message_class(f"{method}Request")(**fields))
            assert (answer.code, answer.message) == (StatusCode.UNAVAILABLE, None), method
            assert answer.trailing["bedside-problem"] == "log-unavailable"
    limit_files(managed, UNLIMITED)
    managed.stop()
    records = records_of(managed.site)
    for record, action in answered:
        recorded = records[int(record.partition("#")[2])]
        assert (recorded.action, recorded.status) == (action, 200)


def stream(gateway):
    """Open a stream of events that is read as slowly as the caller likes; give its status and lines."""
    url = urlsplit(f"{gateway.url}/v2/models/halving/infer_stream")
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.request(
        "POST", url.path, json.dumps(ROW), {"Authorization": f"Bearer {gateway.token()}"}
    )
    reply = connection.getresponse()
    return connection, reply


def test_a_stream_begins_and_ends_with_its_records_and_not_without(managed):
    limit_files(managed, 0)
    connection, reply = stream(managed)
    assert reply.status == 503
    assert b"outputs" not in reply.read()
    connection.close()
    limit_files(managed, UNLIMITED)

    connection, reply = stream(managed)
    assert (reply.status, reply.readline()[:5]) == (200, b"data:")
    limit_files(managed, 0)
    rest = reply.read()
    connection.close()
    assert b"event: end" not in rest
    assert b"log-unavailable" in rest.rpartition(b"event: ")[2]
    limit_files(managed, UNLIMITED)

    connection, reply = stream(managed)
    first = reply.readline()
    opening = json.loads(first.removeprefix(b"data: "))["parameters"]["bedside_record"]
    *_, end = reply.read().split(b"\n\n")[:-1]
    # Told of the end, it is on the disk.
    managed.kill()
    connection.close()
    told = json.loads(end.partition(b"data: ")[2])
    managed.start()
    managed.stop()
    records = records_of(managed.site)
    opened, ended = (records[int(name.partition("#")[2])] for name in (opening, told["record"]))
    assert (opened.action, ended.action, opened.id) == (Action.STREAM, Action.STREAM_END, ended.id)
    assert ended.responses == told["responses"] == STEPS


def test_every_answer_names_its_record(gateway):
    replies = [infer(gateway) for _ in range(5)]
    gateway.stop()
    records = records_of(gateway.site)
    for reply in replies:
        origin, _, index = reply.headers["bedside-record"].partition("#")
        assert origin == "clinic/gateway-1"
        assert isinstance(records[int(index)], RequestRecord)


def test_killing_the_gateway_under_load_loses_no_record_of_an_answered_request(gateway):
    answered: set[str] = set()
    stop = threading.Event()

    def load():
        while not stop.is_set():
            try:
                reply = infer(gateway)
            except (OSError, http.client.HTTPException):
                # The kill may come in the middle of an answer.
                return
            if reply.status == 200:
                answered.add(reply.headers["bedside-record"])

    seen, signed = 0, []
    moments = random.Random(164)
    for _ in range(KILLS):
        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        enough, more = threading.Event(), moments.randrange(1, 60)
        while len(answered) < seen + more:
            enough.wait(0.01)
        signed.append(call("GET", f"{gateway.url}/checkpoint").body)
        gateway.kill()
        # What was published is what anybody may have seen, whether asked for or not.
        signed.append((gateway.site.log_folder("gateway-1") / "checkpoint").read_bytes())
        stop.set()
        for thread in threads:
            thread.join()
        stop.clear()
        seen = len(answered)
        gateway.start()
    gateway.stop()
    records = records_of(gateway.site)
    indices = {int(record.partition("#")[2]) for record in answered}
    assert len(indices) == len(answered)
    for index in indices:
        record = records[index]
        assert isinstance(record, RequestRecord)
        assert record.outcome is Outcome.SERVED
    # Every checkpoint that anybody saw is of a beginning of the log as it is.
    folder, verifier = gateway.site.log_folder("gateway-1"), gateway.site.log_verifier("gateway-1")
    roots, frontier = [EMPTY_ROOT], Frontier()
    for leaf in read_entries(folder, len(records)):
        frontier.append(leaf_hash(leaf))
        roots.append(frontier.root())
    for note in signed:
        checkpoint = open_checkpoint(note, [verifier])
        assert checkpoint.root == roots[checkpoint.size]
