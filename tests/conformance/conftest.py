"""One live gateway for all outside clients, over both protocols."""

import pytest
import tritonclient.http
import tritonclient.http.aio
from conformance.awaited import Awaited
from conformance.identity import MODELS, write_models
from support import GatewayProcess, make_site
from support.models import stepping_model
from support.sites import free_port

from bedside.config import EXAMPLE_ACCESS
from inference_node import Device, NodeSettings
from policies import Role


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conformance")
    write_models(folder / "models")
    stepping_model(folder / "models", steps=5)
    site = make_site(
        folder,
        gateway={"grpc_port": free_port()},
        node=NodeSettings(repository=folder / "models", device=Device.CPU),
        models=dict.fromkeys((*MODELS, "halving"), EXAMPLE_ACCESS),
    )
    with GatewayProcess(site, folder) as running:
        yield running


@pytest.fixture(scope="session")
def headers(gateway):
    """Give what an unmodified client has to be told: its token, and the facts, as plain headers.

    Called anew for each request: Triton's clients write headers of their own into what they are given.
    """
    token = gateway.token()

    def fresh(**more):
        return {
            "Authorization": f"Bearer {token}",
            "Bedside-Data-Class": "deidentified",
            "Bedside-Purpose": "TREAT",
            **more,
        }

    return fresh


@pytest.fixture(scope="session")
def operator(gateway):
    """Give the headers of somebody who may load models and read what they did."""
    token = gateway.token("it.ward", Role.OPERATOR)
    return lambda: {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module", params=["http", "http.aio"])
def client(request, gateway):
    address = gateway.url.removeprefix("http://")
    if request.param == "http":
        with tritonclient.http.InferenceServerClient(address, concurrency=4) as made:
            yield made
        return
    made = Awaited(lambda: tritonclient.http.aio.InferenceServerClient(address))
    yield made
    made.leave()
