"""Emergencies wait for review until somebody other than the caller has reviewed them.

Seen to fail: without `~reviewed` in `find_unreviewed` nothing ever leaves the queue; without the
comparison of principals a caller reviews what they did themselves.
"""

from datetime import timedelta
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier
from audit.errors import ReviewRefused
from audit.index import RecordIndex, Search, catch_up, search
from audit.records import Flag, Outcome, ReviewRecord, ReviewVerdict, encode
from audit.reviews import open_reviews, review
from audit.source import LogSource


@pytest.fixture
async def site(tmp_path, request_record):
    """An index, the log of reviews, and what brings the index up to both logs."""
    keys = {name: Ed25519PrivateKey.generate() for name in ("gateway-1", "reviews")}
    sources = [
        LogSource(folder=tmp_path / name, verifier=NoteVerifier(f"clinic/{name}", key.public_key()))
        for name, key in keys.items()
    ]
    gateway = await Log.open(tmp_path / "gateway-1", origin="clinic/gateway-1", key=keys["gateway-1"])
    outcomes = [
        ((), Outcome.SERVED),
        ((Flag.BREAK_GLASS,), Outcome.SERVED),
        ((Flag.BREAK_GLASS,), Outcome.FAILED),
        ((Flag.BREAK_GLASS,), Outcome.REFUSED),
    ]
    for number, (flags, outcome) in enumerate(outcomes):
        record = msgspec.structs.replace(
            request_record,
            id=UUID(int=number),
            time=request_record.time + timedelta(seconds=number),
            flags=flags,
            outcome=outcome,
        )
        await gateway.append(encode(record))
    await gateway.close()
    log = await Log.open(tmp_path / "reviews", origin="clinic/reviews", key=keys["reviews"])
    index = await RecordIndex.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    await catch_up(index, sources[:1])

    async def judge(number, principal="c.officer", verdict=ReviewVerdict.JUSTIFIED):
        reference = number if isinstance(number, str) else f"clinic/gateway-1#{number}"
        return await review(
            index,
            log,
            reference=reference,
            principal=principal,
            verdict=verdict,
            review_id=UUID(int=99),
        )

    async def refresh():
        nonlocal log
        await log.close()
        await catch_up(index, sources)
        log = await Log.open(tmp_path / "reviews", origin="clinic/reviews", key=keys["reviews"])

    yield index, judge, refresh
    await log.close()
    await index.close()


async def waiting(index):
    return [hit.position for hit in await open_reviews(index)]


async def test_an_emergency_waits_until_it_was_reviewed(site):
    index, judge, refresh = site
    assert await waiting(index) == [1, 2]
    done = await judge(1, verdict=ReviewVerdict.ESCALATED)
    assert (done.record, done.verdict) == ("clinic/reviews#0", ReviewVerdict.ESCALATED)
    await refresh()
    assert await waiting(index) == [2]
    with pytest.raises(ReviewRefused, match="before"):
        await judge(1)
    await judge(2)
    await refresh()
    assert await waiting(index) == []
    (hit, other) = (await search(index, Search(type="review"))).hits
    assert isinstance(hit.record, ReviewRecord)
    assert {hit.record.reviewed_number, other.record.reviewed_number} == {1, 2}


@pytest.mark.parametrize(
    ("reference", "principal", "words"),
    [
        (1, "dr.adams", "somebody else"),
        (0, "c.officer", "no use of break-glass"),
        (3, "c.officer", "was refused"),
        (77, "c.officer", "no use of break-glass"),
        ("clinic/gateway-9#1", "c.officer", "no use of break-glass"),
        ("1", "c.officer", "is named"),
        ("clinic/gateway-1#x", "c.officer", "is named"),
        ("clinic/gateway-1#٣", "c.officer", "is named"),
    ],
)
async def test_what_is_not_to_be_reviewed_or_not_by_this_person(site, reference, principal, words):
    index, judge, _ = site
    with pytest.raises(ReviewRefused, match=words):
        await judge(reference, principal)
    assert await waiting(index) == [1, 2]
