"""A lone caller's records are written at once; those of callers that come one by one soon gather.

Seen to fail: with every batch held, with none, with probes that come no rarer when they are in vain,
with a company that is kept after it left, and with callers who are not looked for once some are known.
"""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.syncs import watch_syncs

from audit import Log
from audit.company import ALL, COMPANY, HELD_MAX, HOLD_S, PROBE_EVERY, Company


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def until_held(company):
    batches = 0
    while company.wanted == 1 and batches < 1 << 20:
        company.wrote(1)
        batches += 1
    return batches


def hold(company, clock, callers, *, every_s=0.0):
    """Hold a batch for callers who come one every so often; return how many it has at its end."""
    began, records = clock.now, 0
    while records < min(callers, company.wanted) and clock.now + every_s <= began + HOLD_S:
        clock.now += every_s
        company.came()
        records += 1
    if records < company.wanted:
        clock.now = began + HOLD_S
        company.waited()
    company.took(records, 0)
    return records


def test_a_lone_caller_is_held_ever_more_rarely():
    clock = Clock()
    company = Company(clock)
    for probe in range(6):
        assert until_held(company) == PROBE_EVERY << probe
        assert hold(company, clock, 1) == 1


def test_batches_that_gather_by_themselves_are_never_held():
    company = Company()
    for n in range(10 * PROBE_EVERY):
        company.wrote(1 + n % COMPANY)
        assert company.wanted == 1


def test_once_all_callers_wait_nothing_more_is_waited_for():
    clock = Clock()
    company = Company(clock)
    until_held(company)
    assert hold(company, clock, 6) == 6
    for _ in range(HELD_MAX - 2):
        began = clock.now
        assert hold(company, clock, 6) == 6
        assert clock.now == began
    # Now and then others are looked for, and found.
    assert hold(company, clock, 9) == 6
    assert company.wanted == ALL
    assert hold(company, clock, 9) == 9
    assert company.wanted == 9


def test_where_callers_are_still_coming_at_the_end_of_a_hold_the_next_one_waits_as_long():
    clock = Clock()
    company = Company(clock)
    until_held(company)
    for _ in range(10):
        assert hold(company, clock, 100, every_s=HOLD_S / 8.5) == 8
        assert company.wanted == ALL


def test_company_that_left_is_not_waited_for_again():
    clock = Clock()
    company = Company(clock)
    until_held(company)
    hold(company, clock, 16)
    assert hold(company, clock, COMPANY - 1) == COMPANY - 1
    assert company.wanted == 1
    assert until_held(company) == PROBE_EVERY


@pytest.mark.parametrize(("callers", "most"), [(1, 1.0), (16, 0.5)])
async def test_callers_whom_the_loop_takes_up_one_by_one_share_syncs(
    tmp_path, monkeypatch, callers, most
):
    log = await Log.open(tmp_path, origin="example.org/one", key=Ed25519PrivateKey.generate())
    synced = []
    watch_syncs(monkeypatch, lambda: synced.append(log.size))
    # One is taken up once the last one's record is written, or held.
    arrived = asyncio.Queue()

    async def ask(times):
        for _ in range(times):
            answered = asyncio.get_running_loop().create_future()
            arrived.put_nowait(answered)
            await answered

    async def take_up():
        while True:
            answered = await arrived.get()
            appended = log.append(b"leaf")
            appended.add_done_callback(lambda _, it=answered: it.set_result(None))
            while not appended.done() and log._commit._held is None:  # noqa: ASYNC110 no event tells
                await asyncio.sleep(0)

    taking = asyncio.ensure_future(take_up())
    await asyncio.gather(*(ask(960 // callers) for _ in range(callers)))
    taking.cancel()
    assert log.size == 960
    assert len(synced) <= most * 960
    assert callers > 1 or len(synced) == 960
    await log.close()


async def test_a_log_that_is_closed_holds_nothing_back(tmp_path, monkeypatch):
    monkeypatch.setattr("audit.group_commit.HOLD_S", 60.0)
    log = await Log.open(tmp_path, origin="example.org/one", key=Ed25519PrivateKey.generate())
    for _ in range(PROBE_EVERY):
        await log.append(b"leaf")
    held = log.append(b"held")
    await asyncio.sleep(0)
    assert not held.done()
    await log.close()
    assert held.result() == PROBE_EVERY
