"""What outside gRPC clients have to be told, as metadata."""

import pytest


def as_metadata(headers):
    """gRPC takes names in lower case only, and Triton's client leaves that to its caller."""
    return {name.lower(): value for name, value in headers.items()}


@pytest.fixture(scope="session")
def facts(headers):
    """Give what an unmodified client has to be told: its token and the facts, as metadata."""
    return lambda **more: as_metadata(headers()) | more


@pytest.fixture(scope="session")
def manager(operator):
    """Give the metadata of somebody who may load models and read what they did."""
    return lambda: as_metadata(operator())
