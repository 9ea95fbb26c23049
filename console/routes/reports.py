"""Reports: asked for here, made beside the pages, fetched as files. Each step is recorded first."""

import re
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from audit.records import Outcome, ReportRecord, ReportStep
from audit.reports import KINDS, Filters
from audit.reports.making import ReportOrder
from audit.reports.package import EVENTS, JSON, PDF, RECORDS
from console.errors import FormInvalid
from console.forms import days, one, required
from console.pages.reports import Kept, kept_of, order_row
from console.permission import Page
from console.web import Form, Visit, Web
from coordinator.reports.desk import Ordered
from policies import ApiAction

FORMS: Final = {
    "zip": (None, "application/zip"),
    "pdf": (PDF, "application/pdf"),
    "csv": (RECORDS, "text/csv; charset=utf-8"),
    "json": (JSON, "application/json"),
    "fhir": (EVENTS, "application/fhir+json"),
}
IDENTIFIER_MOST: Final = 256
_PSEUDONYM: Final = re.compile(r"[0-9a-f]{64}")
_PRINCIPAL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}")
_REPORT: Final = ApiAction.AUDIT_REPORT


def report_routes(web: Web) -> list[Route]:
    """Return the routes."""
    return _Reports(web).routes()


class _Reports:
    """Takes orders, shows how far they are, and gives out what was made to whom it was made for."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._parts = web.parts

    def routes(self) -> list[Route]:
        """Return where each is."""
        return [
            Route("/reports", self._web.page(_REPORT, self.show), methods=["GET"]),
            Route("/reports", self._web.form(_REPORT, self.order), methods=["POST"]),
            Route("/reports/{id}/{form}", self._web.page(_REPORT, self.fetch), methods=["GET"]),
        ]

    async def show(self, visit: Visit) -> Response:
        return self._page(visit)

    def _page(
        self, visit: Visit, *, status: int = 200, problem: str = "", kept: Kept | None = None
    ) -> Response:
        own = [order_row(one) for one in self._own(visit)]
        return self._web.render(
            "reports_made.html" if visit.partial else "reports.html",
            visit,
            here=Page.REPORTS,
            status=status,
            problem=problem,
            kept=kept or Kept(),
            kinds=list(KINDS.values()),
            outcomes=tuple(Outcome),
            own=own,
            pending=any(not row.ended for row in own),
        )

    async def order(self, visit: Visit, fields: Form) -> Response:
        try:
            order = self._read(visit, fields)
        except FormInvalid as error:
            said = str(error)
            problem = f"{said[:1].upper()}{said[1:]}."
            return self._page(visit, status=400, problem=problem, kept=kept_of(fields))
        self._parts.reports.refuse_if_full()
        await self._record(visit, ReportStep.ORDERED, order.kind.name)
        await self._parts.reports.order(order)
        return RedirectResponse("/reports", 303)

    async def fetch(self, visit: Visit) -> Response:
        parameters = visit.request.path_params
        ordered = next((one for one in self._own(visit) if one.id == parameters["id"]), None)
        member, media = FORMS.get(parameters["form"], ("", ""))
        made = None if ordered is None else ordered.made
        if ordered is None or made is None:
            return self._web.problem(
                404, "No such report", "It was not made, or is kept no longer: make it again.", visit
            )
        data = await self._parts.reports.content(ordered, member)
        if data is None:
            return self._web.problem(404, "No such form", "This report has no such form.", visit)
        kind = ordered.order.kind.name
        await self._record(visit, ReportStep.FETCHED, kind, made.digest)
        ending = "fhir.json" if parameters["form"] == "fhir" else parameters["form"]
        headers = {"Content-Disposition": f'attachment; filename="{kind}-report.{ending}"'}
        return Response(data, media_type=media, headers=headers)

    def _own(self, visit: Visit) -> list[Ordered]:
        return self._parts.reports.of(visit.name)

    def _read(self, visit: Visit, fields: Form) -> ReportOrder:
        kind = KINDS.get(required(fields, "kind"))
        if kind is None:
            raise FormInvalid("the field `kind` holds no value that it may have")
        subject = self._subject(fields)
        if kind.needs_subject and subject is None:
            raise FormInvalid("this report is about one person: give their identifier")
        principal, outcome = one(fields, "principal"), one(fields, "outcome")
        if principal is not None and not _PRINCIPAL.fullmatch(principal):
            raise FormInvalid("the field `principal` holds no value that it may have")
        if outcome is not None and outcome not in tuple(Outcome):
            raise FormInvalid("the field `outcome` holds no value that it may have")
        since, until = days(fields)
        filters = Filters(
            since=since,
            until=until,
            subject=subject,
            principal=principal,
            outcome=None if outcome is None else Outcome(outcome),
        )
        return ReportOrder(kind=kind, filters=filters, principal=visit.name)

    def _subject(self, fields: Form) -> str | None:
        """Return the pseudonym of whom a report is about, made of their identifier if need be."""
        pseudonym, identifier = one(fields, "subject"), one(fields, "identifier")
        if pseudonym is not None:
            if not _PSEUDONYM.fullmatch(pseudonym):
                raise FormInvalid("the field `subject` holds no value that it may have")
            return pseudonym
        if identifier is None:
            return None
        if len(identifier) > IDENTIFIER_MOST:
            raise FormInvalid("the field `identifier` holds no value that it may have")
        return self._parts.pseudonymizer.pseudonym(identifier)

    async def _record(
        self, visit: Visit, step: ReportStep, kind: str, digest: str | None = None
    ) -> None:
        await self._parts.recorder.append(
            ReportRecord(
                time=datetime.now(UTC),
                id=uuid4(),
                step=step,
                kind=kind,
                principal=visit.name,
                digest=digest,
            )
        )
