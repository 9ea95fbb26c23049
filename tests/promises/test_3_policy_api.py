"""Promise 3 for the policies' API: what is sent is found in the drafts handed in, and nowhere else.

A real coordinator is asked through every route of `/v1/policy`, with canaries in bodies, members,
paths, headers and tokens, and with a draft whose comments, titles and model are canaries. The draft
itself is kept, since it is to be signed; logs, records, databases and the process's output hold none.

Seen to fail with pydantic's own words in `problems.invalid`.
"""

import itertools
import json
import re
import shutil
from datetime import UTC, datetime

import pytest
from msgspec import structs
from support import call, make_site
from support.canaries import Planter
from support.policy import Approval
from support.sites import free_port

from bedside.children import Child, bedside_command
from bedside.config import PolicyEntry
from bedside.demo.canaries import written_files
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

UNKNOWN = "ab" * 32
POLICY = """
// {comment}
@id("own-{name}")
@title("{title}")
@cite("{citation}")
permit (
  principal in Role::"clinician",
  action == Action::"place",
  resource
)
when {{ context.purpose == "TREAT" }};
"""


@pytest.fixture
def approval(tmp_path):
    return Approval(tmp_path / "approvers", "clinic")


@pytest.fixture
def site(tmp_path, approval):
    keys = {name: key.public_key().public_bytes_raw().hex() for name, key in approval.keys.items()}
    port = free_port()
    made = make_site(
        tmp_path,
        policy=PolicyEntry(packs=("base",), approvers=keys),
        coordinator=CoordinatorSettings(port=port, url=f"http://127.0.0.1:{port}"),
    )
    write_bundle(made.bundles().folder.bundle, approval.signed(bundle(1)))
    return made


@pytest.fixture
def coordinator(site, tmp_path):
    child = Child(
        "coordinator",
        bedside_command("coordinator"),
        log=tmp_path / "coordinator.log",
        environment=environment_of(site.config),
    )
    try:
        child.wait_for(lambda line: " ready at " in line, 90)
        yield child
    finally:
        child.stop()


def bundle(version, packs=("base",), root=PACKS, model="sepsis"):
    access = ModelAccess(roles=(Role.CLINICIAN,), purposes=(Purpose.TREAT,))
    built = build_bundle(packs, name="clinic", version=version, models={model: access}, root=root)
    created = datetime.now(UTC).replace(microsecond=0)
    return structs.replace(with_sources(built, root), created=created)


def planted(plant, root):
    """Return a valid draft with canaries wherever its author writes freely."""
    shutil.copytree(PACKS / "base", root / "base")
    (root / "own").mkdir()
    title = plant.text()
    (root / "own/pack.toml").write_text(
        f'name = "own"\ntitle = "{title}"\nrequires = ["base"] # {plant.text()}\n'
    )
    words = {name: plant.text() for name in ("comment", "name", "title", "citation")}
    (root / f"own/{plant.text()}.cedar").write_text(POLICY.format(**words))
    (root / "own/README.md").write_text(plant.text())
    return bundle(2, ("base", "own"), root, plant.text())


def malformed(plant):
    """Return routes and what is wrong with each question, canaries in all of it."""
    word = plant.text
    bodies = [
        lambda: word().encode(),
        lambda: json.dumps({word(): word()}).encode(),
        lambda: json.dumps([word()]).encode(),
        lambda: json.dumps({"document": {word(): word(), "payload": word()}}).encode(),
        lambda: json.dumps({"keyid": word(), "sig": word()}).encode(),
        lambda: json.dumps({"version": word(), "reason": word(), "digest": word()}).encode(),
        lambda: json.dumps({"since": word(), "roles": [word()], "model": word()}).encode(),
    ]
    digests = (lambda: UNKNOWN, word, lambda: "in-force")
    routes = [
        ("POST", lambda: "drafts"),
        ("POST", lambda: "rollback"),
        ("PUT", lambda: "shadow"),
        ("BREW", lambda: "shadow"),
        ("GET", word),
    ]
    for digest in digests:
        for step in ("", "/signatures", "/publish"):
            methods = ("POST",) if step else ("GET", "DELETE")
            for method in methods:
                routes.append((method, lambda d=digest, s=step: f"drafts/{d()}{s}"))
    for digest, tool in itertools.product(digests[:2], ("check", "test", "prove", "diff")):
        routes.append(("POST", lambda d=digest, t=tool: f"bundles/{d()}/{t}"))
    for digest, tool in itertools.product(digests, ("explain", "replay")):
        routes.append(("POST", lambda d=digest, t=tool: f"bundles/{d()}/{t}"))
    for method, path in routes:
        for body in bodies if method in ("POST", "PUT") else bodies[:1]:
            yield method, path(), body()


def test_nothing_but_the_documents_themselves_holds_what_was_sent(
    site, coordinator, approval, tmp_path
):
    plant, base = Planter(), f"{site.config.coordinator.url}/v1/policy"
    asked = set()
    roles = [Role.COMPLIANCE, Role.ENGINEER, Role.OPERATOR]
    token = site.token_issuer().issue("e.ito", roles, lifetime_s=600)

    def ask(method, path, body=None, token=token):
        asked.add((method, re.sub(r"[0-9a-f]{64}|in-force", "{digest}", path)))
        headers = {
            "User-Agent": plant.text(),
            "X-Approver": plant.text(),
            "If-None-Match": plant.text(),
        }
        url = f"{base}/{path}".rstrip("/")
        return call(
            method, f"{url}?q={plant.text()}", token=token, headers=headers, body=body, timeout=120
        )

    replies = []
    clinician = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=600)
    for (method, path, body), one in zip(
        malformed(plant), itertools.cycle((token, token, clinician, None, "forged")), strict=False
    ):
        reply = ask(method, path, body, plant.text() if one == "forged" else one)
        assert reply.status < 500, (method, path, reply.status)
        replies.append(reply.body)
    assert len(replies) > 100
    assert not list(plant.canaries.matches(b"\n".join(replies)))

    document = draft_document(planted(plant, tmp_path / "packs"))
    digest = ask("POST", "drafts", {"document": json.loads(document)}).json["digest"]
    for tool in ("check", "test", "prove", "diff", "replay"):
        body = {} if tool == "replay" else None
        assert ask("POST", f"bundles/{digest}/{tool}", body).status == 200, tool
    question = {
        "roles": ["clinician"],
        "model": plant.text(),
        "jurisdiction": "US",
        "candidates": [{"placement": "node:us", "jurisdiction": "US"}],
    }
    assert ask("POST", f"bundles/{digest}/explain", question).status == 200
    assert ask("GET", f"drafts/{digest}").body == document
    for name in ("alice", "bob"):
        (one,) = json.loads(approval.signed(document, name))["signatures"]
        assert ask("POST", f"drafts/{digest}/signatures", one).status == 200
    assert ask("PUT", "shadow", {"digest": digest}).status == 200
    assert ask("GET", "shadow").status == 200
    assert ask("GET", "shadow/report").status == 200
    assert ask("DELETE", "shadow").status == 200
    # The draft's own policy has no case, so that it is not published; its name is not in the record.
    assert ask("POST", f"drafts/{digest}/publish").status == 409
    assert ask("GET", "").status == 200
    assert ask("GET", "bundle").status == 200
    assert ask("POST", "rollback", {"version": 1, "reason": "law-changed"}).status < 500
    assert ask("DELETE", f"drafts/{digest}").status == 200

    described = call("GET", f"{site.config.coordinator.url}/openapi.json").json["paths"]
    prefix = "/v1/policy"
    routes = {
        (method.upper(), path.removeprefix(prefix).lstrip("/"))
        for path, methods in described.items()
        if path.startswith(prefix)
        for method in methods
    }
    assert len(routes) >= 18
    assert routes <= asked

    coordinator.stop()
    kept = {site.data / "policy", tmp_path / "approvers", tmp_path / "packs"}
    files = [path for path in written_files(tmp_path) if not kept & set(path.parents)]
    assert tmp_path / "coordinator.log" in files
    assert any("logs/policy" in str(path) for path in files)
    assert list(plant.canaries.search(files)) == []
