"""A coordinator and a gateway, both real processes: what is published through one decides in the other.

The gateway is on a machine of its own, as far as it can tell: it has the site's keys and models, and no
policies. Seen to fail: with the file as its source, it never sees a bundle.
"""

import json
import shutil
import threading
from datetime import UTC, datetime

import pytest
from msgspec import structs
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.policy import Approval
from support.sites import ROW, free_port

from audit.records import PolicyRecord, PolicyStep
from bedside.children import Child, bedside_command
from bedside.config import PolicyEntry
from bedside.site import Site
from bedside.up import environment_of
from coordinator import CoordinatorSettings
from policies import (
    ModelAccess,
    Purpose,
    Role,
    build_bundle,
    draft_document,
    with_sources,
    write_bundle,
)
from policies.pack import PACKS

PACK_NAMES = ("base", "hipaa", "gdpr", "residency")


def bundle_for(role, version):
    access = ModelAccess(roles=(role,), purposes=(Purpose.TREAT, Purpose.ETREAT))
    built = build_bundle(PACK_NAMES, name="clinic", version=version, models={"breast-cancer": access})
    created = datetime.now(UTC).replace(microsecond=0)
    return structs.replace(with_sources(built, PACKS), created=created)


@pytest.fixture
def approval(tmp_path):
    return Approval(tmp_path / "approvers", "clinic")


@pytest.fixture
def site(tmp_path, approval):
    keys = {name: key.public_key().public_bytes_raw().hex() for name, key in approval.keys.items()}
    port = free_port()
    made = make_site(
        tmp_path,
        gateway={"policy_poll_s": 0.05},
        policy=PolicyEntry(packs=PACK_NAMES, approvers=keys),
        coordinator=CoordinatorSettings(port=port, url=f"http://127.0.0.1:{port}"),
    )
    publish_linear(made, tmp_path)
    write_bundle(made.bundles().folder.bundle, approval.signed(bundle_for(Role.CLINICIAN, 1)))
    return made


def elsewhere(site, folder):
    """Return the same site with a data folder that has its keys and models, and nothing else."""
    for part in ("keys", "models"):
        shutil.copytree(site.data / part, folder / part)
    return Site(site.config.model_copy(update={"data": folder}))


def test_what_is_published_through_the_api_decides_in_the_gateway(site, approval, tmp_path):
    url = f"{site.config.coordinator.url}/v1/policy"
    coordinator = Child(
        "coordinator",
        bedside_command("coordinator"),
        log=tmp_path / "coordinator.log",
        environment=environment_of(site.config),
    )

    def ask_api(method, path, role, body=None):
        token = site.token_issuer().issue(role.value, [role], lifetime_s=600)
        return call(method, f"{url}{path}", token=token, body=body, timeout=120)

    try:
        coordinator.wait_for(lambda line: " ready at " in line, 90)
        site.token_issuer()
        remote = elsewhere(site, tmp_path / "elsewhere")
        with GatewayProcess(remote, tmp_path) as gateway:
            assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
            document = draft_document(bundle_for(Role.RESEARCHER, 2))
            digest = ask_api("POST", "/drafts", Role.ENGINEER, {"document": json.loads(document)}).json[
                "digest"
            ]
            for name in ("alice", "bob"):
                (signature,) = json.loads(approval.signed(document, name))["signatures"]
                ask_api("POST", f"/drafts/{digest}/signatures", Role.COMPLIANCE, signature)
            done = ask_api("POST", f"/drafts/{digest}/publish", Role.OPERATOR)
            assert (done.status, done.json["version"]) == (200, 2)
            pause = threading.Event()
            while call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status != 403:
                pause.wait(0.02)
            # The coordinator is away; what was decided by stays in force, after a restart too.
            coordinator.stop()
            gateway.kill()
            gateway.start()
            assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 403
    finally:
        coordinator.stop()
    for place, replica in ((remote, "gateway-1"), (site, "coordinator")):
        loads = [r for r in records_of(place, replica) if isinstance(r, PolicyRecord)]
        assert [(load.step, load.version) for load in loads] == [(PolicyStep.LOAD, 2)]
    steps = [r.step for r in records_of(site, "policy")]
    assert steps == [PolicyStep.DRAFT, PolicyStep.SIGN, PolicyStep.SIGN, PolicyStep.PUBLISH]
