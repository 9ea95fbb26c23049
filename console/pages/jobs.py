"""Federated jobs, from the log: how each went, over how many devices, and how many answers are left."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from audit.index import Hit, RecordIndex, Search, search
from audit.records import JobRecord, JobState
from console.pages.rows import path_of
from console.words import clock
from policies import Numbers

RECORDS_MOST: Final = 500
JOBS_SHOWN: Final = 100
TONES: Final = {JobState.DONE: "calm", JobState.REFUSED: "caution", JobState.FAILED: "alert"}


class JobRow(Struct, frozen=True, kw_only=True):
    """One job as it stands."""

    path: str
    asked: str
    kind: str
    model: str
    who: str
    state: str
    tone: str
    cohort: str
    policies: str


class BudgetRow(Struct, frozen=True, kw_only=True):
    """How many answers about a release were given, of those that policy allows."""

    release: str
    answered: int
    allowed: int
    share: float


class JobsPage(Struct, frozen=True, kw_only=True):
    """What the page shows; `rule` is what policy allows, empty where it sets no number."""

    jobs: tuple[JobRow, ...]
    budget: tuple[BudgetRow, ...]
    rule: str


async def jobs_page(index: RecordIndex, numbers: Numbers | None, now: datetime) -> JobsPage:
    """Return the jobs that the newest records are about."""
    page = await search(index, Search(type="job"), count=RECORDS_MOST)
    records = [hit.record for hit in page.hits if isinstance(hit.record, JobRecord)]
    latest: dict[UUID, Hit] = {}
    asked: dict[UUID, datetime] = {}
    for hit in page.hits:
        latest.setdefault(hit.record.id, hit)
        asked[hit.record.id] = hit.record.time
    return JobsPage(
        jobs=tuple(
            JobRow(
                path=path_of(hit.origin, hit.position),
                asked=clock(asked[id_]),
                kind=record.kind,
                model=f"{record.model} v{record.model_version}",
                who=record.principal or "",
                state=record.state.value,
                tone=TONES.get(record.state, "plain"),
                cohort=f"{record.cohort} (at least {record.cohort_minimum})"
                if record.cohort
                else f"at least {record.cohort_minimum}",
                policies=", ".join(record.policies),
            )
            for id_, hit in list(latest.items())[:JOBS_SHOWN]
            if isinstance(record := hit.record, JobRecord)
        ),
        budget=_budget(records, numbers, now),
        rule=_rule(numbers),
    )


def _rule(numbers: Numbers | None) -> str:
    if numbers is None or numbers.answers_per_release is None:
        return ""
    days = numbers.answers_period_days or 0
    return f"{numbers.answers_per_release} answers about a release in {days} days"


def _budget(
    records: Sequence[JobRecord], numbers: Numbers | None, now: datetime
) -> tuple[BudgetRow, ...]:
    if numbers is None or numbers.answers_per_release is None:
        return ()
    allowed = numbers.answers_per_release
    since = now - timedelta(days=numbers.answers_period_days or 0)
    answered: dict[str, int] = {}
    for record in records:
        name = f"{record.model} v{record.model_version}"
        given = record.state is JobState.DONE and record.time > since
        answered[name] = answered.get(name, 0) + given
    return tuple(
        BudgetRow(
            release=name, answered=count, allowed=allowed, share=min(100.0, 100 * count / allowed)
        )
        for name, count in sorted(answered.items())
    )
