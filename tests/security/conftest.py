import pytest
from support import GatewayProcess, make_site, publish_linear


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    """One real gateway with an embedded node for all attacks: none of them may wear it down."""
    folder = tmp_path_factory.mktemp("attacked")
    site = make_site(folder)
    publish_linear(site, folder)
    with GatewayProcess(site, folder) as running:
        yield running
