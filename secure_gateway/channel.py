"""The device channel: requests that travel to the device that holds the data.

A device keeps one WebSocket open to the gateway and needs no open port of its own. The gateway
sends the request's names, never tensors; the device answers from its own row.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Iterable
from uuid import UUID

from inference_node import MALFORMED
from secure_gateway import frames
from secure_gateway.asgi import Receive, Send
from secure_gateway.errors import GatewayError

HEARTBEAT_S = 20.0
PENDING_MAX = 64

POLICY_VIOLATION = 1008
TRY_AGAIN_LATER = 1013
PROTOCOL_ERROR = 1002
REPLACED = 4000
REVOKED = 4003


class DeviceOffline(GatewayError):
    """Raised when the device is not connected, so that it was not sent the request."""


class DeviceDropped(GatewayError):
    """Raised when the device's connection dropped after it was sent the request; it may have run."""


class DeviceBusy(GatewayError):
    """Raised when too many requests already wait for the device."""


class DeviceError(GatewayError):
    """Raised when the device answers that it did not run the request; `code` says why."""

    def __init__(self, code: frames.ErrorCode) -> None:
        super().__init__(f"the device answered: {code}")
        self.code = code


class DeviceConnection:
    """One device's open channel: numbers requests and matches answers to them."""

    def __init__(self, placement: str, send: Send) -> None:
        self.placement = placement
        self._send = send
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[frames.Result]] = {}

    @property
    def outstanding(self) -> int:
        """How many requests wait for this device."""
        return len(self._pending)

    async def infer(
        self,
        *,
        request_id: UUID,
        model: str,
        version: str | None,
        subject: str | None,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        timeout_s: float,
    ) -> frames.Result:
        """Have the device run `model` on the subject's own data.

        Raises:
            DeviceBusy: if 64 requests already wait for it.
            DeviceOffline: if the connection is gone before the request is sent.
            DeviceDropped: if it drops before the device answers.
            DeviceError: if the device says it did not run.
            TimeoutError: if it does not answer within `timeout_s`; the device is told to stop.
        """
        if len(self._pending) >= PENDING_MAX:
            raise DeviceBusy(f"{PENDING_MAX} requests already wait for the device")
        number = next(self._ids)
        future: asyncio.Future[frames.Result] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            await self.send_frame(
                frames.Infer(
                    id=number,
                    request_id=request_id,
                    model=model,
                    version=version,
                    subject=subject,
                    inputs=inputs,
                    outputs=outputs,
                    deadline_ms=int(timeout_s * 1000),
                )
            )
            async with asyncio.timeout(timeout_s):
                return await future
        except (TimeoutError, asyncio.CancelledError):
            if not future.done() or future.cancelled():
                # A device that is gone need not be told; what happened stays what happened.
                with contextlib.suppress(DeviceOffline):
                    await self.send_frame(frames.Cancel(id=number))
            raise
        finally:
            self._pending.pop(number, None)

    async def send_frame(self, frame: frames.Frame) -> None:
        """Send one frame.

        Raises:
            DeviceOffline: if the connection is gone.
        """
        try:
            await self._send({"type": "websocket.send", "text": frames.encode(frame).decode()})
        except OSError as error:
            raise DeviceOffline("the device's connection dropped") from error

    def settle(self, frame: frames.Result | frames.Failure) -> None:
        """Hand an answer to whoever waits for it; answers that nobody waits for are dropped."""
        future = self._pending.get(frame.id)
        if future is None or future.done():
            return
        if isinstance(frame, frames.Failure):
            future.set_exception(DeviceError(frame.code))
        else:
            future.set_result(frame)

    def drop(self) -> None:
        """Tell everyone who waits that the connection is gone."""
        for future in self._pending.values():
            if not future.done():
                future.set_exception(DeviceDropped("the device's connection dropped"))

    async def close(self, code: int) -> None:
        """Close the WebSocket with `code`."""
        await self._send({"type": "websocket.close", "code": code})


class DeviceHub:
    """All open channels of this gateway, by placement (`device:<id>`)."""

    def __init__(self) -> None:
        self._connections: dict[str, DeviceConnection] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def connection(self, placement: str) -> DeviceConnection:
        """Return the device's open channel.

        Raises:
            DeviceOffline: if the device is not connected.
        """
        connection = self._connections.get(placement)
        if connection is None:
            raise DeviceOffline("the device is not connected")
        return connection

    @property
    def count(self) -> int:
        """How many devices are connected."""
        return len(self._connections)

    def connected(self) -> list[str]:
        """Return the placements of the connected devices, sorted."""
        return sorted(self._connections)

    async def serve(self, placement: str, receive: Receive, send: Send) -> None:
        """Speak with one accepted, authenticated device until its connection ends."""
        connection = DeviceConnection(placement, send)
        try:
            while True:
                event = await receive()
                if event["type"] != "websocket.receive":
                    return
                try:
                    frame = frames.decode_from_device(event.get("text") or event.get("bytes") or b"")
                except MALFORMED:
                    await connection.close(PROTOCOL_ERROR)
                    return
                if isinstance(frame, frames.Ready):
                    await self._join(connection)
                else:
                    connection.settle(frame)
        finally:
            self._leave(connection)

    def revoke(self, placements: Iterable[str]) -> None:
        """Close the channels of devices that are no longer enrolled."""
        for placement in placements:
            connection = self._connections.get(placement)
            if connection is not None:
                self._leave(connection)
                self._close_later(connection, REVOKED)

    async def close(self) -> None:
        """Drop every channel; called when the gateway stops."""
        for connection in list(self._connections.values()):
            self._leave(connection)
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _join(self, connection: DeviceConnection) -> None:
        earlier = self._connections.get(connection.placement)
        self._connections[connection.placement] = connection
        if earlier is not None and earlier is not connection:
            # The device came back before its old connection was seen to be dead.
            earlier.drop()
            self._close_later(earlier, REPLACED)
        await connection.send_frame(frames.Welcome(heartbeat_s=HEARTBEAT_S))

    def _leave(self, connection: DeviceConnection) -> None:
        connection.drop()
        if self._connections.get(connection.placement) is connection:
            del self._connections[connection.placement]

    def _close_later(self, connection: DeviceConnection, code: int) -> None:
        task = asyncio.get_running_loop().create_task(connection.close(code))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
