"""Fixtures of the store of queued work and of what runs it."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.stored_work import SEALER, Clock

from audit import Log
from secure_gateway.work.settings import WorkSettings
from secure_gateway.work.store import WorkStore


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work" / "gateway-1.sqlite"


@pytest.fixture
async def reopen(path, clock):
    stores = []

    async def opened(sealer=SEALER, **settings):
        for store in stores:
            await store.close()
        stores[:] = [await WorkStore.open(path, sealer, WorkSettings(**settings), clock=clock)]
        return stores[0]

    yield opened
    for store in stores:
        await store.close()


@pytest.fixture
async def store(reopen):
    return await reopen()


@pytest.fixture
async def log(tmp_path):
    opened = await Log.open(
        tmp_path / "log", origin="clinic/gateway-1", key=Ed25519PrivateKey.generate()
    )
    yield opened
    await opened.close()
