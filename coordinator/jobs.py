"""The life of a federated job: queued, running, then done, failed or refused; each step recorded."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import func, select, update

from audit.records import AnyRecord, JobRecord, JobState
from coordinator.errors import JobError
from coordinator.federated.job import FederatedJob, Outcome, sign_job
from coordinator.federated.statistics import BINS, metrics
from coordinator.federated.superlink import SuperLink
from coordinator.releases import Release
from coordinator.store import Device, Job, Store

EVALUATE: Final = "evaluate"

Record = Callable[[AnyRecord], Awaitable[str]]


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
        folder: Path,
        timeout_s: float,
    ) -> None:
        self._store = store
        self._superlink = superlink
        self._record = record
        self._key = key
        self._site = site
        self._folder = folder
        self._timeout_s = timeout_s
        self._one_at_a_time = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()

    async def recover(self) -> None:
        """Fail the jobs that a restart interrupted: their devices' answers are gone."""
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
        cohort_minimum: int,
        policies: tuple[str, ...],
        bundle: str,
    ) -> Job:
        """Accept an evaluation of `release` and run it in the background.

        Raises:
            JobError: if fewer devices are enrolled than `cohort_minimum`; recorded as refused.
        """
        job = Job(
            id=str(uuid4()),
            kind=EVALUATE,
            model=release.model,
            version=release.version,
            principal=principal,
            state=JobState.QUEUED,
            cohort_minimum=cohort_minimum,
            cohort=0,
            created=datetime.now(UTC),
        )
        async with self._store.session() as session:
            enrolled = await session.scalar(
                select(func.count()).select_from(Device).where(Device.revoked.is_(False))
            )
            session.add(job)
        await self._record(_record_of(job, policies=policies, bundle=bundle))
        if (enrolled or 0) < cohort_minimum:
            reason = f"fewer than {cohort_minimum} devices are enrolled"
            await self._move(job, JobState.REFUSED, reason=reason)
            raise JobError(f"refused: {reason}; no result is made from a smaller cohort")
        task = asyncio.create_task(self._run(job, release), name=f"job-{job.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return job

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
                await self._move(job, JobState.RUNNING)
                outcome = await self._execute(job, release)
            if outcome.total is None:
                await self._move(job, JobState.FAILED, reason=outcome.problem or "no result")
                return
            result = msgspec.to_builtins(metrics(np.array(outcome.total, dtype=np.int64)))
            await self._move(job, JobState.DONE, cohort=outcome.cohort, result=result)
        except JobError as error:
            await self._move(job, JobState.FAILED, reason=str(error))
        except asyncio.CancelledError:
            await self._move(job, JobState.FAILED, reason="the coordinator was stopped")
            raise

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
                created=now,
                expires=now + timedelta(seconds=self._timeout_s),
            ),
            self._key,
        )
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="run-") as folder:
            document, result = Path(folder) / "job.json", Path(folder) / "result.json"
            document.write_bytes(signed)
            await self._superlink.run(document, result, self._timeout_s)
            return msgspec.json.decode(result.read_bytes(), type=Outcome)

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
        await self._record(_record_of(job))
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
