"""Results under `two_person_review` leave only when a second person released them.

Seen to fail: with the work held from before a verdict's body was read, whoever sent it slowly kept all
others from it, and somebody who may not review learned that it is there; with the error of the database
taken for a defect, a reviewer was told nothing of trying again, and 500 of work cancelled just then.
"""

import asyncio
import json
import shlex
import sqlite3
import threading
from contextlib import asynccontextmanager, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support import call, make_site, publish_linear, records_of
from support.obliged import FACTS, obliged, served
from support.page import Page, run_lines
from support.sites import ROW

from audit.records import Action, Flag, Outcome, Problem, WorkVerdict
from bedside.demo.canaries import written_files
from policies import Role
from secure_gateway.work import WorkStore
from secure_gateway.work.errors import WorkStoreError

_pause = threading.Event()

HOW_TO = Path(__file__).parents[2] / "docs/how-to/two-person-review.md"


def reviewed_site(folder, **work):
    site = obliged(
        make_site(folder, gateway={"work": work}).config, "two_person_review", folder / "packs"
    )
    publish_linear(site, folder)
    return site


class People:
    """Asks a gateway as one person or another."""

    def __init__(self, site, url):
        self.site, self.url = site, url

    def token(self, name, role=Role.CLINICIAN):
        return self.site.token_issuer().issue(name, [role], lifetime_s=600)

    async def ask(self, method, path, name="dr.adams", role=Role.CLINICIAN, **more):
        token = self.token(name, role)
        return await asyncio.to_thread(call, method, f"{self.url}{path}", token=token, **more)

    async def submit(self, **headers):
        path = "/v1/models/breast-cancer/work"
        reply = await self.ask("POST", path, headers={**FACTS, **headers}, body=ROW)
        assert reply.status == 202, reply.body
        return reply.headers["location"]

    async def state(self, work):
        return (await self.ask("GET", work)).json["state"]

    async def until(self, work, *states):
        while (state := await self.state(work)) not in states:
            await asyncio.to_thread(_pause.wait, 0.02)
        return state

    async def judge(self, work, verdict, name="dr.baker", role=Role.CLINICIAN):
        return await self.ask("POST", f"{work}/review", name, role, body={"verdict": verdict})

    async def fetch(self, work, name="dr.adams"):
        return await self.ask("GET", f"{work}/result", name)


@asynccontextmanager
async def people(folder, **work):
    site = reviewed_site(folder, **work)
    async with served(site) as url:
        yield People(site, url)


def sealed(site):
    with closing(sqlite3.connect(site.work_database("gateway-1"))) as database:
        return database.execute("select count(*) from sealed").fetchone()[0]


async def test_nothing_leaves_before_a_second_person_released_it(tmp_path):
    async with people(tmp_path) as they:
        direct = await they.ask("POST", "/v2/models/breast-cancer/infer", headers=FACTS, body=ROW)
        assert (direct.status, direct.json["type"]) == (403, "urn:bedside:problem:obligation-unmet")
        assert "/v1/models/<model>/work" in direct.json["detail"]
        work = await they.submit(**{"Bedside-Subject": "mrn-1"})
        assert await they.until(work, "in-review", "done", "failed") == "in-review"
        held = await they.fetch(work)
        assert (held.status, held.json["type"]) == (409, "urn:bedside:problem:work-not-done")
        assert int(held.headers["retry-after"]) > 0
        listed = (await they.ask("GET", "/v1/work/reviews", "dr.baker")).json["reviews"]
        assert [f"/v1/work/{item['id']}" for item in listed] == [work]
        shown = await they.ask("GET", f"{work}/review", "p.officer", Role.COMPLIANCE)
        assert shown.json["principal"] == "dr.adams"
        assert (shown.json["model"], shown.json["purpose"]) == ("breast-cancer", "TREAT")
        assert "outputs" not in shown.body.decode()
        # The requester alone cannot, whatever the role, and a stranger to the role cannot either.
        for name, role, problem in (
            ("dr.adams", Role.CLINICIAN, "not-second-person"),
            ("dr.adams", Role.COMPLIANCE, "not-second-person"),
            ("b.keller", Role.BILLING, "policy-refused"),
            ("r.curie", Role.RESEARCHER, "policy-refused"),
        ):
            refused = await they.judge(work, "release", name, role)
            assert (refused.status, refused.json["type"]) == (403, f"urn:bedside:problem:{problem}")
        assert await they.state(work) == "in-review"
        assert (await they.fetch(work)).status == 409
        released = await they.judge(work, "release")
        assert (released.status, released.json["state"]) == (200, "done")
        # Released to whom it was withheld from, and to nobody else.
        assert (await they.fetch(work, "dr.baker")).status == 404
        result = await they.fetch(work)
        assert result.status == 200
        assert result.json["outputs"][0]["name"] == "y"
        assert (await they.fetch(work)).status == 410
        assert (await they.judge(work, "release")).status == 410
    trail = [r for r in records_of(they.site) if str(r.id) == work.rpartition("/")[2]]
    assert [r.action for r in trail] == [
        Action.SUBMIT,
        Action.INFER,
        Action.REVIEW,
        Action.REVIEW,
        Action.FETCH,
    ]
    submitted, run, looked, judged, fetched = trail
    assert run.flags == fetched.flags == (Flag.WITHHELD,)
    assert submitted.flags == ()
    assert (looked.principal, looked.verdict) == ("p.officer", None)
    assert (judged.principal, judged.verdict) == ("dr.baker", WorkVerdict.RELEASE)
    assert judged.policies == ("base-api-work-judge",)
    assert judged.subject == run.subject == they.site.pseudonymizer().pseudonym("mrn-1")
    refused = [r.problem for r in records_of(they.site) if r.outcome is Outcome.REFUSED]
    assert refused.count(Problem.NOT_SECOND_PERSON) == 2


async def test_what_is_refused_is_erased(tmp_path):
    async with people(tmp_path) as they:
        work = await they.submit()
        await they.until(work, "in-review")
        assert sealed(they.site) == 1
        refused = await they.judge(work, "refuse", "p.officer", Role.COMPLIANCE)
        assert (refused.status, refused.json["state"]) == (200, "refused")
        assert sealed(they.site) == 0
        assert await they.state(work) == "refused"
        gone = await they.fetch(work)
        assert (gone.status, gone.json["type"]) == (410, "urn:bedside:problem:work-gone")
        assert "refused" in gone.json["detail"]
        assert (await they.judge(work, "release")).status == 410
        assert (await they.ask("DELETE", work)).status == 410
    verdicts = [r.verdict for r in records_of(they.site) if r.verdict is not None]
    assert verdicts == [WorkVerdict.REFUSE]


async def test_it_waits_across_a_restart_and_expires_while_it_waits(tmp_path):
    site = reviewed_site(tmp_path)
    async with served(site) as url:
        they = People(site, url)
        work = await they.submit()
        short = await they.submit(**{"Bedside-Work-Lifetime": "4"})
        assert await they.until(work, "in-review") == "in-review"
        assert await they.until(short, "in-review", "expired") == "in-review"
    async with served(site) as url:
        they = People(site, url)
        assert await they.state(work) == "in-review"
        assert (await they.fetch(work)).status == 409
        await they.until(short, "expired")
        assert (await they.judge(short, "release")).status == 410
        assert (await they.fetch(short)).status == 410
        assert (await they.judge(work, "release")).status == 200
        assert (await they.fetch(work)).status == 200


async def test_its_requester_may_give_it_up(tmp_path):
    async with people(tmp_path) as they:
        work = await they.submit()
        await they.until(work, "in-review")
        assert (await they.ask("DELETE", work)).json["state"] == "cancelled"
        assert (await they.judge(work, "release")).status == 410
        assert sealed(they.site) == 0


async def test_one_of_many_verdicts_counts(tmp_path):
    async with people(tmp_path) as they:
        work = await they.submit()
        await they.until(work, "in-review")
        verdicts = ["release", "refuse"] * 4
        asked = (they.judge(work, verdict, f"dr.n{n}") for n, verdict in enumerate(verdicts))
        replies = await asyncio.gather(*asked)
        done = [reply for reply in replies if reply.status == 200]
        assert len(done) == 1
        assert {reply.status for reply in replies} <= {200, 409, 410}
        assert await they.state(work) == done[0].json["state"]


async def test_a_verdict_that_comes_slowly_holds_nobody_up_and_tells_nothing(tmp_path):
    async with people(tmp_path) as they:
        work = await they.submit()
        await they.until(work, "in-review")
        address = urlsplit(they.url)
        _, slow = await asyncio.open_connection(address.hostname, address.port)
        head = f"POST {work}/review HTTP/1.1\r\nHost: x\r\nContent-Length: 24\r\n"
        slow.write(f"{head}Authorization: Bearer {they.token('dr.clark')}\r\n\r\n".encode())
        await slow.drain()
        for _ in range(20):
            refused = await they.judge(work, "release", "b.keller", Role.BILLING)
            assert (refused.status, refused.json["type"]) == (403, "urn:bedside:problem:policy-refused")
        assert (await they.judge(work, "release")).status == 200
        assert (await they.fetch(work)).status == 200
        slow.close()


async def test_reviewers_are_told_to_come_again_while_the_database_cannot_be_used(
    tmp_path, monkeypatch
):
    async def fails(*_):
        raise WorkStoreError("locked")

    async with people(tmp_path) as they:
        work = await they.submit()
        await they.until(work, "in-review")
        for step in ("find", "release"):
            with monkeypatch.context() as patch:
                patch.setattr(WorkStore, step, fails)
                reply = await they.judge(work, "release")
            assert (reply.status, reply.json["type"]) == (503, "urn:bedside:problem:work-unavailable")
            assert int(reply.headers["retry-after"]) > 0
        with monkeypatch.context() as patch:
            patch.setattr(WorkStore, "in_review", fails)
            assert (await they.ask("GET", "/v1/work/reviews", "dr.baker")).status == 503
        assert (await they.judge(work, "release")).status == 200


async def test_what_its_requester_cancels_as_it_is_looked_at_is_gone(tmp_path, monkeypatch):
    opened = WorkStore.result

    async def late(store, work):
        await store.cancel(work)
        return await opened(store, work)

    async with people(tmp_path) as they:
        work = await they.submit()
        await they.until(work, "in-review")
        monkeypatch.setattr(WorkStore, "result", late)
        shown = await they.ask("GET", f"{work}/review", "dr.baker")
        assert (shown.status, shown.json["type"]) == (410, "urn:bedside:problem:work-gone")


@pytest.mark.parametrize(
    "body", [b"", b"{", {"verdict": "maybe"}, {"verdict": "release", "note": "fine"}, {}, b"x" * 5000]
)
async def test_bad_verdicts_are_refused_and_not_echoed(tmp_path, body):
    async with people(tmp_path) as they:
        work = await they.submit()
        await they.until(work, "in-review")
        reply = await they.ask("POST", f"{work}/review", "dr.baker", body=body)
        assert reply.status == (413 if body == b"x" * 5000 else 400)
        assert "maybe" not in reply.body.decode()
        for unknown in ("nonsense", "00000000-0000-4000-8000-000000000000"):
            reply = await they.judge(f"/v1/work/{unknown}", "release")
            assert (reply.status, reply.json["type"]) == (404, "urn:bedside:problem:work-unknown")
        assert (await they.ask("PUT", f"{work}/review")).status == 405
        assert await they.state(work) == "in-review"
    for file in written_files(they.site.data):
        assert b"maybe" not in file.read_bytes()


async def test_the_how_to_works_as_it_is_written(tmp_path):
    page = Page("how-to/two-person-review.md")
    assert len(page.commands) >= 5
    async with people(tmp_path) as they:
        before = [
            f"export TOKEN={they.token('dr.adams')} REVIEWER={they.token('dr.baker')}",
            f"body={shlex.quote(json.dumps(ROW))}",
        ]
        lines = [*before, *page.commands]
        page.shown_by(await asyncio.to_thread(run_lines, lines, tmp_path, url=they.url))
