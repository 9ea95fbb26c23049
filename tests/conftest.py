from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings

from audit.records import Action, Outcome, RequestRecord

# Machines are shared and noisy: a slow example is no failure.
settings.register_profile(
    "bedside", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("bedside")


# Folders whose files take longest; begun first, none is left over for one process alone.
LONGEST = ("end_to_end", "docs", "federation", "conformance", "coordinator")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    folders = item.path.parts
    return next((turn for turn, name in enumerate(LONGEST) if name in folders), len(LONGEST))


@pytest.fixture
def request_record() -> RequestRecord:
    return RequestRecord(
        time=datetime(2026, 11, 23, 8, 30, tzinfo=UTC),
        id=UUID(int=7),
        action=Action.INFER,
        outcome=Outcome.SERVED,
        status=200,
        principal="dr.adams",
        roles=("clinician",),
        subject="ab" * 32,
        model="sepsis",
        model_version="1",
        data_class="phi",
        jurisdiction="US-CA",
        purpose="TREAT",
        placement="node:us-1",
        policies=("hipaa-treatment",),
        bundle="cd" * 32,
    )
