"""`/v1/reports`: reports are ordered, watched and fetched here, by whom policy lets make them.

Orders, refusals and every fetching are recorded in the coordinator's log before they are answered; that
a report was made is recorded in the site's log of reports. Whoever ordered a report
is shown it, and no other.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import uuid4

from fastapi import Depends, FastAPI, Request, Response

from audit.errors import ReportRefused
from audit.records import ReportRecord, ReportStep
from audit.reports import Filters, WorkingHours
from audit.reports.making import ReportOrder, kind_named
from audit.reports.package import EVENTS, JSON, PDF, RECORDS
from coordinator.authenticate import authenticate, check
from coordinator.parts import CoordinatorParts
from coordinator.problems import Refused
from coordinator.questions import ReportQuestion
from coordinator.reports.desk import Ordered
from coordinator.reports.shelf import State
from policies import ApiAction, Principal

_FORMS: Final = {
    "zip": (None, "application/zip"),
    "pdf": (PDF, "application/pdf"),
    "csv": (RECORDS, "text/csv; charset=utf-8"),
    "json": (JSON, "application/json"),
    "fhir": (EVENTS, "application/fhir+json"),
}


def report_routes(app: FastAPI, parts: CoordinatorParts) -> None:
    """Add the routes to `app`."""
    may_report = Depends(_permit(parts))

    @app.post("/v1/reports", status_code=202)
    async def order(
        question: ReportQuestion, response: Response, principal: Annotated[Principal, may_report]
    ) -> dict[str, Any]:
        """Order a report; it is made beside other requests."""
        ordered = _order(parts, question, principal)
        # Refused before it is recorded that it was ordered, and not after.
        parts.reports.refuse_if_full()
        await _record(parts, ReportStep.ORDERED, ordered.kind.name, principal.id)
        taken = await parts.reports.order(ordered)
        response.headers["Location"] = f"/v1/reports/{taken.id}"
        return _fields(taken)

    @app.get("/v1/reports")
    async def orders(principal: Annotated[Principal, may_report]) -> list[dict[str, Any]]:
        """List the reports that the caller ordered lately, newest first."""
        return [_fields(one) for one in parts.reports.of(principal.id)]

    @app.get("/v1/reports/{report_id}")
    async def one_order(report_id: str, principal: Annotated[Principal, may_report]) -> dict[str, Any]:
        """Say how far a report is that the caller ordered."""
        return _fields(parts.reports.find(report_id, principal.id))

    @app.get(
        "/v1/reports/{report_id}/{form}",
        response_class=Response,
        responses={200: {"content": {media: {} for _, media in _FORMS.values()}}},
    )
    async def fetch(report_id: str, form: str, principal: Annotated[Principal, may_report]) -> Response:
        """Give a report that is made: `zip` (all, and it verifies), `pdf`, `csv`, `json` or `fhir`."""
        ordered = parts.reports.find(report_id, principal.id)
        if ordered.state is State.FAILED:
            raise Refused(409, "report-failed", "This report could not be made; ask how far it is.")
        if ordered.made is None:
            raise Refused(409, "report-not-done", "This report is not made yet.")
        member, media = _FORMS.get(form, ("", ""))
        data = await parts.reports.content(ordered, member)
        if data is None:
            raise Refused(404, "not-found", "This report has no such form.")
        kind, digest = ordered.order.kind.name, ordered.made.digest
        await _record(parts, ReportStep.FETCHED, kind, principal.id, digest)
        name = f'attachment; filename="{kind}-report.{"fhir.json" if form == "fhir" else form}"'
        headers = {"Content-Disposition": name, "Cache-Control": "no-store"}
        return Response(data, media_type=media, headers=headers)


def _order(parts: CoordinatorParts, question: ReportQuestion, principal: Principal) -> ReportOrder:
    try:
        kind = kind_named(question.kind)
        hours = WorkingHours.parse(question.hours, question.timezone)
    except ReportRefused as error:
        raise Refused(400, "report-refused", str(error)) from error
    if kind.needs_subject and question.subject is None:
        raise Refused(400, "report-refused", f"The report `{kind.name}` is about one subject: name it.")
    subject = question.subject
    filters = Filters(
        since=question.since,
        until=question.until,
        subject=None if subject is None else parts.pseudonymizer.pseudonym(subject),
        principal=question.principal,
        outcome=question.outcome,
    )
    return ReportOrder(kind=kind, filters=filters, hours=hours, principal=principal.id)


def _permit(parts: CoordinatorParts) -> Callable[[Request], Any]:
    """Return what gives the caller, or refuses and records that."""

    async def authorize(request: Request) -> Principal:
        principal: Principal | None = None
        try:
            principal = await authenticate(parts, request.headers.get("authorization"))
            check(parts, principal, ApiAction.AUDIT_REPORT)
        except Refused:
            await _record(parts, ReportStep.REFUSED, None, principal.id if principal else None)
            raise
        return principal

    return authorize


async def _record(
    parts: CoordinatorParts,
    step: ReportStep,
    kind: str | None,
    principal: str | None,
    digest: str | None = None,
) -> None:
    record = ReportRecord(
        time=datetime.now(UTC),
        id=uuid4(),
        step=step,
        kind=kind,
        principal=principal,
        digest=digest,
    )
    await parts.record(record)


def _fields(ordered: Ordered) -> dict[str, Any]:
    filters = ordered.order.filters
    made, failure = ordered.made, ordered.failure
    return {
        "id": ordered.id,
        "kind": ordered.order.kind.name,
        "principal": ordered.order.principal,
        "ordered": ordered.asked,
        "since": filters.since,
        "until": filters.until,
        "state": ordered.state,
        "step": ordered.step,
        "progress": round(ordered.share, 3),
        "records": None if made is None else made.records,
        "record": None if made is None else made.place,
        "manifest_sha256": None if made is None else made.digest,
        "problem": None if failure is None else {"code": failure.code, "detail": failure.detail},
    }
