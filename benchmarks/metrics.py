"""What counting for metrics costs each request: `python benchmarks/metrics.py`."""

import argparse
import time
from datetime import UTC, datetime
from uuid import UUID

from audit.records import Action, Outcome, RequestRecord
from secure_gateway.counting import RequestCounters

REQUESTS = 200_000
ROUNDS = 7

record = RequestRecord(
    time=datetime(2026, 11, 24, tzinfo=UTC),
    id=UUID(int=1),
    action=Action.INFER,
    outcome=Outcome.SERVED,
    status=200,
    model="sepsis",
    placement="node:local",
    duration_us=740,
)


def cost_us() -> float:
    counters = RequestCounters()
    count = counters.count
    started = time.perf_counter()
    for _ in range(REQUESTS):
        count(record)
    return (time.perf_counter() - started) / REQUESTS * 1e6


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(f"counting one request: {min(cost_us() for _ in range(ROUNDS)):.2f} us")


if __name__ == "__main__":
    main()
