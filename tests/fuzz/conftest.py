import pytest
from support import GatewayProcess, make_site, publish_linear


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    site = make_site(folder, gateway={"consent": {"registry": True}})
    publish_linear(site, folder)
    with GatewayProcess(site, folder) as running:
        yield running
