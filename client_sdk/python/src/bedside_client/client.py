"""The client: asks where a request may run, runs it here when told to, sends it where it may go."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import msgspec
import numpy as np
from msgspec import Struct

from bedside_client.datatypes import Array, datatype_of, dtype_of
from bedside_client.enrolment import enroll
from bedside_client.errors import ModelFailed, PackageRejected, Unavailable
from bedside_client.http import parse, read
from bedside_client.obligations import LocalObligations
from bedside_client.packages import PackageStore, fetch
from bedside_client.runtime import LocalModel
from bedside_client.state import DeviceState

T = TypeVar("T")

SELF = "device:self"
TIMEOUT_S = 30.0


class Placement(Struct, frozen=True, kw_only=True):
    """Where a request may run, and why; `token` goes back with the receipt."""

    id: str
    placement: str
    model: str
    version: str
    policies: tuple[str, ...]
    citations: tuple[str, ...]
    obligations: tuple[str, ...]
    explanation: str
    expires: str
    token: str
    record: str
    model_digest: str | None = None

    @property
    def local(self) -> bool:
        """Whether the request runs on this device."""
        return self.placement == SELF


class Prediction(Struct, frozen=True, kw_only=True):
    """What the model answered, where it ran and why, and its record in the site's log."""

    outputs: dict[str, Array]
    placement: str
    policies: tuple[str, ...]
    citations: tuple[str, ...]
    record: str


class Client:
    """Talks to one gateway, as an app with a token or as an enrolled device."""

    def __init__(
        self, url: str | None = None, *, token: str | None = None, state: DeviceState | None = None
    ) -> None:
        """Use a token, or an enrolled device's state (which knows its gateway's URL)."""
        if (token is None) == (state is None):
            raise ValueError("give either a token or a device's state")
        base = url or (state.enrolment.gateway_url if state is not None else None)
        if base is None:
            raise ValueError("with a token, give the gateway's URL too")
        self._base = base.rstrip("/")
        self._token = token
        self._state = state
        self._session: aiohttp.ClientSession | None = None
        self._models: dict[str, LocalModel] = {}

    @classmethod
    async def enroll(cls, coordinator_url: str, code: str, folder: Path) -> "Client":
        """Enrol this device with a one-time code and return its client."""
        return cls(state=await enroll(coordinator_url, code, folder))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def place(
        self,
        model: str,
        *,
        version: str | None = None,
        subject: str | None = None,
        data_class: str | None = None,
        jurisdiction: str | None = None,
        purpose: str | None = None,
        consent: bool = False,
        emergency: bool = False,
        on_device: bool = False,
    ) -> Placement:
        """Ask where a request may run; only facts are sent.

        Raises:
            Refused, TokenRejected, RequestInvalid, Unavailable: as the gateway answers.
        """
        facts: dict[str, Any] = {
            "model": model,
            "version": version,
            "subject": subject,
            "data_class": data_class,
            "jurisdiction": jurisdiction,
            "purpose": purpose,
            "consent": consent,
            "emergency": emergency,
            "on_device": on_device,
        }
        body = {name: value for name, value in facts.items() if value is not None}
        answer = await self._post("/v1/placements", msgspec.json.encode(body), {})
        try:
            return msgspec.json.decode(answer, type=Placement)
        except msgspec.MsgspecError as error:
            raise Unavailable("the gateway's answer is not a placement") from error

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: str | None = None,
        subject: str | None = None,
        data_class: str | None = None,
        jurisdiction: str | None = None,
        purpose: str | None = None,
        consent: bool = False,
        emergency: bool = False,
    ) -> Prediction:
        """Run a model on `inputs` where policy allows it: here, or on a node of the site.

        The gateway first sees facts only. Told to stay, the request runs on this device and a
        receipt is sent; else the inputs are sent to the gateway.

        Raises:
            Refused, TokenRejected, RequestInvalid, Unavailable: as the gateway answers.
            PackageRejected, RuntimeMissing, ModelFailed: if the model cannot run here.
        """
        placement = await self.place(
            model,
            version=version,
            subject=subject,
            data_class=data_class,
            jurisdiction=jurisdiction,
            purpose=purpose,
            consent=consent,
            emergency=emergency,
            on_device=self._state is not None,
        )
        if placement.local:
            return await self._infer_here(placement, inputs)
        claims = {
            "Bedside-Subject": subject,
            "Bedside-Data-Class": data_class,
            "Bedside-Jurisdiction": jurisdiction,
            "Bedside-Purpose": purpose,
            "Bedside-Consent": str(consent).lower(),
            "Bedside-Emergency": str(emergency).lower(),
        }
        headers = {name: value for name, value in claims.items() if value is not None}
        return await self._infer_there(model, version, inputs, headers)

    async def _infer_here(self, placement: Placement, inputs: Mapping[str, Array]) -> Prediction:
        kept = LocalObligations.of(placement.obligations, placement.policies, placement.citations)
        started = time.perf_counter_ns()
        rows = max((len(value) for value in inputs.values()), default=0)
        try:
            digest, model = await self._local(placement)
            outputs = kept.apply(await asyncio.to_thread(model.run, inputs))
        except (ModelFailed, PackageRejected):
            await self._receipt(placement, placement.model_digest or "0" * 64, 0, 0, "failed")
            raise
        duration_us = (time.perf_counter_ns() - started) // 1000
        record = await self._receipt(placement, digest, rows, duration_us, "served")
        return Prediction(
            outputs=outputs,
            placement=placement.placement,
            policies=placement.policies,
            citations=placement.citations,
            record=record,
        )

    async def _local(self, placement: Placement) -> tuple[str, LocalModel]:
        """Return the model that the placement names, verified, fetching it first if need be."""
        if self._state is None:
            raise PackageRejected("only an enrolled device runs models itself")
        store = PackageStore.of(self._state)
        try:
            package, data = await asyncio.to_thread(store.load, placement.model, placement.version)
        except PackageRejected:
            await fetch(self._state, placement.model, placement.version)
            package, data = await asyncio.to_thread(store.load, placement.model, placement.version)
        if placement.model_digest is not None and package.digest != placement.model_digest:
            raise PackageRejected("this device's model is not the one that the site serves")
        model = self._models.get(package.digest)
        if model is None:
            model = self._models[package.digest] = await asyncio.to_thread(LocalModel, data)
        return package.digest, model

    async def _receipt(
        self, placement: Placement, digest: str, rows: int, duration_us: int, outcome: str
    ) -> str:
        body = {
            "id": placement.id,
            "token": placement.token,
            "model_digest": digest,
            "rows": rows,
            "duration_us": duration_us,
            "outcome": outcome,
        }
        answer = parse(await self._post("/v1/receipts", msgspec.json.encode(body), {}))
        return str(answer.get("record", ""))

    async def _infer_there(
        self,
        model: str,
        version: str | None,
        inputs: Mapping[str, Array],
        claims: Mapping[str, str],
    ) -> Prediction:
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        tensors = [_tensor(name, np.asarray(value)) for name, value in inputs.items()]
        answer = parse(await self._post(path, msgspec.json.encode({"inputs": tensors}), dict(claims)))
        about: dict[str, str] = answer.get("parameters", {})
        return Prediction(
            outputs={output["name"]: _array(output) for output in answer.get("outputs", ())},
            placement=about.get("bedside_placement", ""),
            policies=tuple(filter(None, about.get("bedside_policies", "").split(", "))),
            citations=tuple(filter(None, about.get("bedside_citations", "").split("; "))),
            record=about.get("bedside_record", ""),
        )

    async def _post(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        # A device's assertion is good once: each request signs its own.
        token = self._state.assertion() if self._state is not None else self._token
        sent = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            **headers,
        }
        try:
            async with self._session.post(self._base + path, data=body, headers=sent) as response:
                return await read(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable("the gateway does not answer") from error


class SyncClient:
    """The same client for code without an event loop; it keeps one of its own in a thread."""

    def __init__(
        self, url: str | None = None, *, token: str | None = None, state: DeviceState | None = None
    ) -> None:
        self._client = Client(url, token=token, state=state)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="bedside-client", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def place(self, model: str, **facts: Any) -> Placement:  # noqa: ANN401 as Client.place types them
        """Ask where a request may run; see `Client.place`."""
        return self._run(self._client.place(model, **facts))

    def infer(self, model: str, inputs: Mapping[str, Array], **facts: Any) -> Prediction:  # noqa: ANN401 as Client.infer types them
        """Run a model where policy allows it; see `Client.infer`."""
        return self._run(self._client.infer(model, inputs, **facts))

    def close(self) -> None:
        """Close the connections and end the thread."""
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _tensor(name: str, value: Array) -> dict[str, Any]:
    return {
        "name": name,
        "shape": value.shape,
        "datatype": datatype_of(value),
        "data": value.ravel().tolist(),
    }


def _array(output: dict[str, Any]) -> Array:
    dtype = dtype_of(output["datatype"])
    return np.array(output["data"], dtype=dtype).reshape(output["shape"])
