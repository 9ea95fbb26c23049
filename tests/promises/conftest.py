import pytest
from support import GatewayProcess, make_site, publish_linear


@pytest.fixture
def gateway(tmp_path):
    """A real gateway process with an embedded node that serves one model."""
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as running:
        yield running
