import pytest
from support import GatewayProcess, make_site, publish_linear
from support.sites import free_port


@pytest.fixture
def gateway(tmp_path):
    """A real gateway process with an embedded node that serves one model."""
    gateway = {"grpc_port": free_port(), "consent": {"registry": True}}
    site = make_site(tmp_path, gateway=gateway)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as running:
        yield running
