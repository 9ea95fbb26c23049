"""The life of a federated job: queued, running, then done, failed or refused; each step recorded."""

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, update

from audit import LogUnavailable
from audit.records import JobRecord, JobState
from coordinator.budget import Budget
from coordinator.errors import JobError
from coordinator.federated.job import FederatedJob, Outcome, sign_job
from coordinator.federated.rundir import RunFolder
from coordinator.federated.statistics import BINS, metrics
from coordinator.federated.superlink import SuperLink
from coordinator.recording import Record
from coordinator.releases import Release
from coordinator.store import Device, Job, Store

EVALUATE: Final = "evaluate"
WAITING_MAX: Final = 16
RECORD_RETRY_S: Final = 1.0


class JobRunner:
    """Runs federated jobs of one site, one at a time."""

    def __init__(
        self,
        *,
        store: Store,
        superlink: SuperLink,
        record: Record,
        key: Ed25519PrivateKey,
        site: str,
        budget: Budget,
        timeout_s: float,
    ) -> None:
        self._store = store
        self._superlink = superlink
        self._record = record
        self._key = key
        self._site = site
        self._budget = budget
        self._timeout_s = timeout_s
        self._one_at_a_time = asyncio.Lock()
        self._running: dict[asyncio.Task[None], tuple[str, str]] = {}

    async def recover(self) -> None:
        """Fail the jobs that a restart interrupted: their devices' answers are gone."""
        await asyncio.to_thread(shutil.rmtree, self._superlink.runs, ignore_errors=True)
        async with self._store.session() as session:
            open_states = (JobState.QUEUED, JobState.RUNNING)
            jobs = list(await session.scalars(select(Job).where(Job.state.in_(open_states))))
        for job in jobs:
            await self._move(job, JobState.FAILED, reason="the coordinator was restarted")

    async def submit(
        self,
        release: Release,
        *,
        principal: str,
        cohort_minimum: int | None,
        policies: tuple[str, ...],
        bundle: str,
    ) -> Job:
        """Accept an evaluation of `release` and run it in the background.

        Raises:
            JobError: if `cohort_minimum` (by default the least that is allowed) is below that, fewer
                devices are enrolled, too many jobs wait, or the answers that policy allows of the
                release are used up; recorded as refused.
        """
        minimum = self._budget.cohort_minimum if cohort_minimum is None else cohort_minimum
        job = Job(
            id=str(uuid4()),
            kind=EVALUATE,
            model=release.model,
            version=release.version,
            principal=principal,
            state=JobState.QUEUED,
            cohort_minimum=minimum,
            cohort=0,
            created=datetime.now(UTC),
        )
        await self._record(_record_of(job, policies=policies, bundle=bundle))
        async with self._store.session() as session:
            session.add(job)
        reason = await self._objection(minimum, release)
        if reason is not None:
            await self._move(job, JobState.REFUSED, reason=reason)
            raise JobError(f"refused: {reason}")
        task = asyncio.create_task(self._run(job, release), name=f"job-{job.id}")
        self._running[task] = (release.model, release.version)
        task.add_done_callback(self._running.pop)
        return job

    async def _objection(self, minimum: int, release: Release) -> str | None:
        if minimum < self._budget.cohort_minimum:
            return f"this site makes no result from fewer than {self._budget.cohort_minimum} devices"
        if len(await self._cohort()) < minimum:
            return f"fewer than {minimum} devices are enrolled"
        if len(self._running) >= WAITING_MAX:
            return f"{WAITING_MAX} jobs already wait; submit it again when one has ended"
        # Nothing is awaited between this and the task, so that two jobs never take one place.
        about = (release.model, release.version)
        waiting = sum(other == about for other in self._running.values())
        return self._budget.objection(about, waiting, datetime.now(UTC))

    async def find(self, job_id: str) -> Job | None:
        """Return a job by its id."""
        async with self._store.session() as session:
            return await session.get(Job, job_id)

    async def list(self) -> list[Job]:
        """Return every job, newest first."""
        async with self._store.session() as session:
            return list(await session.scalars(select(Job).order_by(Job.created.desc())))

    async def close(self) -> None:
        """Stop what runs; it is recorded as failed."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job, release: Release) -> None:
        try:
            async with self._one_at_a_time:
                if job.cohort_minimum < self._budget.cohort_minimum:
                    raise JobError("policy has come to ask for a larger cohort since it was submitted")
                await self._move(job, JobState.RUNNING)
                outcome = await self._execute(job, release)
            if outcome.total is None:
                raise JobError(outcome.problem or "there is no result")
            result = msgspec.to_builtins(metrics(np.array(outcome.total, dtype=np.int64)))
            await self._end(job, JobState.DONE, cohort=outcome.cohort, result=result)
        except JobError as error:
            await self._end(job, JobState.FAILED, reason=str(error))
        except LogUnavailable:
            await self._end(job, JobState.FAILED, reason="the audit log could not be written")
        except OSError:
            await self._end(job, JobState.FAILED, reason="the run's folder could not be used")
        except asyncio.CancelledError:
            await self._move(job, JobState.FAILED, reason="the coordinator was stopped")
            raise

    async def _end(
        self,
        job: Job,
        state: JobState,
        *,
        reason: str | None = None,
        cohort: int = 0,
        result: dict[str, Any] | None = None,
    ) -> None:
        """Record how a job ended, trying until the log takes it: until then there is no result."""
        while True:
            try:
                await self._move(job, state, reason=reason, cohort=cohort, result=result)
            except LogUnavailable:
                await asyncio.sleep(RECORD_RETRY_S)
            else:
                return

    async def _cohort(self) -> dict[str, str]:
        """Return the keys of the devices that may take part."""
        async with self._store.session() as session:
            devices = await session.scalars(select(Device).where(Device.revoked.is_(False)))
            return {device.id: device.public_key for device in devices}

    async def _execute(self, job: Job, release: Release) -> Outcome:
        now = datetime.now(UTC)
        signed = sign_job(
            FederatedJob(
                id=job.id,
                site=self._site,
                kind=EVALUATE,
                model=release.model,
                version=release.version,
                digest=release.digest,
                threshold=release.threshold,
                bins=BINS,
                cohort_minimum=job.cohort_minimum,
                cohort_floor=self._budget.cohort_minimum,
                created=now,
                expires=now + timedelta(seconds=self._timeout_s),
            ),
            self._key,
        )
        folder = await asyncio.to_thread(
            RunFolder.create, self._superlink.runs, job.id, signed, await self._cohort()
        )
        try:
            return await self._superlink.run(folder, self._timeout_s)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder.path, ignore_errors=True)

    async def _move(
        self,
        job: Job,
        state: JobState,
        *,
        reason: str | None = None,
        cohort: int = 0,
        result: dict[str, Any] | None = None,
    ) -> None:
        job.state, job.reason, job.cohort, job.result = state, reason, cohort, result
        # The record first: a result is never visible that the log does not know of.
        record = _record_of(job)
        await self._record(record)
        self._budget.note(record)
        async with self._store.session() as session:
            await session.execute(
                update(Job)
                .where(Job.id == job.id)
                .values(state=state, reason=reason, cohort=cohort, result=result)
            )


def _record_of(job: Job, *, policies: tuple[str, ...] = (), bundle: str | None = None) -> JobRecord:
    return JobRecord(
        time=datetime.now(UTC),
        id=UUID(job.id),
        kind=job.kind,
        state=JobState(job.state),
        model=job.model,
        model_version=job.version,
        principal=job.principal,
        cohort=job.cohort,
        cohort_minimum=job.cohort_minimum,
        policies=policies,
        bundle=bundle,
    )
