"""Fetching and cancelling while the log fails, consent is withdrawn, or the time is over just then.

Seen to fail: with the record made after `hand_over` a log that cannot be written loses the result; with
`refuse` before the record it erased one without a trace; without the second look of `_opened` a result
that expired between two steps was said not to open (500); with `_alone` entered to fetch what has not
run a cancel at that moment was refused.
"""

import asyncio

import pytest
from support.stored_work import ADAMS, add, result

from audit.records import Problem
from policies import Engine, build_bundle
from secure_gateway.errors import Refusal
from secure_gateway.record import Recorder
from secure_gateway.work.content import Failure
from secure_gateway.work.routes import WorkApi
from secure_gateway.work.runner import WorkRunner
from secure_gateway.work.settings import WorkSettings
from secure_gateway.work.tables import WorkState


class Authenticator:
    def authenticate(self, authorization):
        return ADAMS


class Reconsideration:
    """Says of everything that consent was withdrawn, or of nothing."""

    def __init__(self, refusal=None):
        self.refusal = refusal

    async def withdrawn(self, *_):
        return self.refusal


WITHDRAWN = Refusal(Problem.POLICY_REFUSED, "Consent was withdrawn since it was run.")


def api(store, log, refusal=None):
    return WorkApi(
        store,
        WorkRunner(store, None, Recorder(log), concurrency=1, enrolled=lambda _: True),
        WorkSettings(),
        engine=Engine(build_bundle(("base",), name="clinic", version=1, models={})),
        authenticator=Authenticator(),
        pipeline=None,
        recorder=Recorder(log),
        reconsideration=Reconsideration(refusal),
        body_limit_bytes=1024,
    )


async def asked(served, method, path):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event):
        sent.append(event)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    await served(scope, receive, send)
    return sent[0]["status"]


async def done(store, content=None, **more):
    await add(store, **more)
    work = await store.take()
    await store.finish(work, content or result())
    return work


async def test_a_result_that_cannot_be_recorded_is_neither_given_nor_lost(store, log):
    work, served = await done(store), api(store, log)
    await log.close()
    assert await asked(served, "GET", f"/v1/work/{work.id}/result") == 503
    assert await asked(served, "DELETE", f"/v1/work/{work.id}") == 503
    assert (await store.find(work.id, ADAMS.id)).state is WorkState.DONE
    assert await store.result(work)


async def test_a_result_whose_consent_was_withdrawn_is_erased_once_that_is_recorded(store, log):
    work, served = await done(store), api(store, log, WITHDRAWN)
    path = f"/v1/work/{work.id}/result"
    assert await asked(served, "GET", path) == 403
    assert (await store.find(work.id, ADAMS.id)).state is WorkState.REFUSED
    other = await done(store)
    await log.close()
    assert await asked(served, "GET", f"/v1/work/{other.id}/result") == 503
    assert (await store.find(other.id, ADAMS.id)).state is WorkState.DONE


@pytest.mark.parametrize("content", [result(), Failure(problem=Problem.INTERNAL, detail="no")])
async def test_what_expires_as_it_is_opened_is_gone_and_no_failure(
    store, log, clock, monkeypatch, content
):
    work, served = await done(store, content, lifetime_s=10), api(store, log)
    step = "failure" if isinstance(content, Failure) else "result"
    opened = getattr(store, step)

    async def late(found):
        clock.now += 10
        await store.tidy()
        return await opened(found)

    monkeypatch.setattr(store, step, late)
    assert await asked(served, "GET", f"/v1/work/{work.id}/result") == 410


async def test_asking_for_the_result_of_what_has_not_run_keeps_nobody_from_cancelling_it(
    store, log, monkeypatch
):
    work, served = await add(store), api(store, log)
    find, looks, again, go = store.find, [], asyncio.Event(), asyncio.Event()

    async def held(*arguments):
        if asyncio.current_task().get_name() == "fetch":
            looks.append(None)
            if len(looks) > 1:
                again.set()
                await go.wait()
        return await find(*arguments)

    monkeypatch.setattr(store, "find", held)
    asking = asked(served, "GET", f"/v1/work/{work.id}/result")
    fetching = asyncio.create_task(asking, name="fetch")
    looking = asyncio.create_task(again.wait())
    await asyncio.wait({fetching, looking}, return_when=asyncio.FIRST_COMPLETED)
    looking.cancel()
    assert await asked(served, "DELETE", f"/v1/work/{work.id}") == 200
    go.set()
    assert await fetching == 409
