"""The protocol's reference does what it says, command by command."""

import json
import re
from pathlib import Path

from support import GatewayProcess, make_site, publish_linear
from support.page import Page, run_lines
from support.sites import ROW

from audit.records import Problem
from policies import Role
from secure_gateway.claims import NAMES, TIMEOUT
from secure_gateway.problems import status_of

REFERENCE = Path(__file__).parents[2] / "docs/reference/protocol.md"


def test_its_commands_work_as_they_are_written(tmp_path):
    page = Page("reference/protocol.md")
    assert len(page.commands) >= 8
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        variables = {
            "TOKEN": gateway.token(),
            "OPERATOR": gateway.token("it.ward", Role.OPERATOR),
            "body": json.dumps(ROW),
        }
        before = [f"{name}='{value}'" for name, value in variables.items()]
        output = run_lines([*before, *page.commands], tmp_path, url=gateway.url)
    assert '"error"' not in output, output
    page.shown_by(output)


def test_its_tables_name_every_header_and_tell_the_status_of_each_problem():
    text = REFERENCE.read_text().lower()
    assert all(f"`{name.decode()}`" in text for name in (*NAMES, TIMEOUT))
    for row in re.findall(r"^\| ([\d, ]+) \| (`.*) \|$", text, re.MULTILINE):
        statuses = {int(status) for status in row[0].split(",")}
        named = {Problem(name) for name in re.findall(r"`([a-z-]+)`", row[1])}
        assert named
        assert {status_of(problem) for problem in named} == statuses
