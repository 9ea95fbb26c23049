"""Schemathesis over a real coordinator: nothing of what was sent is written, nor is anything kept.

Whatever is asked goes out three times: as it was made, and with words that are looked for in place of
its texts, of all or of those alone that may be anything. Such words are in the headers too.

Seen to fail: with a member's text in `problems.invalid`, with the model of a job in a warning that
passes the screen, and with a file kept open for each request.
"""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from support import call, make_site, publish_linear, use
from support.canaries import Planter
from support.sites import free_port

from bedside.children import Child, bedside_command
from bedside.up import environment_of
from coordinator import CoordinatorSettings
from policies import Role

EXAMPLES = 4
# Members that may hold any text.
FREE = ("subjects", "subject", "code", "model", "version", "document", "payload", "keyid", "sig")
# Python's own pool and the database's threads, which are made as they are needed.
THREADS = 16
# Proofs and reports load what they need when they are first asked for.
MEMORY_BYTES = 160 << 20


class Coordinator:
    """A real `bedside coordinator`, and tokens for it."""

    def __init__(self, folder):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "coordinator.log"
        self.site = make_site(folder, coordinator=CoordinatorSettings(port=port))
        publish_linear(self.site, folder)
        environment = environment_of(self.site.config)
        command = bedside_command("coordinator")
        self.child = Child("coordinator", command, log=self.log, environment=environment)

    def headers(self, role):
        token = self.site.token_issuer().issue(role.value, [role], lifetime_s=3600)
        return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory):
    running = Coordinator(tmp_path_factory.mktemp("coordinator"))
    try:
        running.child.wait_for(lambda line: " ready at " in line, 90)
        yield running
    finally:
        running.child.stop()


def planted(plant, value, where=None, free=True):
    """Return `value` with words that are looked for in place of its texts: all, or those in `where`."""
    if isinstance(value, str):
        return plant.text() if free else value
    if isinstance(value, dict):
        return {
            name: planted(plant, inner, where, where is None or name in where)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [planted(plant, inner, where, free) for inner in value]
    return value


def fuzz(operation, mode, send):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        send(case)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE


def test_it_writes_nothing_of_what_was_sent_and_keeps_no_more_than_before(coordinator):
    plant = Planter()
    callers = [coordinator.headers(role) for role in (Role.OPERATOR, Role.ENGINEER, Role.COMPLIANCE)]
    asked = []

    def send(case):
        for headers in (*callers, {}, {"Authorization": f"Bearer {plant.text()}"}):
            sent = {**headers, "X-Patient-Name": plant.text(), "User-Agent": plant.text()}
            answer = case.call(headers=sent, timeout=60)
            case.validate_response(answer, checks=(not_a_server_error,))
            path = case.path
            for name in case.path_parameters or {}:
                path = path.replace(f"{{{name}}}", plant.text())
            url = f"{coordinator.url}{path}?{plant.text()}"
            for where in (None, FREE):
                body = planted(plant, case.body, where) if _plain(case.body) else {}
                reply = call(case.method, url, headers=sent, body=body)
                assert reply.status < 500 or reply.status == 503, (case.method, case.path)
                if reply.status >= 400:
                    assert not list(plant.canaries.matches(reply.body)), (case.method, case.path)
                asked.append(reply.status)

    def serves():
        return call("GET", f"{coordinator.url}/healthz").json["ready"] is True

    document = schemathesis.openapi.from_url(f"{coordinator.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    kept = use.nothing_kept(
        coordinator.child.pid, serves, serves, threads=THREADS, memory_bytes=MEMORY_BYTES
    )
    with kept:
        for operation in operations:
            for mode in GenerationMode if operation.body else (GenerationMode.POSITIVE,):
                fuzz(operation, mode, send)
    assert {200, 400, 401, 403, 404} <= set(asked)
    written = coordinator.log.read_bytes()
    assert not list(plant.canaries.matches(written))
    assert b"unforeseen" not in written
    assert b"Traceback" not in written


def _plain(body):
    return isinstance(body, dict | list | str | int | float | bool | None)
