import asyncio
import errno
from datetime import UTC, datetime

import pytest

from audit import LogUnavailable
from audit.records import JobRecord, JobState
from coordinator.errors import JobError
from coordinator.store import Device, Job


async def add_devices(store, count: int) -> None:
    async with store.session() as session:
        for index in range(count):
            session.add(
                Device(
                    id=f"device-{index}",
                    public_key=f"{index:064x}",
                    jurisdiction="US-CA",
                    enrolled=datetime.now(UTC),
                    revoked=False,
                    subjects=[],
                )
            )


async def submit(jobs, make_release, cohort_minimum: int | None = None) -> Job:
    return await jobs.submit(
        make_release()[0],
        principal="e.ito",
        cohort_minimum=cohort_minimum,
        policies=("base-api-engineers",),
        bundle="ab" * 32,
    )


async def ended(jobs, job_id: str) -> Job:
    await asyncio.gather(*jobs._running)
    return await jobs.find(job_id)


def states(recorded) -> list[JobState]:
    return [entry.state for entry in recorded() if isinstance(entry, JobRecord)]


async def test_a_cohort_below_k_is_refused_and_recorded(jobs, store, make_release, recorded):
    await add_devices(store, 1)
    with pytest.raises(JobError, match="fewer than 2 devices are enrolled"):
        await submit(jobs, make_release)
    assert states(recorded) == [JobState.QUEUED, JobState.REFUSED]
    (job,) = await jobs.list()
    assert (job.state, job.result) == (JobState.REFUSED, None)


async def test_revoked_devices_do_not_fill_a_cohort(jobs, store, make_release):
    await add_devices(store, 2)
    async with store.session() as session:
        (await session.get_one(Device, "device-0")).revoked = True
    with pytest.raises(JobError, match="fewer than 2"):
        await submit(jobs, make_release)


async def test_a_job_cannot_ask_for_less_than_the_sites_k(jobs, store, make_release, recorded):
    await add_devices(store, 5)
    with pytest.raises(JobError, match="no result from fewer than 2"):
        await submit(jobs, make_release, cohort_minimum=1)
    assert states(recorded)[-1] == JobState.REFUSED


async def test_a_job_may_ask_for_more_than_the_sites_k(jobs, store, make_release):
    await add_devices(store, 3)
    with pytest.raises(JobError, match="fewer than 4"):
        await submit(jobs, make_release, cohort_minimum=4)


async def test_without_a_superlink_a_job_fails_with_a_reason(
    jobs, store, make_release, recorded, superlink
):
    await add_devices(store, 2)
    submitted = await submit(jobs, make_release)
    job = await ended(jobs, submitted.id)
    assert (job.state, job.result) == (JobState.FAILED, None)
    assert "SuperLink is not running" in job.reason
    assert states(recorded) == [JobState.QUEUED, JobState.RUNNING, JobState.FAILED]
    assert list(superlink.runs.iterdir()) == []


async def test_a_restart_fails_what_was_interrupted_and_leaves_the_rest(jobs, store, recorded):
    async with store.session() as session:
        for name, state in (("1", "running"), ("2", "queued"), ("3", "done")):
            session.add(
                Job(
                    id=f"00000000-0000-4000-8000-00000000000{name}",
                    kind="evaluate",
                    model="sepsis",
                    version="1",
                    principal="e.ito",
                    state=state,
                    cohort_minimum=2,
                    cohort=0,
                    created=datetime.now(UTC),
                    result={"rows": 3} if state == "done" else None,
                )
            )
    await jobs.recover()
    assert {job.id[-1]: job.state for job in await jobs.list()} == {
        "1": "failed",
        "2": "failed",
        "3": "done",
    }
    assert states(recorded) == [JobState.FAILED, JobState.FAILED]
    assert all(job.reason == "the coordinator was restarted" for job in await jobs.list() if job.reason)


async def test_stopping_fails_the_running_job_cleanly(
    jobs, store, make_release, recorded, superlink, monkeypatch
):
    await add_devices(store, 2)
    running = asyncio.Event()

    async def never(*_):
        running.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(superlink, "run", never)
    submitted = await submit(jobs, make_release)
    await running.wait()
    await jobs.close()
    job = await jobs.find(submitted.id)
    assert (job.state, job.reason) == (JobState.FAILED, "the coordinator was stopped")
    assert states(recorded)[-1] == JobState.FAILED


async def test_a_job_that_cannot_be_recorded_is_not_accepted(
    jobs, store, make_release, log, monkeypatch
):
    await add_devices(store, 2)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log._wal, "append", full)
    with pytest.raises(LogUnavailable):
        await submit(jobs, make_release)
    assert await jobs.list() == []


async def test_too_many_waiting_jobs_are_refused(jobs, store, make_release, superlink, monkeypatch):
    await add_devices(store, 2)

    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(superlink, "run", never)
    for _ in range(16):
        await submit(jobs, make_release)
    with pytest.raises(JobError, match="16 jobs already wait"):
        await submit(jobs, make_release)
