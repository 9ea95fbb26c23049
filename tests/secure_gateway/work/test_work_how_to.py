"""The how-to for asynchronous work does what it says, command by command."""

import json
import tomllib

from support import GatewayProcess, make_site, publish_linear, records_of
from support.page import Page, run_lines
from support.sites import ROW

from audit.records import Action
from secure_gateway.work.settings import WorkSettings

PAGE = Page("how-to/asynchronous-work.md")


def test_its_commands_work_as_they_are_written(tmp_path):
    assert len(PAGE.commands) >= 10
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        before = [f"export TOKEN={gateway.token()}", f"body='{json.dumps(ROW)}'"]
        PAGE.shown_by(run_lines([*before, *PAGE.commands], tmp_path, url=gateway.url))
    actions = {record.action for record in records_of(site)}
    assert actions >= {Action.SUBMIT, Action.INFER, Action.FETCH, Action.CANCEL}


def test_the_settings_that_it_shows_are_the_defaults():
    shown = tomllib.loads(PAGE.settings())["gateway"]["work"]
    assert shown == WorkSettings().model_dump()
