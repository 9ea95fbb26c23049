"""A node of Bedside's own that answers nothing but 500, and inputs that a sound one cannot run.

Seen to fail: with each such answer held to be the input's fault, every second request went to a node
that could run nothing; with each held against the node, one caller had a sound one left alone.
"""

import time

from support import GatewayProcess, call, make_site, publish_linear
from support.sites import ROW
from support.stub_nodes import answers, says, stub_node

from policies import Role
from secure_gateway import NodeEntry
from secure_gateway.health import BROKEN_S, FAILURES_MAX, NodeHealth


class Watched:
    """The health of a node, and a clock that a test sets."""

    def __init__(self):
        self.now = 100.0
        self.health = NodeHealth(clock=lambda: self.now)

    def could_not_run(self, *callers, every_s=BROKEN_S / 2):
        """Give each of these callers a 500, one after the other."""
        for caller in callers:
            self.health.could_not_run(caller)
            self.now += every_s


def test_a_node_that_runs_nothing_for_anybody_is_left_alone_and_comes_back():
    watched = Watched()
    watched.could_not_run("adams", "baker")
    assert not watched.health.ejected
    watched.could_not_run("adams", every_s=0)
    assert watched.health.ejected
    # What was under way says nothing more. Then it is on trial: one more is enough, for longer.
    watched.could_not_run("adams", "baker", "adams", every_s=0.34)
    assert not watched.health.ejected
    watched.could_not_run("adams", every_s=1.5)
    assert watched.health.ejected
    watched.now += 1
    assert not watched.health.ejected
    watched.health.succeeded()
    watched.could_not_run("adams", "baker", "adams", every_s=0)
    assert not watched.health.ejected


def test_one_callers_inputs_say_nothing_of_a_node_however_many():
    watched = Watched()
    watched.could_not_run(*["adams"] * 1000)
    assert not watched.health.ejected
    # Nor is one enough where one failure of another kind would be.
    for _ in range(FAILURES_MAX):
        watched.health.failed()
    watched.now += 1
    watched.could_not_run(*["adams"] * 1000)
    assert not watched.health.ejected


def test_inputs_of_several_callers_say_nothing_of_a_node_that_runs_others():
    watched = Watched()
    for _ in range(100):
        watched.could_not_run("adams", "baker")
        watched.health.succeeded()
    assert not watched.health.ejected
    # It was busy with what it runs well, perhaps.
    watched.could_not_run(*["adams", "baker"] * 100, every_s=BROKEN_S / 250)
    assert not watched.health.ejected


def test_a_broken_node_is_left_alone_until_it_is_mended(tmp_path):
    with stub_node(says(500)) as node:
        site = make_site(tmp_path)
        publish_linear(site, tmp_path)
        entries = [node.entry("broken"), NodeEntry(id="sound", jurisdiction="US-CA")]
        with GatewayProcess(make_site(tmp_path, gateway={"nodes": entries}), tmp_path) as gateway:

            def ask(caller):
                token = gateway.token(caller)
                return call("POST", gateway.infer_url, token=token, body=ROW).status

            def ejected():
                token = gateway.token(role=Role.OPERATOR)
                metrics = call("GET", f"{gateway.url}/metrics", token=token).body.decode()
                return 'bedside_gateway_node_ejected{placement="node:broken"} 1.0' in metrics

            end = time.monotonic() + 20
            while not ejected():
                assert time.monotonic() < end
                # Three, since two nodes take turns.
                assert {ask(f"dr.{name}") for name in ("adams", "baker", "carter")} <= {200, 502}
            node.at_work = answers
            asked = node.asked
            while node.asked < asked + 2:
                assert time.monotonic() < end
                assert ask("dr.adams") == 200
            assert not ejected()
