"""Enrolment: a one-time code becomes a device with a key of its own."""

import asyncio
from pathlib import Path

import aiohttp
import msgspec

from bedside_client.errors import BedsideClientError, EnrolmentFailed, Unavailable
from bedside_client.http import read
from bedside_client.keys import DeviceIdentity
from bedside_client.state import IDENTITY, DeviceState, Enrolment

PROOF_PREFIX = b"bedside-enrol:"


async def enroll(coordinator_url: str, code: str, folder: Path) -> DeviceState:
    """Enrol this device with a code from its clinic; its private key is made here and stays here.

    Raises:
        EnrolmentFailed: if the code is not accepted.
        Unavailable: if the coordinator does not answer.
    """
    identity = await asyncio.to_thread(_identity, folder)
    body = {
        "code": code,
        "public_key": identity.public_key,
        "proof": identity.sign(PROOF_PREFIX + code.encode()),
    }
    url = f"{coordinator_url.rstrip('/')}/v1/devices"
    try:
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            answer = await read(response)
    except aiohttp.ClientError as error:
        raise Unavailable("the coordinator does not answer") from error
    except Unavailable:
        raise
    except BedsideClientError as error:
        raise EnrolmentFailed(str(error)) from error
    try:
        enrolment = msgspec.json.decode(answer, type=Enrolment)
    except msgspec.MsgspecError as error:
        raise EnrolmentFailed("the coordinator's answer is not an enrolment") from error
    return DeviceState.create(folder, enrolment)


def _identity(folder: Path) -> DeviceIdentity:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return DeviceIdentity.open(folder / IDENTITY)
