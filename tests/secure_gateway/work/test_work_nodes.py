"""Submitted work on nodes that break off, hang or are busy: how often it runs, and how it ends.

Seen to fail: with every refusal that says when to try again taken for "not begun", a server whose runs
leave something behind ran the work again until it expired, and so did a payload that brings nodes down;
with a node's silence taken for the end, work failed that should have waited.
"""

import time

import pytest
from support import GatewayProcess, make_site, records_of
from support.stub_nodes import answers, breaks, hangs, says, stub_node
from support.work import fetch, look, submit, until, work_url

from audit.records import Action

FOREIGN = None
OURS = "0" * 64


def gateway_before(tmp_path, *nodes, **settings):
    entries = [node.entry(f"n{number}") for number, node in enumerate(nodes)]
    work = {"attempts_max": 2, **settings.pop("work", {})}
    site = make_site(tmp_path, gateway={"nodes": entries, "work": work, **settings})
    return GatewayProcess(site, tmp_path)


def ended(gateway, url, node, most):
    """Return how the work ended; it must not run more than `most` times before."""
    end = time.monotonic() + 30
    while (document := look(gateway, url).json)["state"] in ("queued", "running"):
        assert node.asked <= most, document
        assert time.monotonic() < end, document
        time.sleep(0.05)
    return document


@pytest.mark.parametrize("at_work", [breaks, hangs])
def test_what_a_foreign_server_may_have_begun_is_not_run_again(tmp_path, at_work):
    with stub_node(at_work, FOREIGN) as node:
        with gateway_before(tmp_path, node, node_timeout_s=0.5) as gateway:
            document = ended(gateway, work_url(gateway, submit(gateway)), node, most=1)
        assert document["state"] == "failed"
        assert node.asked == 1
        assert [r.action for r in records_of(gateway.site)].count(Action.INFER) == 1


@pytest.mark.parametrize("at_work", [breaks, hangs])
def test_work_that_brings_nodes_down_is_run_as_often_as_it_may(tmp_path, at_work):
    with stub_node(at_work, OURS) as node:
        with gateway_before(tmp_path, node, node_timeout_s=0.5) as gateway:
            url = work_url(gateway, submit(gateway))
            document = ended(gateway, url, node, most=2)
            assert fetch(gateway, url).status == (502 if at_work is breaks else 504)
        assert document["state"] == "failed"
        assert node.asked == 2


def test_work_that_one_node_broke_off_at_counts_though_the_next_was_busy(tmp_path):
    with stub_node(breaks) as breaking, stub_node(says(429)) as busy:
        with gateway_before(tmp_path, breaking, busy, work={"attempts_max": 1}) as gateway:
            document = ended(gateway, work_url(gateway, submit(gateway)), breaking, most=1)
        assert document["problem"] == "urn:bedside:problem:execution-failed"
        assert (breaking.asked, busy.asked) == (1, 1)


def test_work_waits_for_a_node_that_hangs(tmp_path):
    with stub_node(hangs) as node, gateway_before(tmp_path, node, node_timeout_s=0.5) as gateway:
        url = work_url(gateway, submit(gateway))
        while not node.asked:
            time.sleep(0.02)
        node.at_work = answers
        assert until(gateway, url, "done", "failed")["state"] == "done"
        assert fetch(gateway, url).status == 200
        assert node.asked == 2


@pytest.mark.parametrize("status", [429, 503])
def test_work_waits_for_a_node_that_is_busy_for_as_long_as_it_is(tmp_path, status):
    with (
        stub_node(says(status), FOREIGN) as node,
        gateway_before(tmp_path, node, work={"attempts_max": 1}) as gateway,
    ):
        url = work_url(gateway, submit(gateway))
        while node.asked < 2:
            time.sleep(0.02)
        node.at_work = answers
        assert until(gateway, url, "done", "failed")["state"] == "done"
