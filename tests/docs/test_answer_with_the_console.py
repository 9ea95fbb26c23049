"""What the page for officers says of the console's pages and commands is so."""

import re

import pytest
from support.officers import ConsoleProcess, fill, hospital
from support.page import Page, run_lines

from bedside.up import environment_of

PAGE = Page("how-to/answer-with-the-console.md")
ANSWERS = re.findall(r"^\| [^|]+ \| `(/[^`]*)` \| ([^|]+) \|$", PAGE.text, re.MULTILINE)


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answering")
    site = hospital(folder)
    fill(site)
    with ConsoleProcess(site, folder) as running:
        yield running


def test_each_question_is_answered_where_the_page_says(console):
    officer = console.officer()
    menu = re.search(r'<nav class="pages".*?</nav>', officer.read("/account"), re.DOTALL).group()
    assert set(re.findall(r'href="([^"]+)"', menu)) < {path for path, _ in ANSWERS}
    for path, words in ANSWERS:
        assert words in re.sub(r"<[^>]+>", "", officer.read(path)), (path, words)


def test_its_commands_work_as_they_are_written(console, tmp_path):
    officer = console.officer()
    officer.post("/reports", kind="integrity")
    while not (links := re.findall(r'href="(/reports/[^"]+/zip)"', officer.read("/reports"))):
        pass
    (tmp_path / "integrity-report.zip").write_bytes(officer.get(links[0]).content)
    environment = {**environment_of(console.site.config), "COLUMNS": "200"}
    commands = [line.strip().removeprefix("$ ") for line in PAGE.text.splitlines() if "$ " in line]
    assert len(commands) == 4
    PAGE.shown_by(run_lines(commands, tmp_path, environment=environment))
