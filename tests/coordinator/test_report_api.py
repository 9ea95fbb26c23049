"""Reports through the coordinator's API: ordered, watched, fetched; by whom policy lets, and recorded.

Seen to fail: with the check of permission left out, with the record of fetching left out, and with the
subject's identifier kept among an order's filters; with `principal` not asked for in `ReportDesk.find`
and `of`; with nothing taken up in `ReportDesk.start`.
"""

import asyncio
import json
from types import SimpleNamespace

import pytest

from audit.errors import LogUnavailable, VerificationError
from audit.records import ReportRecord, ReportStep
from audit.reports import KINDS, verify_report
from audit.reports.making import ReportOrder
from coordinator.problems import Refused
from coordinator.reports import desk as desk_module
from coordinator.reports.desk import ReportDesk
from coordinator.reports.shelf import State
from policies import Role

CANARY = "canary-7f3e9a"


async def done(api, path):
    """Ask until the report has ended."""
    while True:
        status = (await api.call("GET", path, Role.COMPLIANCE)).json()
        if status["state"] in ("done", "failed"):
            return status
        await asyncio.sleep(0)


async def order(api, **fields):
    answer = await api.call("POST", "/v1/reports", Role.COMPLIANCE, {"kind": "access", **fields})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/reports/{answer.json()['id']}"
    return answer.headers["location"]


def steps(recorded):
    records = [record for record in recorded() if isinstance(record, ReportRecord)]
    return [(record.step, record.kind, record.principal) for record in records]


async def test_a_report_is_ordered_watched_and_fetched_and_verifies(api, maker, recorded, tmp_path):
    path = await order(api, principal="compliance")
    status = await done(api, path)
    assert (status["state"], status["progress"], status["problem"]) == ("done", 1.0, None)
    assert (status["record"], status["kind"]) == ("mercy/reports#0", "access")
    answers = {
        form: await api.call("GET", f"{path}/{form}", Role.COMPLIANCE)
        for form in ("zip", "pdf", "csv", "json", "fhir")
    }
    assert {form: a.headers["content-type"].split(";")[0] for form, a in answers.items()} == {
        "zip": "application/zip",
        "pdf": "application/pdf",
        "csv": "text/csv",
        "json": "application/json",
        "fhir": "application/fhir+json",
    }
    assert answers["zip"].headers["content-disposition"] == 'attachment; filename="access-report.zip"'
    assert answers["pdf"].content.startswith(b"%PDF")
    assert json.loads(answers["fhir"].content)["resourceType"] == "Bundle"
    (tmp_path / "r.zip").write_bytes(answers["zip"].content)
    verifiers = [source.verifier for source in maker._sources()]
    verified = verify_report(tmp_path / "r.zip", verifiers)
    assert (verified.kind, verified.receipt) == ("access", status["record"])
    assert verified.entries == status["records"]
    listed = (await api.call("GET", "/v1/reports", Role.COMPLIANCE)).json()
    assert [one["id"] for one in listed] == [status["id"]]
    who = ("access", "compliance")
    assert steps(recorded) == [(ReportStep.ORDERED, *who), *[(ReportStep.FETCHED, *who)] * 5]


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.COMPLIANCE] + [None])
async def test_only_those_whom_policy_lets_make_reports_have_any(api, recorded, role):
    path = await order(api)
    await done(api, path)
    before = len(steps(recorded))
    for method, where, body in (
        ("POST", "/v1/reports", {"kind": "access"}),
        ("POST", "/v1/reports", {"kind": CANARY}),
        ("GET", "/v1/reports", None),
        ("GET", path, None),
        ("GET", f"{path}/zip", None),
        ("GET", "/v1/reports/unknown/zip", None),
    ):
        answer = await api.call(method, where, role, body)
        assert answer.status_code == (401 if role is None else 403), (method, where)
        assert CANARY not in answer.text
    refused = steps(recorded)[before:]
    assert refused == [(ReportStep.REFUSED, None, None if role is None else role.value)] * 6


async def test_what_is_no_order_is_refused_and_not_repeated(api, tmp_path, caplog):
    caplog.set_level("DEBUG")
    for body, status in (
        ({}, 400),
        ({"kind": CANARY.upper()}, 400),
        ({"kind": "canary-kind"}, 400),
        ({"kind": "access", CANARY: 1}, 400),
        ({"kind": "access", "since": CANARY}, 400),
        ({"kind": "access", "since": "2026-01-01T00:00:00"}, 400),
        ({"kind": "access", "outcome": CANARY}, 400),
        ({"kind": "access", "principal": f"{CANARY} {CANARY}"}, 400),
        ({"kind": "access", "subject": CANARY * 40}, 400),
        ({"kind": "access", "hours": CANARY}, 400),
        ({"kind": "access", "hours": "19-7"}, 400),
        ({"kind": "access", "timezone": "../../etc/passwd"}, 400),
        ({"kind": "access", "timezone": f"Nowhere/{CANARY}"}, 400),
        ({"kind": "access", "timezone": "America"}, 400),
        ({"kind": "subject"}, 400),
        (CANARY, 400),
    ):
        answer = await api.call("POST", "/v1/reports", Role.COMPLIANCE, body)
        assert answer.status_code == status, (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert "canary" not in answer.text.lower()
    path = await order(api, kind="subject", subject=CANARY, timezone="Europe/Berlin")
    assert (await done(api, path))["state"] == "done"
    for form in (CANARY, "fhir.json", "..%2fzip", "zip%00"):
        answer = await api.call("GET", f"{path}/{form}", Role.COMPLIANCE)
        assert answer.status_code == 404
        assert "canary" not in answer.text
    shown = await api.call("GET", path, Role.COMPLIANCE)
    pack = await api.call("GET", f"{path}/json", Role.COMPLIANCE)
    assert CANARY.encode() not in shown.content + pack.content
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert CANARY not in "".join(record.getMessage() for record in ours)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes()


class Gate:
    """Makes reports when it is let."""

    def __init__(self):
        self.open = asyncio.Event()
        self.failures = []

    async def make(self, order, progress):
        progress("verifying the logs", 0.5)
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        package = SimpleNamespace(files={}, digest="00" * 32)
        report = SimpleNamespace(entries=())
        return SimpleNamespace(to_zip=lambda: b"zip", package=package, report=report, place="x#0")


async def until(condition):
    while True:
        if condition():
            return
        await asyncio.sleep(0)


@pytest.fixture
async def desk(tmp_path):
    gate = Gate()
    now = [0.0]
    desk = ReportDesk(gate, tmp_path / "orders", clock=lambda: now[0])
    desk.start()
    yield desk, gate, now
    await desk.close()


ORDER = ReportOrder(kind=KINDS["access"], principal="c.officer")


async def test_too_many_orders_are_refused_at_once(desk):
    desk, gate, _ = desk
    first = await desk.order(ORDER)
    await until(lambda: first.state is State.RUNNING)
    assert (first.step, first.share) == ("verifying the logs", 0.5)
    others = [await desk.order(ORDER) for _ in range(desk_module.WAITING_MAX)]
    with pytest.raises(Refused) as refused:
        await desk.order(ORDER)
    assert refused.value.status == 503
    gate.open.set()
    await until(lambda: all(one.state is State.DONE for one in others))
    assert {await desk.content(one, None) for one in others} == {b"zip"}


async def test_what_fails_says_why_and_the_next_is_made(desk):
    desk, gate, _ = desk
    gate.failures = [
        VerificationError("record 3 was changed"),
        LogUnavailable("x"),
        OSError(28, "full"),
    ]
    gate.open.set()
    orders = [await desk.order(ORDER) for _ in range(4)]
    await until(lambda: orders[-1].state is State.DONE)
    assert [one.failure.code if one.failure else None for one in orders] == [
        "log-unverified",
        "log-unverified",
        "log-unavailable",
        None,
    ]
    assert orders[0].failure.detail == "VerificationError: record 3 was changed"


async def test_old_reports_are_forgotten_and_those_under_way_are_not(desk, tmp_path, monkeypatch):
    desk, gate, now = desk
    gate.open.set()
    old = await desk.order(ORDER)
    await until(lambda: old.state is State.DONE)
    now[0] += desk_module.KEPT_S + 1
    with pytest.raises(Refused, match="kept no longer"):
        desk.find(old.id, "c.officer")
    monkeypatch.setattr(desk_module, "KEPT_BYTES", 7)
    orders = [await desk.order(ORDER) for _ in range(4)]
    await until(lambda: orders[-1].state is State.DONE)
    assert len(desk.of("c.officer")) == 2
    assert desk.find(orders[-1].id, "c.officer") is orders[-1]
    left = {path.name for path in (tmp_path / "orders").iterdir()}
    assert left == {f"{one.id}.{suffix}" for one in orders[2:] for suffix in ("json", "zip")}


async def test_a_restart_goes_on_with_what_was_ordered(desk, tmp_path):
    desk, gate, now = desk
    gate.open.set()
    gate.failures = [VerificationError("record 3 was changed")]
    failed = await desk.order(ORDER)
    made = await desk.order(ORDER)
    await until(lambda: made.state is State.DONE)
    gate.open.clear()
    running = await desk.order(ORDER)
    await until(lambda: running.state is State.RUNNING)
    waiting = await desk.order(ORDER)
    await desk.close()
    for name, data in (("0" * 32, b"{}"), ("1" * 32, b"not JSON")):
        (tmp_path / f"orders/{name}.json").write_bytes(data)

    again = ReportDesk(gate, tmp_path / "orders", clock=lambda: now[0])
    again.start()
    listed = again.of("c.officer")
    assert [one.id for one in listed] == [one.id for one in (waiting, running, made, failed)]
    assert again.find(failed.id, "c.officer").failure == failed.failure
    kept = again.find(made.id, "c.officer")
    assert (kept.state, kept.made, kept.asked) == (State.DONE, made.made, made.asked)
    assert await again.content(kept, None) == b"zip"
    gate.open.set()
    await until(lambda: all(one.ended for one in listed))
    assert [one.state for one in listed[:2]] == [State.DONE] * 2
    await again.close()


async def test_whoever_ordered_a_report_is_shown_it_and_no_other(desk):
    desk, gate, _ = desk
    gate.open.set()
    own = await desk.order(ORDER)
    assert desk.of("somebody.else") == []
    with pytest.raises(Refused, match="no such report"):
        desk.find(own.id, "somebody.else")


async def test_an_order_that_cannot_be_kept_is_refused(desk, tmp_path):
    desk, _, _ = desk
    (tmp_path / "orders").write_text("in the folder's place")
    with pytest.raises(Refused) as refused:
        await desk.order(ORDER)
    assert (refused.value.status, desk.of("c.officer")) == (503, [])


async def test_a_report_that_was_not_made_is_not_given(api, monkeypatch):
    gate = Gate()
    monkeypatch.setattr(api.parts.reports, "_maker", gate)
    path = await order(api)
    answer = await api.call("GET", f"{path}/zip", Role.COMPLIANCE)
    assert (answer.status_code, answer.json()["title"]) == (409, "report not done")
    gate.failures = [VerificationError("record 3 was changed")]
    gate.open.set()
    status = await done(api, path)
    assert status["problem"]["code"] == "log-unverified"
    answer = await api.call("GET", f"{path}/zip", Role.COMPLIANCE)
    assert (answer.status_code, answer.json()["title"]) == (409, "report failed")


async def test_nothing_is_ordered_or_given_unrecorded(api, monkeypatch):
    path = await order(api)
    await done(api, path)

    async def full(*_):
        raise LogUnavailable("the disk is full")

    monkeypatch.setattr(api.parts.log, "append", full)
    for method, where, body in (
        ("POST", "/v1/reports", {"kind": "access"}),
        ("GET", f"{path}/zip", None),
    ):
        answer = await api.call(method, where, Role.COMPLIANCE, body)
        assert (answer.status_code, answer.json()["title"]) == (503, "log unavailable")
    assert len(api.parts.reports.of("compliance")) == 1


async def test_every_route_stands_in_the_document(api):
    document = (await api.client.get("/openapi.json")).json()
    assert set(document["paths"]) >= {
        "/v1/reports",
        "/v1/reports/{report_id}",
        "/v1/reports/{report_id}/{form}",
    }
    fetched = document["paths"]["/v1/reports/{report_id}/{form}"]["get"]["responses"]["200"]
    assert "application/zip" in fetched["content"]
