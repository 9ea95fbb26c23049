"""Admission: how much is let in, who is told to wait, and what a day's count survives."""

import http.client
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.raw import exchange
from support.sites import ROW
from support.work import submit, until, work_url

from audit.records import Outcome, Problem, RefusalsRecord
from policies import Role
from secure_gateway.admission import AdmissionSettings, CallerLimits, ConcurrencyLimit, LimitSettings

CLINICIAN = frozenset({Role.CLINICIAN})


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def drive(limit, clock, *, rate, arrivals, seconds, under_way):
    """Let a model complete `rate` a second while `arrivals` a second come; return who was refused."""
    refused, step = 0, 0.001
    due, done = 0.0, 0.0
    for _ in range(int(seconds / step)):
        clock.now += step
        due += arrivals * step
        done = min(done + rate * step, len(under_way))
        while due >= 1:
            due -= 1
            if limit.enter():
                under_way.append(None)
            else:
                refused += 1
        while done >= 1 and under_way:
            done -= 1
            under_way.pop()
            limit.leave(served=True)
    return refused


@pytest.mark.parametrize("rate", [200, 1000])
def test_past_capacity_the_wait_stays_near_its_target_and_nobody_served_is_lost(rate):
    clock = Clock()
    limit = ConcurrencyLimit(AdmissionSettings(target_wait_s=0.5, least=16), clock)
    under_way = []
    assert drive(limit, clock, rate=rate, arrivals=rate * 0.8, seconds=2, under_way=under_way) == 0
    refused = drive(limit, clock, rate=rate, arrivals=rate * 5, seconds=5, under_way=under_way)
    assert refused > rate * 5 * 3
    # What is under way divided by the rate is how long the last one waits.
    assert len(under_way) / rate == pytest.approx(0.5, rel=0.35)
    # Half the capacity is gone: the limit follows.
    drive(limit, clock, rate=rate / 2, arrivals=rate * 5, seconds=5, under_way=under_way)
    assert len(under_way) / (rate / 2) == pytest.approx(0.5, rel=0.35)
    # Quiet again: nobody is refused.
    drive(limit, clock, rate=rate, arrivals=rate * 0.2, seconds=3, under_way=under_way)
    assert drive(limit, clock, rate=rate, arrivals=rate * 0.8, seconds=3, under_way=under_way) == 0


@given(st.lists(st.sampled_from(["enter", "leave", "fail", "wait"]), max_size=300))
def test_what_is_under_way_is_counted_exactly_and_the_limit_keeps_its_bounds(steps):
    clock = Clock()
    settings = AdmissionSettings(target_wait_s=0.1, least=2, most=8)
    limit = ConcurrencyLimit(settings, clock)
    under_way = 0
    for step in steps:
        if step == "enter":
            under_way += limit.enter()
        elif step == "wait":
            clock.now += 0.3
        elif under_way:
            limit.leave(served=step == "leave")
            under_way -= 1
        assert limit.under_way == under_way
        assert settings.least <= limit.limit <= settings.most
        assert limit.wait_s >= 1


def test_a_stuck_model_closes_its_door_to_the_least():
    clock = Clock()
    limit = ConcurrencyLimit(AdmissionSettings(least=4, most=100), clock)
    while limit.enter():
        pass
    for _ in range(40):
        clock.now += 0.3
        assert not limit.enter()
    assert limit.limit == 4


def limits(clock=None, today=None, **settings):
    named = {"clock": clock} if clock else {}
    if today:
        named["today"] = today
    return CallerLimits(LimitSettings.model_validate(settings), **named)


def test_a_caller_gets_its_burst_then_its_rate_and_others_are_not_touched():
    clock = Clock()
    callers = limits(clock, requests_per_s=2, burst=3)
    assert [callers.take("a", CLINICIAN) for _ in range(4)] == [None, None, None, 1]
    assert callers.take("b", CLINICIAN) is None
    clock.now += 0.5
    assert [callers.take("a", CLINICIAN) for _ in range(2)] == [None, 1]
    clock.now += 100
    assert [callers.take("a", CLINICIAN) for _ in range(4)] == [None, None, None, 1]


def test_a_day_ends_at_midnight_utc():
    now = [datetime(2026, 3, 1, 23, 59, 30, tzinfo=UTC)]
    callers = limits(today=lambda: now[0], requests_per_day=2)
    callers.restore(["a"])
    assert [callers.take("a", CLINICIAN) for _ in range(2)] == [None, 30]
    now[0] = datetime(2026, 3, 2, tzinfo=UTC)
    assert [callers.take("a", CLINICIAN) for _ in range(3)] == [None, None, 86400]


def test_a_role_has_an_allowance_of_its_own_and_of_several_the_largest_counts():
    roles = {"app": {"requests_per_day": 1}, "researcher": {"requests_per_day": 3}, "operator": {}}
    callers = limits(requests_per_day=2, roles=roles)

    def granted(name, *held):
        return sum(callers.take(name, frozenset(held)) is None for _ in range(5))

    assert granted("a", Role.CLINICIAN) == 2
    assert granted("b", Role.APP) == 1
    assert granted("c", Role.APP, Role.RESEARCHER) == 3
    assert granted("d", Role.APP, Role.OPERATOR) == 5


def gateway_with(tmp_path, **settings):
    site = make_site(tmp_path, gateway=settings)
    publish_linear(site, tmp_path)
    return GatewayProcess(site, tmp_path)


def test_a_caller_past_its_limit_is_told_when_to_come_again_and_it_is_recorded(tmp_path):
    with gateway_with(tmp_path, limits={"requests_per_s": 0.01, "burst": 2}) as gateway:
        replies = [
            call("POST", gateway.infer_url, token=gateway.token(name), body=ROW)
            for name in ("dr.adams", "dr.adams", "dr.adams", "dr.baker")
        ]
        gateway.stop()
        records = records_of(gateway.site)
    assert [reply.status for reply in replies] == [200, 200, 429, 200]
    refused = replies[2]
    assert refused.json["type"] == "urn:bedside:problem:rate-limited"
    assert 90 <= int(refused.headers["retry-after"]) <= 100
    assert [record.problem for record in records] == [None, None, Problem.RATE_LIMITED, None]
    # It is refused before its body is looked at: the record knows the caller and no more.
    assert records[2].principal == "dr.adams"
    assert records[2].rows is None


@pytest.mark.parametrize("kind", ["v2/{}/infer", "v2/{}/infer_stream", "v1/{}/work"])
def test_a_caller_past_its_limit_is_refused_before_its_body_is_read(tmp_path, kind):
    """What it sends would fill memory that its limit does not see."""
    with gateway_with(tmp_path, limits={"requests_per_day": 1}) as gateway:
        assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
        path = kind.format("models/breast-cancer")
        head = (
            f"POST /{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.token()}\r\n"
            "Content-Length: 1000000\r\nConnection: close\r\n\r\n"
        )
        # Not a byte of the body is sent.
        statuses, received = exchange(gateway.site.config.gateway.port, head.encode())
    assert statuses == [429]
    assert b"retry-after" in received.lower()


def test_work_counts_when_it_is_submitted_and_not_again_when_it_runs(tmp_path):
    with gateway_with(tmp_path, limits={"requests_per_day": 3}) as gateway:
        first = submit(gateway)
        until(gateway, work_url(gateway, first), "done")
        assert submit(gateway).status == 202
        gateway.kill()
        gateway.start()
        assert submit(gateway).status == 202
        refused = submit(gateway)
        assert (refused.status, refused.json["type"]) == (429, "urn:bedside:problem:rate-limited")
        assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 429


def test_a_days_count_survives_a_restart(tmp_path):
    with gateway_with(tmp_path, limits={"requests_per_day": 3}) as gateway:

        def ask():
            return call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status

        assert [ask(), ask()] == [200, 200]
        gateway.kill()
        gateway.start()
        assert [ask(), ask()] == [200, 429]
        gateway.kill()
        gateway.start()
        # A refusal was never counted, so it does not count after a restart either.
        assert ask() == 429


def test_what_never_came_to_the_door_does_not_count_after_a_restart(tmp_path):
    settings = {"limits": {"requests_per_day": 3}, "body_limit_bytes": 4096}
    with gateway_with(tmp_path, **settings) as gateway:

        def ask(method="POST", url=gateway.infer_url, **sent):
            return call(method, url, token=gateway.token(), **{"body": ROW, **sent}).status

        refused = [
            ask("GET"),
            ask(url=f"{gateway.url}/v3/nothing"),
            ask(body=b" " * 5000),
            ask(headers={"Bedside-Timeout": "soon"}),
            ask(headers={"Content-Encoding": "br"}),
            submit(gateway, Work_Lifetime="0").status,
        ]
        assert refused == [405, 404, 413, 400, 415, 400]
        # These two are let in: the one is no request that the model takes, the other of no model.
        assert ask(body=b"{}") == 400
        assert ask(url=f"{gateway.url}/v2/models/nothing/infer") == 404
        gateway.stop()
        gateway.start()
        assert [ask(), ask()] == [200, 429]


def test_past_the_limit_of_a_model_newcomers_are_refused_promptly_and_the_rest_served(tmp_path):
    with gateway_with(tmp_path, admission={"target_wait_s": 0.001, "least": 1, "most": 2}) as gateway:
        token = gateway.token()
        replies = []

        def ask():
            for _ in range(30):
                replies.append(call("POST", gateway.infer_url, token=token, body=ROW))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gateway.stop()
        records = records_of(gateway.site)
    statuses = {reply.status for reply in replies}
    assert statuses == {200, 503}
    refused = [reply for reply in replies if reply.status == 503]
    assert {reply.json["type"] for reply in refused} == {"urn:bedside:problem:overloaded"}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    served = [record for record in records if record.outcome is Outcome.SERVED]
    assert len(served) == len(replies) - len(refused)
    # Each refusal names its record, and each record counts exactly those that name it.
    named = Counter(int(reply.headers["bedside-record"].partition("#")[2]) for reply in refused)
    shared = {n: r for n, r in enumerate(records) if isinstance(r, RefusalsRecord)}
    assert named == {n: record.count for n, record in shared.items()}
    assert {(r.principal, r.problem, r.model) for r in shared.values()} == {
        ("dr.adams", Problem.OVERLOADED, "breast-cancer")
    }


def test_a_connection_that_was_refused_goes_on_and_its_bodies_are_passed_over(tmp_path):
    with gateway_with(tmp_path, admission={"target_wait_s": 0.001, "least": 1, "most": 1}) as gateway:
        host, port = urlsplit(gateway.url).netloc.split(":")
        headers = {"Authorization": f"Bearer {gateway.token()}"}
        statuses = []

        def ask():
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            for number in range(40):
                # What follows a body that nobody read must still be found to begin behind it.
                body = json.dumps(ROW) + " " * (number * 1000)
                connection.request("POST", urlsplit(gateway.infer_url).path, body, headers)
                reply = connection.getresponse()
                answer = json.loads(reply.read())
                statuses.append(reply.status)
                assert ("outputs" in answer) == (reply.status == 200)
            connection.close()

        with ThreadPoolExecutor(8) as threads:
            for asking in [threads.submit(ask) for _ in range(8)]:
                asking.result()
        gateway.stop()
        records = records_of(gateway.site)
    assert set(statuses) == {200, 503}
    assert sum(getattr(record, "count", 1) for record in records) == len(statuses)
