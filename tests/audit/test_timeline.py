from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.records import Outcome
from audit.reports.timeline import Unit, timeline

START = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "unit", "first", "last", "count"),
    [
        (timedelta(0), Unit.HOUR, "2026-11-23 08:00", "2026-11-23 08:00", 1),
        (timedelta(hours=30), Unit.HOUR, "2026-11-23 08:00", "2026-11-24 14:00", 31),
        (timedelta(days=30), Unit.DAY, "2026-11-23", "2026-12-23", 31),
        (timedelta(days=90), Unit.WEEK, "2026-11-23", "2027-02-15", 13),
        (timedelta(days=365), Unit.MONTH, "2026-11", "2027-11", 13),
    ],
)
def test_its_buckets_fit_the_period(period, unit, first, last, count):
    found, buckets = timeline([], START, START + period)
    assert found is unit
    assert (buckets[0].label, buckets[-1].label, len(buckets)) == (first, last, count)


@given(
    st.lists(st.tuples(st.integers(0, 10**8), st.sampled_from(Outcome)), min_size=1, max_size=40),
    st.integers(-12, 14),
)
def test_every_request_is_counted_once(request_record_of, requests, zone):
    records = [
        request_record_of(
            outcome=outcome,
            time=(START + timedelta(seconds=seconds)).astimezone(timezone(timedelta(hours=zone))),
        )
        for seconds, outcome in requests
    ]
    until = max(record.time for record in records) + timedelta(microseconds=1)
    _, buckets = timeline(records, START, until)
    for outcome in Outcome:
        counted = sum(getattr(bucket, outcome.value) for bucket in buckets)
        assert counted == sum(record.outcome is outcome for record in records)
    assert len({bucket.label for bucket in buckets}) == len(buckets)


@pytest.fixture(scope="module")
def request_record_of():
    from uuid import UUID

    from audit.records import Action, RequestRecord

    record = RequestRecord(
        time=START, id=UUID(int=1), action=Action.INFER, outcome=Outcome.SERVED, status=200
    )
    return lambda **changes: msgspec.structs.replace(record, **changes)
