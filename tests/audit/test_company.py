"""A lone caller's records are written at once; those of callers that come one by one soon gather.

Seen to fail: with every batch held, with none, with trials that come no rarer when they are in vain,
with no look at whether they are worth it, with company that is kept after it left or never proved
again, and with callers left out who are not yet part of it.
"""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.syncs import watch_syncs

from audit import Log
from audit.company import ALL, COMPANY, HELD_MAX, HOLD_S, PROBE_EVERY, TRIAL, Company


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Callers:
    """So many who are answered one by one, each in so many seconds, or together in others."""

    def __init__(self, many, *, alone_s, together_s):
        self.clock = Clock()
        self.company = Company(self.clock)
        self.many, self.alone_s, self.together_s = many, alone_s, together_s

    def until_held(self):
        """Write batches of one until the next is held; return how many."""
        batches = 0
        while self.company.wanted == 1 and batches < 1 << 16:
            self.clock.now += self.alone_s
            self.company.wrote(1)
            batches += 1
        return batches

    def hold(self, records=None, waiting=0):
        records = self.many if records is None else records
        self.clock.now += self.together_s if records >= self.company.wanted else HOLD_S
        self.company.took(records, waiting)


def at_once(many):
    """Callers who ask again as soon as they are answered, twice as many a second together."""
    return Callers(many, alone_s=250e-6, together_s=many * 125e-6)


def test_a_lone_caller_is_held_ever_more_rarely():
    lone = at_once(1)
    for probe in range(9):
        assert lone.until_held() == PROBE_EVERY << probe
        lone.hold()
        assert lone.company.wanted == 1


def test_batches_that_gather_by_themselves_are_never_held():
    company = Company()
    for n in range(10 * PROBE_EVERY):
        company.wrote(1 + n % COMPANY)
        assert company.wanted == 1


def test_callers_who_ask_again_at_once_are_kept_together_and_prove_it_now_and_then():
    callers = at_once(6)
    assert callers.until_held() == PROBE_EVERY
    assert callers.company.wanted == ALL
    for _ in range(HELD_MAX - 1):
        callers.hold()
        assert callers.company.wanted == 6
    callers.hold()
    assert callers.until_held() == PROBE_EVERY


def test_callers_who_come_when_they_please_are_let_go_after_a_trial():
    free = Callers(8, alone_s=500e-6, together_s=8 * 500e-6)
    for trial in range(3):
        assert free.until_held() == PROBE_EVERY << trial
        for _ in range(TRIAL):
            assert free.company.wanted > 1
            free.hold()
        assert free.company.wanted == 1


def test_who_comes_while_a_batch_is_written_is_waited_for_with_the_others():
    callers = at_once(6)
    callers.until_held()
    callers.hold()
    callers.hold(waiting=2)
    assert callers.company.wanted == 8


def test_company_that_left_is_not_waited_for_again():
    callers = at_once(6)
    callers.until_held()
    for _ in range(TRIAL + 1):
        callers.hold()
    callers.hold(COMPANY - 1)
    assert callers.company.wanted == 1
    assert callers.until_held() == PROBE_EVERY


def test_it_is_over_when_two_batches_in_a_row_do_not_fill():
    callers = at_once(9)
    callers.until_held()
    for _ in range(TRIAL + 1):
        callers.hold()
    callers.hold(8)
    assert callers.company.wanted == 8
    callers.hold(8)
    callers.hold(7)
    assert callers.company.wanted == 7
    callers.hold(6)
    assert callers.company.wanted == 1


@pytest.mark.parametrize(("callers", "most"), [(1, 1.0), (16, 0.5)])
async def test_callers_whom_the_loop_takes_up_one_by_one_share_syncs(
    tmp_path, monkeypatch, callers, most
):
    # Whether it is worth it, is for the clock to say; here they shall just gather.
    monkeypatch.setattr("audit.company.WORTH", 0.0)
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
