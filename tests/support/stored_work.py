"""Work as a caller submits it, and what a run makes of it, for tests of the store and of its runner."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from uuid import UUID, uuid4

from audit.records import Action, Outcome, RequestRecord
from policies import Principal, Role
from secure_gateway.claims import NO_CLAIMS
from secure_gateway.sealing import Sealer
from secure_gateway.work.content import Result, Submission

SEALER = Sealer(bytes(range(32)), "work 1")
BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[0.5]}],"id":"mine"}'
ADAMS = Principal(id="dr.adams", roles=frozenset({Role.CLINICIAN}))
BAKER = Principal(id="dr.baker", roles=frozenset({Role.CLINICIAN}))
PHONE = Principal(id="device:phone-1", roles=frozenset({Role.DEVICE}))


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


def submission(principal=ADAMS, body=BODY):
    return Submission(
        principal=principal,
        claims=NO_CLAIMS,
        model="sepsis",
        version=None,
        body=body,
        header_length=None,
    )


async def add(store, principal=ADAMS, *, body=BODY, lifetime_s=3600):
    async with store.room(principal.id, len(body)):
        return await store.add(uuid4(), submission(principal, body), lifetime_s)


def result(body=b"{}"):
    record = RequestRecord(
        time=datetime.now(UTC),
        id=UUID(int=1),
        action=Action.INFER,
        outcome=Outcome.SERVED,
        status=200,
        subject="ab" * 32,
    )
    return Result(headers=((b"content-type", b"application/json"),), body=body, record=record)


def sealed_rows(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("select work_id, content from sealed").fetchall()
