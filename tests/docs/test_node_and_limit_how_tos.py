"""The how-tos for several nodes and for limits do what they say, command by command."""

import json
import shlex
import tomllib
from contextlib import ExitStack

from support import GatewayProcess, make_site, publish_linear
from support.page import Page, run_lines
from support.sites import ROW, free_port

from bedside.children import Child, bedside_command
from bedside.up import environment_of
from policies import Role


def run(lines, gateway, role, folder):
    before = [f"export TOKEN={gateway.token('caller-1', role)}", f"body='{json.dumps(ROW)}'"]
    return run_lines([*before, *lines], folder, url=gateway.url)


def test_limits_are_as_the_page_says(tmp_path):
    page = Page("how-to/limits-and-quotas.md")
    settings = tomllib.loads(page.settings())["gateway"]
    site = make_site(tmp_path, gateway=settings)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        output = run(page.commands, gateway, Role.CLINICIAN, tmp_path)
    assert [line for line in output.splitlines() if line.isdigit()] == ["200", "200", "429"]
    page.shown_by(output)


def test_several_nodes_are_started_and_used_as_the_page_says(tmp_path):
    page = Page("how-to/several-nodes.md")
    settings, lines = tomllib.loads(page.settings())["gateway"], page.commands
    secret = tmp_path / "node.secret"
    secret.write_text("a shared secret\n")
    ports = {"8091": str(free_port()), "8092": str(free_port())}

    def located(text):
        for shown, used in ports.items():
            text = text.replace(f":{shown}", f":{used}")
        return text.replace("file:node.secret", f"file:{secret}")

    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    commands = [shlex.split(located(line)) for line in lines if line.startswith("bedside node")]
    assert len(commands) == len(settings["nodes"]) == 2
    assert "bedside gateway" in lines
    settings = json.loads(located(json.dumps(settings)))
    with ExitStack() as stack:
        for command in commands:
            node = Child(
                "node",
                bedside_command(*command[1:]),
                log=tmp_path / f"{command[3]}.log",
                environment=environment_of(site.config),
            )
            stack.callback(node.stop)
            node.wait_for(lambda line: " ready at " in line, 60)
        gateway = stack.enter_context(GatewayProcess(make_site(tmp_path, gateway=settings), tmp_path))
        asked = [line for line in lines if not line.startswith("bedside ")]
        output = run(asked, gateway, Role.CLINICIAN, tmp_path)
    for expected in page.prints:
        assert output.count(expected) == 2, (expected, output)
