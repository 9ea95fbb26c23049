"""The coordinator's API: devices, releases, federated jobs, and its own log."""

from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse

from audit import serve_log
from coordinator.authenticate import allow
from coordinator.limits import BodyLimit
from coordinator.parts import CoordinatorParts
from coordinator.policy.routes import policy_routes
from coordinator.problems import DESCRIBED, Refused, handle_problems
from coordinator.questions import CodeQuestion, EnrolmentQuestion, JobQuestion
from coordinator.releases import DOCUMENT, MODEL_FILE, release_fields
from coordinator.reports.routes import report_routes
from coordinator.store import Job
from policies import ApiAction, Principal

_LATEST: Final = "latest"


def build_app(parts: CoordinatorParts) -> FastAPI:
    """Return the coordinator's application."""
    app = FastAPI(title="Bedside coordinator", docs_url=None, redoc_url=None, responses=DESCRIBED)
    app.add_middleware(BodyLimit)
    handle_problems(app)
    _device_routes(app, parts)
    _release_routes(app, parts)
    _job_routes(app, parts)
    policy_routes(app, parts)
    report_routes(app, parts)
    app.mount("/log", serve_log(parts.log, prefix="/log"))

    @app.get("/healthz")
    async def health() -> dict[str, bool]:
        """Say whether requests can be served."""
        return {"ready": parts.log.writable, "federation": parts.superlink.running}

    return app


def _device_routes(app: FastAPI, parts: CoordinatorParts) -> None:
    registry = parts.registry

    @app.post("/v1/devices/codes", status_code=201)
    async def issue_code(
        question: CodeQuestion, _: Annotated[Principal, allow(parts, ApiAction.DEVICES_ENROL)]
    ) -> dict[str, Any]:
        """Give out a one-time enrolment code."""
        pseudonyms = [parts.pseudonymizer.pseudonym(subject) for subject in question.subjects]
        code, expires = await registry.issue_code(
            question.jurisdiction, pseudonyms, parts.settings.code_lifetime_s
        )
        return {"code": code, "expires": expires}

    @app.post("/v1/devices", status_code=201)
    async def enroll(question: EnrolmentQuestion) -> dict[str, Any]:
        """Turn a code into an enrolled device."""
        device = await registry.enroll(question.code, question.public_key, question.proof)
        return {
            "device": device.id,
            "site": parts.site,
            "gateway_url": parts.settings.gateway_url,
            "coordinator_url": parts.url,
            "trust": parts.trust,
            "cohort_minimum": parts.budget.cohort_minimum,
            "superlink": parts.superlink.address,
        }

    @app.get("/v1/devices")
    async def devices(
        _: Annotated[Principal, allow(parts, ApiAction.DEVICES_READ)],
    ) -> list[dict[str, Any]]:
        """List the devices."""
        return [
            {
                "id": device.id,
                "jurisdiction": device.jurisdiction,
                "subjects": len(device.subjects),
                "revoked": device.revoked,
                "enrolled": device.enrolled,
            }
            for device in await registry.devices()
        ]

    @app.delete("/v1/devices/{device_id}")
    async def revoke(
        device_id: str, principal: Annotated[Principal, allow(parts, ApiAction.DEVICES_REVOKE)]
    ) -> dict[str, str]:
        """Revoke a device."""
        device, record = await registry.revoke(device_id, principal.id)
        return {"device": device.id, "record": record}

    @app.get("/v1/registry")
    async def signed_registry(request: Request) -> Response:
        """Give the signed device registry: pseudonyms and public keys."""
        serial, document = await registry.document()
        etag = f'"{serial}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"ETag": etag})
        return Response(document, media_type="application/json", headers={"ETag": etag})


def _release_routes(app: FastAPI, parts: CoordinatorParts) -> None:
    @app.get("/v1/releases")
    async def list_releases(
        _: Annotated[Principal, allow(parts, ApiAction.RELEASES_READ)],
    ) -> list[dict[str, Any]]:
        """List the releases."""
        return [release_fields(release) for release in await parts.releases.list()]

    @app.get("/v1/releases/{model}/{version}")
    async def release_document(
        model: str, version: str, _: Annotated[Principal, allow(parts, ApiAction.RELEASES_READ)]
    ) -> FileResponse:
        """Give a release's signed document; the version may be `latest`."""
        return FileResponse(await folder_of(model, version) / DOCUMENT, media_type="application/json")

    @app.get("/v1/releases/{model}/{version}/model.onnx")
    async def release_model(
        model: str, version: str, _: Annotated[Principal, allow(parts, ApiAction.RELEASES_READ)]
    ) -> FileResponse:
        """Give a release's model file."""
        return FileResponse(await folder_of(model, version) / MODEL_FILE)

    async def folder_of(model: str, version: str) -> Path:
        _, folder = await parts.releases.find(model, None if version == _LATEST else version)
        return folder


def _job_routes(app: FastAPI, parts: CoordinatorParts) -> None:
    @app.post("/v1/federated/jobs", status_code=202)
    async def submit(
        question: JobQuestion, principal: Annotated[Principal, allow(parts, ApiAction.JOBS_RUN)]
    ) -> dict[str, Any]:
        """Run a federated job; a cohort below the site's minimum is never accepted."""
        release, _ = await parts.releases.find(question.model, question.version)
        decision = parts.engine.authorize(principal.caller, ApiAction.JOBS_RUN)
        job = await parts.jobs.submit(
            release,
            principal=principal.id,
            cohort_minimum=question.cohort_minimum,
            policies=decision.policies,
            bundle=decision.bundle_digest,
        )
        return _job_fields(job)

    @app.get("/v1/federated/jobs")
    async def jobs(_: Annotated[Principal, allow(parts, ApiAction.JOBS_READ)]) -> list[dict[str, Any]]:
        """List the jobs, newest first."""
        return [_job_fields(job) for job in await parts.jobs.list()]

    @app.get("/v1/federated/jobs/{job_id}")
    async def one_job(
        job_id: str, _: Annotated[Principal, allow(parts, ApiAction.JOBS_READ)]
    ) -> dict[str, Any]:
        """Give one job with its result."""
        job = await parts.jobs.find(job_id)
        if job is None:
            raise Refused(404, "not-found", "There is no such job.")
        return _job_fields(job)


def _job_fields(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "model": job.model,
        "version": job.version,
        "state": job.state,
        "reason": job.reason,
        "cohort": job.cohort,
        "cohort_minimum": job.cohort_minimum,
        "created": job.created,
        "result": job.result,
    }
