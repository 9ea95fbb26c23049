"""Search, single records and subjects' histories. What is shown is recorded before it is answered."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from audit.index import Hit, Search, search
from audit.records import ConsoleAction, decode
from audit.reports import LogSource
from console.bundles import BundleShelf
from console.errors import FormInvalid
from console.forms import one, parse_fields, required
from console.pages.record import pruned_page, record_page
from console.pages.search import CHOICES, Found, SavedView, found
from console.pages.subject import subject
from console.permission import Page
from console.query import ANY_HINT, HINTS, Query, read_filters, read_query
from console.views import Views
from console.web import Form, Visit, Web
from policies import ApiAction

IDENTIFIER_MOST: Final = 256
_PSEUDONYM: Final = re.compile(r"[0-9a-f]{64}")
_READ: Final = ApiAction.AUDIT_READ


def record_routes(web: Web) -> list[Route]:
    """Return the routes."""
    return _Records(web).routes()


class _Records:
    """Shows records; each answer waits for the record of who looked."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._parts = web.parts
        self._views = Views(web.parts.store)
        self._shelf = BundleShelf(web.parts.desk.folder)

    def routes(self) -> list[Route]:
        """Return where each is."""
        return [
            Route("/search", self._web.page(_READ, self.show_search), methods=["GET"]),
            Route("/search/person", self._web.form(_READ, self.find_person), methods=["POST"]),
            Route("/views", self._web.form(_READ, self.save_view), methods=["POST"]),
            Route("/views/remove", self._web.form(_READ, self.remove_view), methods=["POST"]),
            Route("/subjects/{pseudonym}", self._web.page(_READ, self.show_subject), methods=["GET"]),
            Route(
                "/records/{origin:path}/{position}",
                self._web.page(_READ, self.show_record),
                methods=["GET"],
            ),
        ]

    async def show_search(self, visit: Visit) -> Response:
        fields = parse_fields(visit.request.url.query.encode())
        query, wrong = read_filters(fields)
        if wrong:
            return await self._filters(visit, Found(query=query, rows=(), more=""), wrong)
        after = one(fields, "after")
        page = await found(self._parts.index, query, after, datetime.now(UTC))
        await self._parts.recorder.did(
            visit.session.account, ConsoleAction.SEARCH, subject=query.subject, shown=page.shown
        )
        if visit.partial and after:
            return self._web.render("rows_more.html", visit, page=page)
        response = await self._filters(visit, page)
        if visit.partial:
            # The address that the same search has without scripts: no empty fields.
            response.headers["HX-Push-Url"] = query.address()
        return response

    async def _filters(self, visit: Visit, page: Found, wrong: tuple[str, ...] = ()) -> Response:
        return self._web.render(
            "search_results.html" if visit.partial else "search.html",
            visit,
            here=Page.SEARCH,
            status=400 if wrong else 200,
            page=page,
            choices=CHOICES,
            saved=await self._saved(visit, page),
            wrong={name: HINTS.get(name, ANY_HINT) for name in wrong},
        )

    async def _saved(self, visit: Visit, page: Found) -> list[SavedView]:
        return [
            SavedView(
                id=view.id,
                title=view.query.title(),
                path=view.query.address(),
                current=view.query == page.query,
            )
            for view in await self._views.of(visit.name)
        ]

    async def save_view(self, visit: Visit, fields: Form) -> Response:
        query = read_query(fields)
        await self._check_known(query)
        await self._views.add(visit.name, query)
        return RedirectResponse(query.address(), 303)

    async def _check_known(self, query: Query) -> None:
        # What is typed into these fields is kept only if the log has it: it is nobody's name then.
        for name in ("principal", "model", "placement", "subject", "log"):
            value = getattr(query, name)
            if value is not None:
                wanted = Search(**{"origin" if name == "log" else name: value})
                page = await search(self._parts.index, wanted, count=1)
                if not page.hits:
                    raise FormInvalid(f"no record has what the field `{name}` holds; it is not kept")

    async def remove_view(self, visit: Visit, fields: Form) -> Response:
        await self._views.remove(visit.name, required(fields, "view"))
        return RedirectResponse("/search", 303)

    async def find_person(self, _: Visit, fields: Form) -> Response:
        identifier = required(fields, "identifier")
        if len(identifier) > IDENTIFIER_MOST:
            raise FormInvalid("the field `identifier` holds no value that it may have")
        pseudonym = await asyncio.to_thread(self._parts.pseudonymizer.pseudonym, identifier)
        return RedirectResponse(f"/subjects/{pseudonym}", 303)

    async def show_subject(self, visit: Visit) -> Response:
        pseudonym = visit.request.path_params["pseudonym"]
        if not _PSEUDONYM.fullmatch(pseudonym):
            return self._web.problem(
                404, "No such subject", "A pseudonym has 64 hexadecimal digits.", visit
            )
        after = one(parse_fields(visit.request.url.query.encode()), "after")
        page = await subject(self._parts.index, pseudonym, after)
        await self._parts.recorder.did(
            visit.session.account, ConsoleAction.VIEW_SUBJECT, subject=pseudonym, shown=page.shown
        )
        template = "rows_more.html" if visit.partial and after else "subject.html"
        return self._web.render(template, visit, here=Page.SEARCH, page=page)

    async def show_record(self, visit: Visit) -> Response:
        place = _place(visit.request.path_params)
        rows = await self._parts.index.leaves(*place, 1) if place else []
        named = {source.verifier.name: source for source in self._parts.published_sources()}
        if place is None or not rows or rows[0]["position"] != place[1]:
            return await self._not_there(visit, place, named)
        leaf = bytes(rows[0]["leaf"])
        hit = Hit(origin=place[0], position=place[1], record=decode(leaf))
        page = await asyncio.to_thread(
            record_page, hit, leaf, named.get(place[0]), self._shelf.find, self._parts.witnesses
        )
        await self._parts.recorder.did(
            visit.session.account,
            ConsoleAction.VIEW_RECORD,
            subject=getattr(hit.record, "subject", None),
            shown=(page.row.reference,),
        )
        return self._web.render("record.html", visit, here=Page.SEARCH, page=page)

    async def _not_there(
        self, visit: Visit, place: tuple[str, int] | None, named: Mapping[str, LogSource]
    ) -> Response:
        page = None
        if place is not None:
            page = await asyncio.to_thread(pruned_page, *place, named.get(place[0]))
        if page is None:
            return self._web.problem(
                404, "No such record", "No record of this name is in the index yet.", visit
            )
        await self._parts.recorder.did(
            visit.session.account, ConsoleAction.VIEW_RECORD, shown=(page.reference,)
        )
        return self._web.render("pruned.html", visit, here=Page.SEARCH, status=410, page=page)


def _place(parameters: Mapping[str, str]) -> tuple[str, int] | None:
    position = parameters["position"]
    if not (position.isascii() and position.isdecimal() and len(position) < 19):
        return None
    return parameters["origin"], int(position)
