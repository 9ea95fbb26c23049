"""The device agent: keeps a device reachable, answers from its own data, joins federated jobs."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bedside_client.channel import (
    Answer,
    Channel,
    ConsentRefused,
    Event,
    InferFrame,
    OutputTensor,
    SubjectUnknown,
)
from bedside_client.data import DataProvider, SqliteData
from bedside_client.datatypes import Array, datatype_of
from bedside_client.errors import ModelFailed, PackageRejected, Unavailable
from bedside_client.packages import PackageStore, fetch
from bedside_client.runtime import LocalModel
from bedside_client.state import DeviceState

Consent = Callable[[str], bool]

STOP_GRACE_S: Final = 10.0
FETCH_RETRY_S: Final = 1.0


class Agent:
    """Runs one device until it is stopped."""

    def __init__(
        self,
        state: DeviceState,
        *,
        data: DataProvider | None = None,
        consent: Consent = lambda _: True,
        event: Event = lambda _name, _fields: None,
    ) -> None:
        """`consent` is asked for each subject before its data is used."""
        self._state = state
        self._data = data or SqliteData(state.data)
        self._consent = consent
        self._event = event
        self._store = PackageStore.of(state)
        self._models: dict[str, LocalModel] = {}

    async def run(self, models: tuple[str, ...]) -> None:
        """Fetch `models`, then stay on the channel until cancelled."""
        for model in models:
            await self._fetch(model)
        await Channel(self._state, self.answer, self._store.packages, self._event).run()

    async def answer(self, request: InferFrame) -> Answer:
        """Run a request on this device's own data.

        Raises:
            SubjectUnknown, ConsentRefused, PackageRejected, ModelFailed: why it did not run.
        """
        subject = request.subject
        if subject is None:
            raise SubjectUnknown
        if not self._consent(subject):
            raise ConsentRefused
        feed = {}
        for name in request.inputs:
            row = await asyncio.to_thread(self._data.row, subject, name)
            if row is None:
                raise SubjectUnknown
            feed[name] = row
        package, data = await asyncio.to_thread(self._store.load, request.model, request.version)
        model = self._models.get(package.digest)
        if model is None:
            model = self._models[package.digest] = await asyncio.to_thread(LocalModel, data)
        outputs = await asyncio.to_thread(model.run, feed, request.outputs)
        return Answer(
            package=package,
            outputs=tuple(_tensor(name, value) for name, value in outputs.items()),
        )

    async def _fetch(self, model: str) -> None:
        while True:
            try:
                package = await fetch(self._state, model)
            except Unavailable:
                self._event("waiting for release", {"model": model})
                await asyncio.sleep(FETCH_RETRY_S)
            except PackageRejected:
                self._event("release rejected", {"model": model})
                raise
            else:
                self._event("release verified", {"model": model, "version": package.version})
                return


async def run_agent(folder: Path, *, models: tuple[str, ...], federated: bool, event: Event) -> None:
    """Run the device in `folder` until SIGINT or SIGTERM, then end everything it started.

    Raises:
        StateError: if `folder` holds no enrolled device.
        BedsideClientError: if the device cannot go on.
    """
    state = DeviceState.open(folder)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    supernode = await _start_supernode(state) if federated else None
    working = asyncio.create_task(Agent(state, event=event).run(models))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        stopping.cancel()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        if supernode is not None:
            await _end(supernode)


def _tensor(name: str, value: Array) -> OutputTensor:
    try:
        datatype = datatype_of(value)
    except ValueError as error:
        raise ModelFailed("the model gives values that no answer can hold") from error
    return OutputTensor(name=name, datatype=datatype, shape=value.shape, data=value.ravel().tolist())


async def _start_supernode(state: DeviceState) -> "asyncio.subprocess.Process":
    from bedside_client.federated import supernode  # noqa: PLC0415 needs the `federated` extra

    command, environment = supernode(state)
    # A group of its own: Flower starts a process for each message, and all must end with it.
    return await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        # Its tracebacks show what errors say, and so what a model was given.
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )


async def _end(process: "asyncio.subprocess.Process") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_GRACE_S):
            await process.wait()
    except TimeoutError:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def describe_event(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return one line of the agent's event stream; it never holds content or a subject."""
    return {"event": name, **fields}
