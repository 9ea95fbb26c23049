"""The coordinator's API: devices, releases, federated jobs, and its own log."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from audit import Log, LogUnavailable, Pseudonymizer, serve_log
from audit.records import AnyRecord, DeviceChange, DeviceRecord, encode
from coordinator.devices import DeviceKeys, DeviceRegistry
from coordinator.errors import EnrolmentError, JobError, ReleaseError
from coordinator.federated.superlink import SuperLink
from coordinator.jobs import EVALUATE, JobRunner
from coordinator.releases import DOCUMENT, MODEL_FILE, ReleaseFolder, release_fields
from coordinator.settings import CoordinatorSettings
from coordinator.store import Job
from policies import (
    ApiAction,
    DeviceVerifier,
    Engine,
    Principal,
    TokenExpired,
    TokenInvalid,
    TokenVerifier,
)

Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=256)]

_LATEST = "latest"


class CodeQuestion(BaseModel):
    """Whose data the device will hold; the identifiers become pseudonyms at once."""

    model_config = ConfigDict(extra="forbid")

    jurisdiction: Jurisdiction
    subjects: Annotated[list[Text], Field(max_length=100_000)] = []


class EnrolmentQuestion(BaseModel):
    """A device's code, key and proof that it holds the key."""

    model_config = ConfigDict(extra="forbid")

    code: Text
    public_key: Hex32
    proof: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


class JobQuestion(BaseModel):
    """A federated job."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, StringConstraints(pattern=f"^{EVALUATE}$")] = EVALUATE
    model: Text
    version: Text | None = None
    cohort_minimum: Annotated[int, Field(ge=2, le=1_000_000)] | None = None


class CoordinatorParts(Struct, frozen=True, kw_only=True):
    """What a coordinator is made of."""

    site: str
    settings: CoordinatorSettings
    log: Log
    engine: Engine
    tokens: TokenVerifier
    pseudonymizer: Pseudonymizer
    releases: ReleaseFolder
    registry: DeviceRegistry
    keys: DeviceKeys
    devices: DeviceVerifier
    jobs: JobRunner
    superlink: SuperLink
    trust: dict[str, list[str]]
    url: str


class Refused(Exception):
    """Ends a request with a problem document (RFC 9457)."""

    def __init__(self, status: int, code: str, detail: str, **members: Any) -> None:  # noqa: ANN401
        super().__init__(detail)
        self.status = status
        self.fields = {
            "type": f"urn:bedside:problem:{code}",
            "title": code.replace("-", " "),
            "status": status,
            "detail": detail,
            **members,
        }


def recorder(log: Log) -> Callable[[AnyRecord], Awaitable[str]]:
    """Return what appends a record to `log` and says where it stands."""

    async def record(entry: AnyRecord) -> str:
        index = await log.append(encode(entry))
        return f"{log.origin}#{index}"

    return record


def build_app(parts: CoordinatorParts) -> FastAPI:
    """Return the coordinator's application."""
    app = FastAPI(title="Bedside coordinator", docs_url=None, redoc_url=None)
    record = recorder(parts.log)
    _handle_errors(app)
    _device_routes(app, parts, record)
    _release_routes(app, parts)
    _job_routes(app, parts)
    app.mount("/log", serve_log(parts.log, prefix="/log"))

    @app.get("/healthz")
    async def health() -> dict[str, bool]:
        """Say whether requests can be served."""
        return {"ready": parts.log.writable, "federation": parts.superlink.running}

    return app


def _allow(parts: CoordinatorParts, action: ApiAction) -> Any:  # noqa: ANN401 a FastAPI dependency
    async def authorize(request: Request) -> Principal:
        principal = await _authenticate(parts, request.headers.get("authorization"))
        decision = parts.engine.authorize(principal.roles, action)
        if not decision.allowed:
            raise Refused(
                403,
                "policy-refused",
                f"None of the caller's roles may do {action.value}.",
                policies=decision.policies,
                citations=decision.citations,
            )
        return principal

    return Depends(authorize)


async def _authenticate(parts: CoordinatorParts, header: str | None) -> Principal:
    if header is None:
        raise Refused(401, "token-missing", "Send `Authorization: Bearer <token>`.")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Refused(401, "token-invalid", "Only the Bearer scheme is understood.")
    encoded = token.encode("latin-1")
    try:
        if not parts.devices.is_assertion(encoded):
            return parts.tokens.verify(encoded)
        await parts.keys.refresh(parts.registry)
        return parts.devices.verify(encoded)
    except TokenExpired as error:
        raise Refused(401, "token-expired", "The token has expired.") from error
    except TokenInvalid as error:
        raise Refused(401, "token-invalid", "The token does not verify for this site.") from error


def _device_routes(
    app: FastAPI, parts: CoordinatorParts, record: Callable[[AnyRecord], Awaitable[str]]
) -> None:
    registry = parts.registry

    @app.post("/v1/devices/codes", status_code=201)
    async def issue_code(
        question: CodeQuestion, principal: Principal = _allow(parts, ApiAction.DEVICES_ENROL)
    ) -> dict[str, Any]:
        """Give out a one-time enrolment code."""
        del principal
        pseudonyms = [parts.pseudonymizer.pseudonym(subject) for subject in question.subjects]
        code, expires = await registry.issue_code(
            question.jurisdiction, pseudonyms, parts.settings.code_lifetime_s
        )
        return {"code": code, "expires": expires}

    @app.post("/v1/devices", status_code=201)
    async def enroll(question: EnrolmentQuestion) -> dict[str, Any]:
        """Turn a code into an enrolled device."""
        device = await registry.enroll(question.code, question.public_key, question.proof)
        await record(_device_record(device.id, DeviceChange.ENROLLED, None, len(device.subjects)))
        return {
            "device": device.id,
            "site": parts.site,
            "gateway_url": parts.settings.gateway_url,
            "coordinator_url": parts.url,
            "trust": parts.trust,
            "cohort_minimum": parts.settings.cohort_minimum,
            "superlink": parts.superlink.address,
        }

    @app.get("/v1/devices")
    async def devices(_: Principal = _allow(parts, ApiAction.DEVICES_READ)) -> list[dict[str, Any]]:
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
        device_id: str, principal: Principal = _allow(parts, ApiAction.DEVICES_REVOKE)
    ) -> dict[str, str]:
        """Revoke a device."""
        device = await registry.revoke(device_id)
        entry = _device_record(device.id, DeviceChange.REVOKED, principal.id, len(device.subjects))
        return {"device": device.id, "record": await record(entry)}

    @app.get("/v1/registry")
    async def signed_registry(request: Request) -> Response:
        """Give the signed device registry: pseudonyms and public keys."""
        serial, document = await registry.document()
        etag = f'"{serial}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"ETag": etag})
        return Response(document, media_type="application/json", headers={"ETag": etag})


def _release_routes(app: FastAPI, parts: CoordinatorParts) -> None:
    releases = parts.releases

    @app.get("/v1/releases")
    async def list_releases(
        _: Principal = _allow(parts, ApiAction.RELEASES_READ),
    ) -> list[dict[str, Any]]:
        """List the releases."""
        return [release_fields(release) for release in releases.list()]

    @app.get("/v1/releases/{model}/{version}")
    async def release_document(
        model: str, version: str, _: Principal = _allow(parts, ApiAction.RELEASES_READ)
    ) -> FileResponse:
        """Give a release's signed document."""
        return FileResponse(_release_file(releases, model, version, DOCUMENT))

    @app.get("/v1/releases/{model}/{version}/model.onnx")
    async def release_model(
        model: str, version: str, _: Principal = _allow(parts, ApiAction.RELEASES_READ)
    ) -> FileResponse:
        """Give a release's model file."""
        return FileResponse(_release_file(releases, model, version, MODEL_FILE))


def _release_file(releases: ReleaseFolder, model: str, version: str, name: str) -> Path:
    _, folder = releases.find(model, None if version == _LATEST else version)
    return folder / name


def _job_routes(app: FastAPI, parts: CoordinatorParts) -> None:
    @app.post("/v1/federated/jobs", status_code=202)
    async def submit(
        question: JobQuestion, principal: Principal = _allow(parts, ApiAction.JOBS_RUN)
    ) -> dict[str, Any]:
        """Run a federated job; a cohort below the site's minimum is never accepted."""
        minimum = parts.settings.cohort_minimum
        if question.cohort_minimum is not None and question.cohort_minimum < minimum:
            detail = f"This site makes no result from fewer than {minimum} devices."
            raise Refused(403, "cohort-too-small", detail)
        release, _ = parts.releases.find(question.model, question.version)
        decision = parts.engine.authorize(principal.roles, ApiAction.JOBS_RUN)
        job = await parts.jobs.submit(
            release,
            principal=principal.id,
            cohort_minimum=question.cohort_minimum or minimum,
            policies=decision.policies,
            bundle=decision.bundle_digest,
        )
        return _job_fields(job)

    @app.get("/v1/federated/jobs")
    async def jobs(_: Principal = _allow(parts, ApiAction.JOBS_READ)) -> list[dict[str, Any]]:
        """List the jobs, newest first."""
        return [_job_fields(job) for job in await parts.jobs.list()]

    @app.get("/v1/federated/jobs/{job_id}")
    async def one_job(job_id: str, _: Principal = _allow(parts, ApiAction.JOBS_READ)) -> dict[str, Any]:
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
        "result": job.result,
    }


def _device_record(
    device: str, change: DeviceChange, principal: str | None, subjects: int
) -> DeviceRecord:
    return DeviceRecord(
        time=datetime.now(UTC),
        id=uuid4(),
        device=device,
        change=change,
        principal=principal,
        subjects=subjects,
    )


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return _problem(error)

    @app.exception_handler(EnrolmentError)
    async def enrolment(_: Request, error: EnrolmentError) -> Response:
        return _problem(Refused(403, "enrolment-refused", str(error)))

    @app.exception_handler(ReleaseError)
    async def release(_: Request, error: ReleaseError) -> Response:
        return _problem(Refused(404, "release-unknown", str(error)))

    @app.exception_handler(JobError)
    async def job(_: Request, error: JobError) -> Response:
        return _problem(Refused(409, "job-refused", str(error)))

    @app.exception_handler(LogUnavailable)
    async def unrecorded(_: Request, __: LogUnavailable) -> Response:
        detail = "The audit log cannot be written, so nothing is done."
        return _problem(Refused(503, "log-unavailable", detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # Only our own field names are repeated; pydantic's messages may quote what was sent.
        models = (CodeQuestion, EnrolmentQuestion, JobQuestion)
        known = {name for model in models for name in model.model_fields}
        parts = {str(part) for e in error.errors() for part in e["loc"]} & known
        detail = f"These members do not fit the schema: {', '.join(sorted(parts)) or 'the body'}."
        return _problem(Refused(400, "body-malformed", detail))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return _problem(Refused(error.status_code, "not-found", "See /openapi.json for the routes."))


def _problem(error: Refused) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(error.fields, error.status, headers, media_type="application/problem+json")
