"""Errors as RFC 9457 problem documents; none quotes what was sent."""

from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from audit import LogUnavailable
from audit.records import PolicyProblem
from coordinator.errors import EnrolmentError, JobError, PolicyRefused, ReleaseError
from coordinator.questions import MEMBERS

RETRY_AFTER_S = 1

_CODES = {404: "not-found", 405: "method-not-allowed"}


_PROBLEM: Final[dict[str, Any]] = {
    "description": "Refused; says why and what to do.",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                },
            }
        }
    },
}

DESCRIBED: Final[dict[int | str, dict[str, Any]]] = {"4XX": _PROBLEM, "503": _PROBLEM}
"""What every route may answer besides, for the API's own document."""


class Refused(Exception):
    """Ends a request with a problem document."""

    def __init__(self, status: int, code: str, detail: str, **members: Any) -> None:  # noqa: ANN401 JSON
        super().__init__(detail)
        self.status = status
        self.fields = {
            "type": f"urn:bedside:problem:{code}",
            "title": code.replace("-", " "),
            "status": status,
            "detail": detail,
            **members,
        }

    def response(self) -> Response:
        """Return the problem document."""
        headers = {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.status == 503:
            headers["Retry-After"] = str(RETRY_AFTER_S)
        return JSONResponse(self.fields, self.status, headers, media_type="application/problem+json")


def handle_problems(app: FastAPI) -> None:
    """Let `app` answer every error with a problem document."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(EnrolmentError)
    async def enrolment(_: Request, error: EnrolmentError) -> Response:
        return Refused(403, "enrolment-refused", str(error)).response()

    @app.exception_handler(ReleaseError)
    async def release(_: Request, error: ReleaseError) -> Response:
        return Refused(404, "release-unknown", str(error)).response()

    @app.exception_handler(JobError)
    async def job(_: Request, error: JobError) -> Response:
        return Refused(409, "job-refused", str(error)).response()

    @app.exception_handler(PolicyRefused)
    async def policy(_: Request, error: PolicyRefused) -> Response:
        status = 404 if error.problem is PolicyProblem.UNKNOWN else 409
        return Refused(status, f"policy-{error.problem.value}", str(error)).response()

    @app.exception_handler(LogUnavailable)
    async def unrecorded(_: Request, __: LogUnavailable) -> Response:
        detail = "The audit log cannot be written, so nothing is done."
        return Refused(503, "log-unavailable", detail).response()

    @app.exception_handler(SQLAlchemyError)
    async def unstored(_: Request, __: SQLAlchemyError) -> Response:
        detail = "The coordinator's database cannot be used, so nothing is done."
        return Refused(503, "store-unavailable", detail).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # Only our own members' names are repeated; pydantic's messages may quote what was sent.
        places = {str(part) for finding in error.errors() for part in finding["loc"]} & MEMBERS
        detail = f"These members do not fit the schema: {', '.join(sorted(places)) or 'the body'}."
        return Refused(400, "body-malformed", detail).response()

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "body-malformed")
        return Refused(error.status_code, code, "See /openapi.json for what can be asked.").response()
