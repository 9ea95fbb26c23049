"""The how-to for consent does what it says, command by command."""

import tomllib

from support import GatewayProcess, make_site, publish_linear, records_of
from support.page import Page, run_lines

from audit.records import Action
from bedside.up import environment_of
from policies import Role
from secure_gateway.consent import ConsentSettings

PAGE = Page("how-to/record-consent.md")


def test_its_commands_work_as_they_are_written(tmp_path):
    assert len(PAGE.commands) >= 10
    site = make_site(tmp_path, gateway={"consent": {"registry": True}})
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        token = gateway.token("p.officer", Role.COMPLIANCE)
        environment = {**environment_of(site.config), "TOKEN": token}
        output = run_lines(PAGE.commands, tmp_path, url=gateway.url, environment=environment)
    PAGE.shown_by(output)
    actions = [record.action for record in records_of(site)]
    assert actions.count(Action.CONSENT_GRANT) == actions.count(Action.CONSENT_WITHDRAW) == 2
    assert actions.count(Action.CONSENT_READ) == 3


def test_the_settings_that_it_shows_are_the_defaults_of_a_registry():
    shown = tomllib.loads(PAGE.settings())["gateway"]["consent"]
    made = ConsentSettings(registry=True)
    assert shown == {name: getattr(made, name) for name in shown}
    assert not made.believes_claims
    assert ConsentSettings().believes_claims
