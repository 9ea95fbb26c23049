"""The tutorial for a site's own rule does what it says, command by command, up to a live refusal.

Where the page says `bedside up`, which trains a model, a gateway is started with a small one.
"""

from support import GatewayProcess, publish_linear, records_of
from support.page import Page, run_lines
from support.sites import free_port

from audit.records import Problem
from bedside.config import load_config
from bedside.site import Site

START = "bedside up &"


def test_its_commands_work_as_they_are_written(tmp_path, monkeypatch):
    page = Page("tutorials/write-a-residency-rule.md")
    start = page.commands.index(START)
    output = run_lines(page.commands[:start], tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEDSIDE_GATEWAY__PORT", str(free_port()))
    site = Site(load_config(tmp_path / "bedside.toml"))
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        output += run_lines(page.commands[start + 1 :], tmp_path, url=gateway.url)
    page.shown_by(output)
    (refused,) = records_of(site)
    assert refused.problem is Problem.POLICY_REFUSED
    assert refused.policies == ("clinic-quebec-stays",)
