"""Consent through live gateways: recorded, scoped, expiring, and withdrawn from the next request on."""

import contextlib
import resource
from datetime import UTC, datetime, timedelta

import pytest
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.postgres import postgres
from support.sites import ROW, free_port
from support.work import NodeProcess, fetch, site_with_node, submit, until, work_url

from audit.records import Action, Outcome, Problem
from bedside.config import Config
from bedside.site import Site
from policies import AssertedFacts, Role

CONSENT = {"registry": True}
RESEARCH = {"Bedside-Subject": "mrn-1", "Bedside-Purpose": "HRESCH"}


def soon(**delta):
    return (datetime.now(UTC) + timedelta(**delta)).isoformat()


@contextlib.contextmanager
def serving(folder, **consent):
    site = make_site(folder, gateway={"consent": {**CONSENT, **consent}})
    publish_linear(site, folder)
    with GatewayProcess(site, folder) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("consent")) as running:
        yield running


def consents(gateway, method, body=None, *, token=None, headers=None):
    url = f"{gateway.url}/v1/consents"
    return call(method, url, token=token or gateway.token(), body=body, headers=headers)


def grant(gateway, subject="mrn-1", purposes=("HRESCH",), token=None, **more):
    fields = {"expires": soon(days=1), **more}
    body = {"subject": subject, "purposes": list(purposes), **fields}
    return consents(gateway, "POST", body, token=token)


def withdraw(gateway, subject="mrn-1", token=None, **more):
    return consents(gateway, "DELETE", {"subject": subject, **more}, token=token)


def researcher(gateway, **asserted):
    facts = AssertedFacts(**asserted)
    issuer = gateway.site.token_issuer()
    return issuer.issue("r.curie", [Role.RESEARCHER], lifetime_s=60, asserted=facts)


def app(gateway, **asserted):
    issuer = gateway.site.token_issuer()
    facts = AssertedFacts(**asserted)
    return issuer.issue("diary.app", [Role.APP], lifetime_s=60, asserted=facts)


def research(gateway, subject="mrn-1", *, token=None, **headers):
    sent = {**RESEARCH, "Bedside-Subject": subject, **headers}
    url = gateway.infer_url
    return call("POST", url, token=token or researcher(gateway), headers=sent, body=ROW).status


def test_consent_is_what_was_recorded_and_ends_with_its_withdrawal(tmp_path):
    with serving(tmp_path) as gateway:
        assert research(gateway) == 403
        # The bare claim is not believed where there is a registry.
        assert research(gateway, **{"Bedside-Consent": "true"}) == 403
        granted = grant(gateway)
        assert granted.status == 201
        assert "mrn-1" not in granted.body.decode()
        assert research(gateway) == 200
        assert research(gateway, "mrn-2") == 403
        gone = withdraw(gateway)
        assert (gone.status, gone.json["withdrawn"]) == (200, [granted.json["id"]])
        assert research(gateway) == 403
        assert research(gateway, token=researcher(gateway, consent=True)) == 403
        again = withdraw(gateway)
        assert (again.status, again.json["withdrawn"]) == (200, [])
        assert grant(gateway).status == 201
        assert research(gateway) == 200
        shown = consents(gateway, "GET", headers={"Bedside-Subject": "mrn-1"}).json["consents"]
        assert [item["state"] for item in shown] == ["in-force", "withdrawn"]
        assert shown[1]["record"] == granted.json["record"]
    records = records_of(gateway.site)
    pseudonym = gateway.site.pseudonymizer().pseudonym("mrn-1")
    given = records[int(granted.json["record"].partition("#")[2])]
    assert (given.action, given.status, given.subject) == (Action.CONSENT_GRANT, 201, pseudonym)
    assert str(given.scope.grants[0]) == granted.json["id"]
    assert given.scope.purposes == ("HRESCH",)
    assert given.scope.expires - given.scope.begins <= timedelta(days=1)
    assert given.policies == ("base-api-consent-care",)
    ended = records[int(gone.json["record"].partition("#")[2])]
    assert (ended.action, ended.scope.grants) == (Action.CONSENT_WITHDRAW, given.scope.grants)
    assert ended.subject == pseudonym
    served = [r.consent for r in records if r.action is Action.INFER and r.outcome is Outcome.SERVED]
    assert served == [True, True]
    assert [r.action for r in records].count(Action.CONSENT_READ) == 1


def test_a_consent_covers_its_scope_and_its_time_only(gateway):
    subject = "mrn-scoped"
    assert grant(gateway, subject, purposes=["TREAT"]).status == 201
    assert grant(gateway, subject, data_classes=["limited"]).status == 201
    assert grant(gateway, subject, begins=soon(hours=1)).status == 201
    assert research(gateway, subject) == 403
    assert research(gateway, subject, **{"Bedside-Data-Class": "limited"}) == 200
    token = app(gateway)
    treat = {"Bedside-Subject": subject}
    assert call("POST", gateway.infer_url, token=token, headers=treat, body=ROW).status == 200
    one = grant(gateway, subject, models=["breast-cancer"]).json["id"]
    assert research(gateway, subject) == 200
    assert withdraw(gateway, subject, id=one).json["withdrawn"] == [one]
    assert research(gateway, subject) == 403
    assert research(gateway, subject, **{"Bedside-Data-Class": "limited"}) == 200


def test_a_token_is_believed_where_nothing_was_recorded(gateway):
    assert research(gateway, "mrn-token", token=researcher(gateway, consent=True)) == 200
    grant(gateway, "mrn-refusing")
    assert research(gateway, "mrn-refusing", token=researcher(gateway, consent=False)) == 403


def test_a_persons_own_app_speaks_for_that_person_only(gateway):
    own = app(gateway, subject="mrn-own")
    assert grant(gateway, "somebody else", token=own).status == 201
    assert research(gateway, "somebody else") == 403
    assert research(gateway, "mrn-own") == 200
    assert withdraw(gateway, "somebody else", token=own).json["withdrawn"] != []
    assert research(gateway, "mrn-own") == 403
    for method, reply in (
        ("POST", grant(gateway, "mrn-other", token=app(gateway))),
        ("DELETE", withdraw(gateway, "mrn-other", token=app(gateway))),
    ):
        assert reply.status == 403, method


ROLES = {
    Role.CLINICIAN: (201, 200, 200),
    Role.COMPLIANCE: (201, 200, 200),
    Role.RESEARCHER: (403, 200, 403),
    Role.BILLING: (403, 200, 403),
    Role.OPERATOR: (403, 200, 403),
    Role.ENGINEER: (403, 403, 403),
}


@pytest.mark.parametrize("role", ROLES)
def test_who_may_record_withdraw_and_see(gateway, role):
    token = gateway.token("s.one", role)
    subject = {"Bedside-Subject": "mrn-roles"}
    asked = (
        grant(gateway, "mrn-roles", token=token),
        withdraw(gateway, "mrn-roles", token=token),
        consents(gateway, "GET", token=token, headers=subject),
    )
    assert tuple(reply.status for reply in asked) == ROLES[role]
    for reply in asked:
        if reply.status == 403:
            assert reply.json["policies"] == ["default-deny"]
            assert "#" in reply.json["record"]


BAD = {
    "not JSON": (b"{", 400, "body-malformed"),
    "no body": (b"", 400, "body-malformed"),
    "no purpose": ({"purposes": []}, 400, "body-malformed"),
    "a strange purpose": ({"purposes": ["FUN"]}, 400, "body-malformed"),
    "a strange member": ({"note": "she said yes"}, 400, "body-malformed"),
    "an end without a time zone": ({"expires": "2030-01-01T00:00:00"}, 400, "body-malformed"),
    "an end in the past": ({"expires": soon(days=-1)}, 400, "facts-invalid"),
    "an end before its beginning": ({"begins": soon(days=2)}, 400, "facts-invalid"),
    "an endless consent": ({"expires": soon(days=40000)}, 400, "facts-invalid"),
    "nobody": ({"subject": None}, 400, "facts-invalid"),
    "an unknown model": ({"models": ["unheard-of"]}, 404, "model-unknown"),
    "too much": (b" " * 70000, 413, "body-too-large"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_grants_are_refused_and_recorded(gateway, case):
    change, status, problem = BAD[case]
    good = {"subject": "mrn-bad", "purposes": ["HRESCH"], "expires": soon(days=1)}
    reply = consents(gateway, "POST", change if isinstance(change, bytes) else {**good, **change})
    assert (reply.status, reply.json["type"]) == (status, f"urn:bedside:problem:{problem}")
    assert "#" in reply.json["record"]
    assert research(gateway, "mrn-bad") == 403


def test_other_ways_to_ask_are_refused(gateway):
    assert consents(gateway, "PUT", {}).status == 405
    assert consents(gateway, "GET").status == 400
    both = consents(gateway, "DELETE", {"subject": "a"}, headers={"Bedside-Subject": "b"})
    assert (both.status, both.json["type"]) == (400, "urn:bedside:problem:facts-invalid")
    for token in ("not.a.token", gateway.token(hours=-1)):
        assert grant(gateway, token=token).status == 401
    assert call("GET", f"{gateway.url}/v1/consents").status == 401


def test_a_person_has_a_hundred_grants_and_no_more(gateway):
    statuses = [grant(gateway, "mrn-many").status for _ in range(101)]
    assert statuses == [201] * 100 + [429]


def test_without_the_log_nothing_counts_and_nothing_ends(tmp_path):
    unlimited = resource.RLIM_INFINITY
    with serving(tmp_path) as gateway:
        assert grant(gateway).status == 201
        resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (0, unlimited))
        for reply in (grant(gateway, "mrn-2"), withdraw(gateway)):
            assert (reply.status, reply.json["type"]) == (503, "urn:bedside:problem:log-unavailable")
        resource.prlimit(gateway.child.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        assert research(gateway, "mrn-2") == 403
        assert research(gateway) == 200


def test_a_registry_that_is_gone_knows_of_no_consent_and_care_goes_on(tmp_path):
    with serving(tmp_path) as gateway:
        assert grant(gateway).status == 201
        assert research(gateway) == 200
        for file in (tmp_path / "site" / "consent").iterdir():
            file.write_bytes(b"not a database" * 1000)
        assert research(gateway) == 403
        care = {"Bedside-Subject": "mrn-1"}
        url = gateway.infer_url
        assert call("POST", url, token=gateway.token(), headers=care, body=ROW).status == 200
        reply = withdraw(gateway)
        assert (reply.status, reply.json["type"]) == (503, "urn:bedside:problem:consent-unavailable")
    refused = [r for r in records_of(gateway.site) if r.problem is Problem.CONSENT_UNAVAILABLE]
    assert [r.action for r in refused] == [Action.CONSENT_WITHDRAW]


def test_a_withdrawal_reaches_every_replica_that_shares_the_database(tmp_path):
    with postgres() as address, contextlib.ExitStack() as stack:
        gateways = []
        for number in (1, 2):
            folder = tmp_path / f"replica-{number}"
            consent = {**CONSENT, "database": address}
            site = make_site(folder, gateway={"replica": f"gateway-{number}", "consent": consent})
            if gateways:
                # One organisation: the same keys, and so the same pseudonyms and tokens.
                first = gateways[0].site.data / "keys"
                (site.data / "keys").parent.mkdir(parents=True)
                (site.data / "keys").symlink_to(first)
            publish_linear(site, folder)
            gateways.append(stack.enter_context(GatewayProcess(site, folder)))
        one, two = gateways
        for _ in range(5):
            assert grant(one).status == 201
            assert research(two) == 200
            assert withdraw(two).status == 200
            assert research(one) == 403


def test_it_outlives_a_kill(tmp_path):
    with serving(tmp_path) as gateway:
        granted = grant(gateway).json["id"]
        grant(gateway, "mrn-2")
        withdraw(gateway, "mrn-2")
        gateway.kill()
        gateway.start()
        assert research(gateway) == 200
        assert research(gateway, "mrn-2") == 403
        shown = consents(gateway, "GET", headers={"Bedside-Subject": "mrn-1"}).json["consents"]
        assert [item["id"] for item in shown] == [granted]


def test_queued_work_is_decided_by_the_consent_of_its_run(tmp_path):
    site, port = site_with_node(tmp_path, consent=CONSENT, work={"concurrency": 1})
    publish_linear(site, tmp_path)
    node = NodeProcess(site, tmp_path, port)
    token = site.token_issuer().issue("dr.adams", [Role.RESEARCHER], lifetime_s=60)
    try:
        with GatewayProcess(site, tmp_path) as gateway:
            grant(gateway)
            node.freeze()
            held = work_url(gateway, submit(gateway))
            until(gateway, held, "running")
            url = f"{gateway.url}/v1/models/breast-cancer/work"
            queued = work_url(gateway, call("POST", url, token=token, headers=RESEARCH, body=ROW))
            withdraw(gateway)
            node.thaw()
            until(gateway, queued, "failed")
            assert fetch(gateway, queued).json["type"] == "urn:bedside:problem:policy-refused"
    finally:
        node.stop()


def test_a_result_is_not_handed_over_once_the_consent_that_it_needed_is_withdrawn(gateway):
    url = f"{gateway.url}/v1/models/breast-cancer/work"
    researching = gateway.token("dr.adams", Role.RESEARCHER)
    treating = {"Bedside-Subject": "mrn-kept"}

    def submitted(token, headers):
        work = work_url(gateway, call("POST", url, token=token, headers=headers, body=ROW))
        until(gateway, work, "done")
        return work

    grant(gateway, "mrn-kept", purposes=["HRESCH", "TREAT"])
    research_work = submitted(researching, {**treating, "Bedside-Purpose": "HRESCH"})
    care = submitted(gateway.token(), treating)
    withdraw(gateway, "mrn-kept")
    refused = fetch(gateway, research_work)
    assert (refused.status, refused.json["policies"]) == (403, ["hipaa-research"])
    assert "withdrawn since" in refused.json["detail"]
    assert fetch(gateway, research_work).status == 410
    # Care needed no consent.
    assert fetch(gateway, care).status == 200


def test_a_site_without_a_registry_believes_claims_unless_it_is_told_not_to(tmp_path):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        assert research(gateway, **{"Bedside-Consent": "true"}) == 200
        assert grant(gateway).status == 404
    settings = site.config.gateway.model_copy(update={"port": free_port()})
    consent = {"claims": False}
    fields = dict(site.config) | {"gateway": settings.model_dump() | {"consent": consent}}
    with GatewayProcess(Site(Config(**fields)), tmp_path) as gateway:
        assert research(gateway, **{"Bedside-Consent": "true"}) == 403
        assert research(gateway, token=researcher(gateway, consent=True)) == 200
