"""What outside gRPC clients have to be told, as metadata."""

import pytest

from policies import Role


@pytest.fixture(scope="session")
def facts(gateway):
    """Give what an unmodified client has to be told: its token and the facts, as metadata.

    gRPC takes names in lower case only, and Triton's client leaves that to its caller.
    """
    token = gateway.token()

    def fresh(**more):
        return {
            "authorization": f"Bearer {token}",
            "bedside-data-class": "deidentified",
            "bedside-purpose": "TREAT",
            **more,
        }

    return fresh


@pytest.fixture(scope="session")
def manager(gateway):
    """Give the metadata of somebody who may load models and read what they did."""
    token = gateway.token("it.ward", Role.OPERATOR)
    return lambda: {"authorization": f"Bearer {token}"}
