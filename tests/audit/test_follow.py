"""A follower hands a log's records on in order, at least once, from where it stood."""

import asyncio
import threading
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import Log, NoteVerifier
from audit.errors import FollowerLost
from audit.follow import DeliveryFailed, LogFollower
from audit.records import Outcome, RequestRecord, encode
from audit.source import LogSource

ORIGIN = "clinic/gateway-1"


class Receiver:
    """Takes entries, or refuses them while `down`; wakes whoever waits for so many."""

    def __init__(self):
        self.taken = []
        self.refused = 0
        self.down = False
        self._changed = asyncio.Condition()

    async def __call__(self, entries):
        async with self._changed:
            self._changed.notify_all()
            if self.down:
                self.refused += 1
                raise DeliveryFailed("the receiver is down")
            self.taken += [entry.number for entry in entries]
        return 0

    async def until(self, condition):
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(condition), 20)


def served(record):
    return isinstance(record, RequestRecord) and record.outcome is Outcome.SERVED


@pytest.fixture
async def site(tmp_path, request_record):
    """A log, what appends to it, and what makes a follower of it."""
    key = Ed25519PrivateKey.generate()
    log = await Log.open(tmp_path / "log", origin=ORIGIN, key=key)
    source = LogSource(folder=tmp_path / "log", verifier=NoteVerifier(ORIGIN, key.public_key()))
    followers = []

    async def append(count, outcome=Outcome.SERVED):
        for _ in range(count):
            number = log.size
            record = msgspec.structs.replace(request_record, id=UUID(int=number), outcome=outcome)
            await log.append(encode(record))

    append.published = lambda: published(log, tmp_path / "log")

    async def follow(receiver, **changes):
        place = tmp_path / "place" / "sink.json"
        options = {"wanted": served, "poll_s": 0.01, "retry_s": 0.01, "retry_max_s": 0.04, **changes}
        follower = LogFollower(source, place, receiver, **options)
        await follower.start()
        followers.append(follower)
        return follower

    yield append, follow, tmp_path / "place" / "sink.json"
    for follower in followers:
        await follower.close()
    await log.close()


async def published(log, folder):
    """Wait until the public files say what the log says."""
    pause = threading.Event()
    while f"\n{log.size}\n".encode() not in (folder / "checkpoint").read_bytes():
        await asyncio.to_thread(pause.wait, 0.01)


async def test_what_is_wanted_comes_in_order_from_the_time_it_began(site):
    append, follow, _ = site
    await append(3)
    await append.published()
    receiver = Receiver()
    await follow(receiver)
    await append(2)
    await append(2, Outcome.REFUSED)
    await append(300)
    await receiver.until(lambda: len(receiver.taken) == 302)
    assert receiver.taken == [3, 4, *range(7, 307)]


async def test_it_can_begin_with_the_first_record_and_take_many_at_once(site):
    append, follow, _ = site
    await append(600)
    receiver = Receiver()
    await follow(receiver, from_start=True, batch=100)
    await receiver.until(lambda: len(receiver.taken) == 600)
    assert receiver.taken == list(range(600))


async def test_nothing_is_left_out_or_out_of_order_while_the_receiver_is_down(site):
    append, follow, _ = site
    receiver = Receiver()
    receiver.down = True
    follower = await follow(receiver)
    await append(5)
    await receiver.until(lambda: receiver.refused >= 3)
    assert receiver.taken == []
    assert follower.position == 0
    receiver.down = False
    await receiver.until(lambda: len(receiver.taken) == 5)
    assert receiver.taken == [0, 1, 2, 3, 4]


async def test_the_next_one_goes_on_where_the_last_one_stood(site):
    append, follow, _ = site
    first, second = Receiver(), Receiver()
    follower = await follow(first)
    await append(3)
    await first.until(lambda: len(first.taken) == 3)
    await follower.close()
    await append(3)
    await follow(second)
    await second.until(lambda: len(second.taken) == 3)
    assert (first.taken, second.taken) == ([0, 1, 2], [3, 4, 5])


async def test_what_was_taken_and_not_kept_comes_again(site):
    append, follow, place = site
    first, second = Receiver(), Receiver()
    follower = await follow(first)
    await append(3)
    await first.until(lambda: len(first.taken) == 3)
    await follower.close()
    # As after a kill between the delivery and the keeping of the place.
    place.write_bytes(b'{"log":"clinic/gateway-1","next":2}')
    await append(1)
    await follow(second)
    await second.until(lambda: len(second.taken) == 2)
    assert second.taken == [2, 3]


@pytest.mark.parametrize(
    "place",
    [
        b"",
        b"[1]",
        b'{"log":"clinic/gateway-2","next":0}',
        b'{"log":"clinic/gateway-1","next":99}',
        b'{"log":"clinic/gateway-1","next":-1}',
    ],
)
async def test_a_place_that_is_none_of_this_log_is_refused(site, place):
    append, follow, path = site
    await append(1)
    path.parent.mkdir()
    path.write_bytes(place)
    with pytest.raises(FollowerLost):
        await follow(Receiver())
