"""Several nodes behind one gateway: what is chosen, what is tried again, what a killed node costs."""

import collections
import http.server
import json
import signal
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from grpc import StatusCode
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.crowd import CALLERS, Crowd
from support.grpc import Caller, row
from support.nodes import NodeProcess
from support.sites import ROW, free_port
from support.stub_nodes import hangs, says, stub_node

from audit.records import Outcome, Problem
from policies import Role
from secure_gateway import NodeEntry
from secure_gateway.health import FAILURES_MAX, NodeHealth


@contextmanager
def two_nodes(tmp_path):
    with ExitStack() as stack:
        site = make_site(tmp_path)
        publish_linear(site, tmp_path)
        nodes = [stack.enter_context(NodeProcess(site, tmp_path, name)) for name in ("one", "two")]
        entries = [NodeEntry(id=node.name, jurisdiction="US-CA", url=node.url) for node in nodes]
        site = make_site(tmp_path, gateway={"nodes": entries})
        gateway = stack.enter_context(GatewayProcess(site, tmp_path))
        yield gateway, *nodes


def served_by(records):
    return collections.Counter(r.placement for r in records if r.outcome is Outcome.SERVED)


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_node_that_goes_away_under_load_fails_no_request(tmp_path, how):
    with two_nodes(tmp_path) as (gateway, one, two):
        with Crowd(gateway.infer_url, gateway.token(), ROW) as load:
            load.wait_for(200)
            if how == "kill":
                one.kill()
            else:
                one.signal(signal.SIGTERM)
            load.wait_for(400)
            one.stop()
            one.start()
            load.wait_for(100)
            time.sleep(1.5)
            two.kill()
            load.wait_for(200)
        assert set(load.statuses) == {200}, load.problems
        gateway.stop()
        records = records_of(gateway.site)
    assert len(records) == sum(load.statuses.values())
    shares = served_by(records)
    assert set(shares) == {"node:one", "node:two"}
    tried_again = [record for record in records if record.attempted]
    # The record names every place that the request went to, not only the last.
    assert all(record.placement not in record.attempted for record in tried_again)
    assert len(tried_again) <= 6 * CALLERS


def test_equal_nodes_take_turns(tmp_path):
    with two_nodes(tmp_path) as (gateway, *_):
        for _ in range(10):
            assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
        gateway.stop()
        assert served_by(records_of(gateway.site)) == {"node:one": 5, "node:two": 5}


def test_nobody_left_is_said_so_and_recorded(tmp_path):
    with two_nodes(tmp_path) as (gateway, one, two):
        one.kill()
        two.kill()
        reply = call("POST", gateway.infer_url, token=gateway.token(), body=ROW)
        assert reply.status == 503
        assert reply.json["type"] == "urn:bedside:problem:node-unreachable"
        assert int(reply.headers["retry-after"]) > 0
        gateway.stop()
        assert records_of(gateway.site)[-1].problem is Problem.NODE_UNREACHABLE


class _Breaking(http.server.BaseHTTPRequestHandler):
    """An Open Inference Protocol server that answers probes and breaks off at work."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._reply(
            {
                "name": "breast-cancer",
                "versions": ["1"],
                "platform": "none",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
            }
        )

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/infer"):
            self.server.asked += 1
            self.close_connection = True
            return
        self._reply([{"name": "breast-cancer", "version": "1", "state": "READY", **self.server.entry}])

    def _reply(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def breaking_server(**entry):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Breaking)
    server.asked, server.entry = 0, entry
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def beside_a_breaking_server(tmp_path, server):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    url = f"http://127.0.0.1:{server.server_port}"
    entries = [
        NodeEntry(id="breaking", jurisdiction="US-CA", url=url),
        NodeEntry(id="sound", jurisdiction="US-CA"),
    ]
    return GatewayProcess(make_site(tmp_path, gateway={"nodes": entries}), tmp_path)


def test_a_node_that_answers_probes_and_breaks_at_work_is_left_alone(tmp_path):
    # It names a digest, as our own nodes do, so its runs leave nothing behind and may be repeated.
    with (
        breaking_server(digest="0" * 64) as server,
        beside_a_breaking_server(tmp_path, server) as gateway,
    ):
        for _ in range(20):
            assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
        assert FAILURES_MAX <= server.asked <= FAILURES_MAX + 1
        gateway.stop()
        records = records_of(gateway.site)
    assert served_by(records) == {"node:sound": 20}
    assert sum(record.attempted == ("node:breaking",) for record in records) == server.asked


def test_a_request_that_brings_nodes_down_does_not_go_round_all_of_them(tmp_path):
    with ExitStack() as stack:
        servers = [stack.enter_context(breaking_server(digest="0" * 64)) for _ in range(4)]
        entries = [
            NodeEntry(id=f"n{number}", jurisdiction="US-CA", url=f"http://127.0.0.1:{s.server_port}")
            for number, s in enumerate(servers)
        ]
        site = make_site(tmp_path, gateway={"nodes": entries})
        gateway = stack.enter_context(GatewayProcess(site, tmp_path))
        reply = call("POST", gateway.infer_url, token=gateway.token(), body=ROW)
        assert (reply.status, reply.json["type"]) == (502, "urn:bedside:problem:execution-failed")
        assert sum(server.asked for server in servers) == 2


def test_what_a_foreign_server_may_have_begun_is_not_run_again(tmp_path):
    with breaking_server() as server, beside_a_breaking_server(tmp_path, server) as gateway:
        replies = [call("POST", gateway.infer_url, token=gateway.token(), body=ROW) for _ in range(4)]
        gateway.stop()
        records = records_of(gateway.site)
    failed = [reply.json["type"] for reply in replies if reply.status != 200]
    assert failed == ["urn:bedside:problem:execution-failed"] * server.asked
    assert server.asked == 2
    assert not any(record.attempted for record in records)


def beside_a_sound_node(tmp_path, *nodes, **settings):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    entries = [node.entry(f"n{number}") for number, node in enumerate(nodes)]
    entries.append(NodeEntry(id="sound", jurisdiction="US-CA"))
    return GatewayProcess(make_site(tmp_path, gateway={"nodes": entries, **settings}), tmp_path)


def statuses(gateway, count, url=None, **headers):
    url, token = url or gateway.infer_url, gateway.token()
    return [call("POST", url, token=token, body=ROW, headers=headers).status for _ in range(count)]


AWAY = {"Location": "http://127.0.0.1:9/v2/models/breast-cancer/infer"}


@pytest.mark.parametrize("answer", [says(500), says(502), says(307, **AWAY)])
def test_a_foreign_node_that_answers_nothing_but_errors_is_left_alone(tmp_path, answer):
    with stub_node(answer, None) as node, beside_a_sound_node(tmp_path, node) as gateway:
        seen = statuses(gateway, 20)
        assert seen.count(502) == node.asked
        assert FAILURES_MAX <= node.asked <= FAILURES_MAX + 1


@pytest.mark.parametrize("answer", [says(502), says(307, **AWAY)])
def test_what_stands_before_a_node_of_our_own_is_not_its_answer(tmp_path, answer):
    with stub_node(answer) as node, beside_a_sound_node(tmp_path, node) as gateway:
        assert set(statuses(gateway, 20)) == {200}
        assert FAILURES_MAX <= node.asked <= FAILURES_MAX + 1


def test_inputs_that_a_model_cannot_be_run_on_speak_not_against_our_own_node(tmp_path):
    with stub_node(says(500)) as node, beside_a_sound_node(tmp_path, node) as gateway:
        assert statuses(gateway, 20).count(502) == node.asked == 10


@pytest.mark.parametrize("path", ["infer", "infer_stream"])
def test_a_node_that_hangs_is_left_alone_though_callers_are_in_haste(tmp_path, path):
    with stub_node(hangs) as node, beside_a_sound_node(tmp_path, node) as gateway:
        url = gateway.infer_url.removesuffix("infer") + path
        seen = statuses(gateway, 12, url, **{"Bedside-Timeout": "1000"})
        assert seen.count(504) == node.asked
        assert node.asked <= FAILURES_MAX + 1


def test_a_node_that_hangs_is_left_alone_where_grpc_ends_the_calls(tmp_path):
    """The call is cancelled as its deadline passes, before the node is seen to be silent."""
    with (
        stub_node(hangs) as node,
        beside_a_sound_node(tmp_path, node, grpc_port=free_port()) as gateway,
        Caller(gateway.grpc_address, gateway.token()) as caller,
    ):
        seen = [caller.call("ModelInfer", row(), timeout_s=1.0).code for _ in range(12)]
        assert set(seen) == {StatusCode.OK, StatusCode.DEADLINE_EXCEEDED}
        assert seen.count(StatusCode.DEADLINE_EXCEEDED) == node.asked <= FAILURES_MAX + 1


def test_who_gives_nodes_no_time_does_not_have_them_left_alone(tmp_path):
    with two_nodes(tmp_path) as (gateway, *_):
        url = f"{gateway.infer_url}_stream"
        assert set(statuses(gateway, 100, url, **{"Bedside-Timeout": "1"})) <= {200, 504}
        token = gateway.token(role=Role.OPERATOR)
        metrics = call("GET", f"{gateway.url}/metrics", token=token).body.decode()
    ejected = [
        line for line in metrics.splitlines() if line.startswith("bedside_gateway_node_ejected{")
    ]
    assert len(ejected) == 2
    assert all(line.endswith(" 0.0") for line in ejected), ejected


class Watched:
    """The health of a node, and a clock that a test sets."""

    def __init__(self):
        self.now = 100.0
        self.health = NodeHealth(clock=lambda: self.now)

    def wait(self, given_s, *, meanwhile=None):
        """Let a request that was given so many seconds go unanswered."""
        asked = self.health.asked(self.now + given_s)
        if meanwhile is not None:
            meanwhile()
        self.now += given_s
        self.health.silent(asked)
        return asked


def test_silence_counts_where_nobody_was_answered_for_a_second():
    hanging = Watched()
    for _ in range(FAILURES_MAX):
        assert not hanging.health.ejected
        hanging.wait(1.0)
    assert hanging.health.ejected
    # Little time, or a node that answers others, says nothing.
    for given_s, meanwhile in ((0.5, None), (1.0, "succeeded"), (1.0, "answered")):
        sound = Watched()
        for _ in range(20):
            sound.wait(given_s, meanwhile=meanwhile and getattr(sound.health, meanwhile))
        assert not sound.health.ejected


def test_of_those_who_waited_at_the_same_time_one_counts():
    watched = Watched()
    asked = [watched.health.asked(watched.now + 1.0) for _ in range(20)]
    watched.now += 1.0
    for each in asked:
        watched.health.silent(each)
    assert not watched.health.ejected
    # But what is past the time that the site gives, counts each time.
    for _ in range(FAILURES_MAX):
        watched.health.silent(watched.health.asked(watched.now + 60))
    assert watched.health.ejected


def test_ejections_grow_and_end():
    now = [0.0]
    health = NodeHealth(clock=lambda: now[0])
    lengths = []
    for _ in range(7):
        for _ in range(FAILURES_MAX):
            if not health.ejected:
                health.failed()
        assert health.ejected
        began = now[0]
        while health.ejected:
            now[0] += 0.5
        lengths.append(now[0] - began)
    assert lengths == [1, 2, 4, 8, 16, 30, 30]
    health.succeeded()
    health.failed()
    assert not health.ejected
