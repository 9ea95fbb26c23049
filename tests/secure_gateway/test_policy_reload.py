"""A live gateway goes over to other policies under load, and never back.

Seen to fail: with `engine.adopt` before the load is recorded, requests are decided by a bundle that the
log does not know yet; with the cache of decisions kept over a reload, it never takes effect; without
`_check_version` the old bundle is in force again.
"""

import itertools
import threading

import pytest
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.policy import Approval
from support.sites import ROW

from audit.records import PolicyProblem, PolicyRecord, PolicyStep, RequestRecord
from bedside.config import PolicyEntry
from bedside.site import Site
from policies import ModelAccess, Purpose, Role, build_bundle, read_draft, write_bundle

RELOADS = 12
PURPOSES = (Purpose.TREAT, Purpose.ETREAT)


class Published:
    """A site with two approvers, and bundles of it that permit or refuse clinicians."""

    def __init__(self, folder):
        self.approval = Approval(folder / "approvers", "clinic")
        keys = {
            name: key.public_key().public_bytes_raw().hex() for name, key in self.approval.keys.items()
        }
        policy = PolicyEntry(packs=("base", "hipaa"), approvers=keys)
        gateway = {"policy_poll_s": 0.02}
        site = make_site(folder, gateway=gateway, policy=policy)
        publish_linear(site, folder)
        self.site: Site = site
        self.files = site.bundles().folder

    def bundle(self, version, role=Role.CLINICIAN):
        access = ModelAccess(roles=(role,), purposes=PURPOSES)
        return build_bundle(
            ("base", "hipaa"), name="clinic", version=version, models={"breast-cancer": access}
        )

    def put(self, document):
        write_bundle(self.files.bundle, document)

    def put_version(self, version, role=Role.CLINICIAN):
        bundle = self.bundle(version, role)
        self.put(self.approval.signed(bundle))
        return bundle


@pytest.fixture
def published(tmp_path):
    made = Published(tmp_path)
    made.put_version(1)
    return made


def ask(gateway):
    return call("POST", gateway.infer_url, token=gateway.token(), body=ROW)


def wait_for(gateway, status):
    """Ask until the answer has this status: then the policies that make it so are in force."""
    pause = threading.Event()
    for _ in range(1000):
        if ask(gateway).status == status:
            return
        pause.wait(0.01)
    raise AssertionError(f"never answered with {status}")


def wait_for_loads(gateway, number):
    """Wait until the log has so many records of bundles that were taken or refused."""
    pause = threading.Event()
    for _ in range(1000):
        size = int(call("GET", f"{gateway.url}/checkpoint").body.split(b"\n")[1])
        bundle = call("GET", f"{gateway.url}/tile/entries/000.p/{size}").body if size else b""
        if bundle.count(b'"step":"load"') >= number:
            return
        pause.wait(0.02)
    raise AssertionError(f"never recorded {number} loads")


def test_under_load_every_request_is_decided_by_one_whole_bundle(published, tmp_path):
    digests = {published.bundle(1).digest(): True}
    stop = threading.Event()
    answers: dict[str, int] = {}

    def load(gateway):
        while not stop.is_set():
            reply = ask(gateway)
            answers[reply.headers["bedside-record"]] = reply.status

    with GatewayProcess(published.site, tmp_path) as gateway:
        threads = [threading.Thread(target=load, args=(gateway,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        permits = itertools.cycle((False, True))
        for version, permit in zip(range(2, RELOADS + 2), permits, strict=False):
            role = Role.CLINICIAN if permit else Role.RESEARCHER
            digests[published.put_version(version, role).digest()] = permit
            wait_for(gateway, 200 if permit else 403)
        stop.set()
        for thread in threads:
            thread.join()
    records = records_of(published.site)
    requests = [record for record in records if isinstance(record, RequestRecord)]
    assert {request.bundle for request in requests} == set(digests)
    for index, record in enumerate(records):
        if isinstance(record, RequestRecord):
            permitted = digests[record.bundle]
            expected = ("hipaa-treatment",) if permitted else ("base-model-roles",)
            assert record.policies == expected
            assert record.status == (200 if permitted else 403)
            assert answers.get(f"clinic/gateway-1#{index}", record.status) == record.status
    loads = [record for record in records if isinstance(record, PolicyRecord)]
    assert [load.version for load in loads] == list(range(2, RELOADS + 2))
    assert {load.approvers for load in loads} == {("alice", "bob")}
    # Durable before it takes effect: no request was decided by a bundle before its load is recorded.
    known = {published.bundle(1).digest()}
    for record in records:
        if isinstance(record, PolicyRecord):
            known.add(record.bundle)
        else:
            assert record.bundle in known


def test_what_must_not_be_in_force_is_refused_recorded_and_forgotten_by_nobody(published, tmp_path):
    signed = published.approval.signed
    first = published.files.bundle.read_bytes()
    with GatewayProcess(published.site, tmp_path) as gateway:
        published.put_version(2, Role.RESEARCHER)
        wait_for(gateway, 403)
        offers = [
            (first, PolicyProblem.VERSION_OUTDATED),
            (signed(published.bundle(2)), PolicyProblem.VERSION_OUTDATED),
            (signed(published.bundle(3), "alice", "alice"), PolicyProblem.UNDER_SIGNED),
            (signed(published.bundle(3))[:4000], PolicyProblem.UNTRUSTED),
        ]
        for number, (document, _) in enumerate(offers, start=2):
            published.put(document)
            wait_for_loads(gateway, number)
            assert ask(gateway).status == 403
        # A restart forgets nothing: the old file is still there, properly signed.
        published.put(first)
        gateway.kill()
        gateway.start()
        assert ask(gateway).status == 403
    loads = [record for record in records_of(published.site) if isinstance(record, PolicyRecord)]
    assert {load.step for load in loads} == {PolicyStep.LOAD}
    problems = [None, *(problem for _, problem in offers), PolicyProblem.VERSION_OUTDATED]
    assert [load.problem for load in loads] == problems


def test_without_a_published_bundle_a_site_with_approvers_does_not_start(published, tmp_path):
    from bedside.errors import BedsideError

    published.files.bundle.unlink()
    gateway = GatewayProcess(published.site, tmp_path)
    with pytest.raises(BedsideError, match="no policies are published yet"):
        gateway.start()
    gateway.stop()


def test_a_candidate_decides_in_the_shadow_and_changes_nothing(published, tmp_path):
    candidate = published.bundle(2, Role.RESEARCHER)
    with GatewayProcess(published.site, tmp_path) as gateway:
        assert ask(gateway).status == 200
        write_bundle(published.files.shadow, published.approval.signed(candidate, "bob"))
        pause = threading.Event()
        differing = 0
        while not differing:
            reply = ask(gateway)
            assert reply.status == 200
            size = int(call("GET", f"{gateway.url}/checkpoint").body.split(b"\n")[1])
            leaves = call("GET", f"{gateway.url}/tile/entries/000.p/{size}").body
            differing = leaves.count(b'"shadow"')
            pause.wait(0.01)
        published.files.shadow.unlink()
        write_bundle(published.files.shadow, b"{}")
        for _ in range(5):
            assert ask(gateway).status == 200
    records = records_of(published.site)
    assert records[0].shadow is None
    found = [record.shadow for record in records if record.shadow is not None]
    assert {note.bundle for note in found} == {candidate.digest()}
    assert {note.changes for note in found} == {("refused",)}
    assert read_draft(published.files.bundle.read_bytes()).version == 1
