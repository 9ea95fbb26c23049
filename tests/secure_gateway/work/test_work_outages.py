"""Submitted work while nothing can be written, and where a gateway ends in the middle of a run.

Seen to fail: with an attempt given back whenever a run could not be recorded or kept, a server that
keeps state ran the work once more for each five seconds of the outage; with every run that a gateway's
end cut off queued again, it ran it once more after the restart; while another program held the database
every answer was a 500 that said nothing of trying again.
"""

import resource
import sqlite3
from contextlib import closing, contextmanager

import pytest
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.stub_nodes import answers, hangs, stub_node
from support.work import cancel, fetch, submit, until, work_url

from audit.records import Action, Outcome

FOREIGN = None
OURS = "0" * 64


def gateway_before(tmp_path, node, **work):
    gateway = {"nodes": [node.entry("n")], "work": {"concurrency": 1, "attempts_max": 2, **work}}
    return GatewayProcess(make_site(tmp_path, gateway=gateway), tmp_path)


def let_write(gateway, *, most):
    resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def ready(gateway):
    return call("GET", f"{gateway.url}/v2/health/ready").status == 200


def runs_of(gateway):
    return [r for r in records_of(gateway.site) if r.action is Action.INFER]


@contextmanager
def in_the_middle(tmp_path, node):
    """Give a gateway that has sent its first piece of work to a node that hangs, and that work."""
    with gateway_before(tmp_path, node) as gateway:
        url = work_url(gateway, submit(gateway))
        while not node.asked:
            pass
        yield gateway, url


@pytest.mark.parametrize("digest", [FOREIGN, OURS])
def test_what_ran_as_writing_failed_is_kept_once_it_works(tmp_path, digest):
    with stub_node(answers, digest) as node, gateway_before(tmp_path, node) as gateway:

        def answers_as_writing_fails(node, handler):
            let_write(gateway, most=0)
            node.at_work = answers
            answers(node, handler)

        node.at_work = answers_as_writing_fails
        url = work_url(gateway, submit(gateway))
        while ready(gateway):
            pass
        assert node.asked == 1
        let_write(gateway, most=resource.RLIM_INFINITY)
        assert until(gateway, url, "done", "failed")["state"] == "done"
        assert fetch(gateway, url).status == 200
        assert node.asked == 1
    assert [r.outcome for r in runs_of(gateway)] == [Outcome.SERVED]


def test_a_server_that_keeps_state_runs_nothing_again_after_a_kill(tmp_path):
    with stub_node(hangs, FOREIGN) as node, in_the_middle(tmp_path, node) as (gateway, url):
        gateway.kill()
        node.at_work = answers
        gateway.start()
        document = until(gateway, url, "done", "failed")
        assert document["problem"] == "urn:bedside:problem:execution-failed"
        assert node.asked == 1


@pytest.mark.parametrize(("digest", "ends"), [(FOREIGN, "failed"), (OURS, "done")])
def test_a_stop_cuts_off_what_a_server_that_keeps_state_does_not_run_again(tmp_path, digest, ends):
    with stub_node(hangs, digest) as node, in_the_middle(tmp_path, node) as (gateway, url):
        gateway.stop()
        (cut_off,) = runs_of(gateway)
        assert cut_off.outcome is Outcome.ABANDONED
        node.at_work = answers
        gateway.start()
        assert until(gateway, url, "done", "failed")["state"] == ends
        assert node.asked == (1 if ends == "failed" else 2)


def test_while_another_program_has_the_database_callers_are_told_to_come_again(tmp_path):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        url = work_url(gateway, submit(gateway))
        until(gateway, url, "done")
        with closing(sqlite3.connect(site.work_database("gateway-1"), isolation_level=None)) as other:
            other.execute("begin immediate")
            for ask in (lambda: submit(gateway), lambda: fetch(gateway, url)):
                reply = ask()
                problem = "urn:bedside:problem:work-unavailable"
                assert (reply.status, reply.json["type"]) == (503, problem)
                assert int(reply.headers["retry-after"]) > 0
            other.execute("rollback")
        assert fetch(gateway, url).status == 200
        assert cancel(gateway, work_url(gateway, submit(gateway))).status == 200
