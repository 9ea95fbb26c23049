"""The page about the console works as it is written."""

import os
import re
import subprocess
from pathlib import Path

from support.officers import ConsoleProcess, hospital

from audit.records import ConsoleAction, ConsoleRecord, decode
from audit.verify import read_entries
from bedside.children import bedside_command
from bedside.up import environment_of

PAGE = (Path(__file__).parents[2] / "docs/how-to/use-the-console.md").read_text()
LINES = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
PRINTS = re.findall(r"<!-- prints: (.*?) -->", PAGE)
PASSWORD = "a sentence for this very test"


def run(line, site, folder):
    return subprocess.run(
        bedside_command(*line.split()[1:]),
        cwd=folder,
        env={**os.environ, **environment_of(site.config)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_account_is_made_signs_in_and_is_disabled(tmp_path):
    site = hospital(tmp_path)
    site.bundles().settle()
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    for line, expected in zip(LINES[:2], PRINTS[:2], strict=True):
        done = run(line, site, tmp_path)
        shown = re.sub(r" +", " ", done.stdout.replace("\u2502", "|"))
        assert expected in shown, done
    assert LINES[2] == "bedside console serve"
    with ConsoleProcess(site, tmp_path) as console:
        assert PRINTS[2] in console.log.read_text()
        visitor = console.visitor()
        assert visitor.sign_in("c.officer", PASSWORD).status_code == 303
        assert visitor.get("/search").status_code == 200
        assert run("bedside console user disable c.officer", site, tmp_path).returncode == 0
        assert visitor.get("/search").status_code == 303
        assert visitor.sign_in("c.officer", PASSWORD).status_code == 401
        for words in ("enable", "unlock"):
            assert run(f"bedside console user {words} c.officer", site, tmp_path).returncode == 0
        assert visitor.sign_in("c.officer", PASSWORD).status_code == 303
    changes = [decode(leaf) for leaf in read_entries(site.log_folder("accounts"), 4)]
    assert [record.action for record in changes if isinstance(record, ConsoleRecord)] == [
        ConsoleAction.ACCOUNT_ADD,
        ConsoleAction.ACCOUNT_CHANGE,
        ConsoleAction.ACCOUNT_CHANGE,
        ConsoleAction.ACCOUNT_UNLOCK,
    ]


def test_bad_accounts_are_one_clear_line(tmp_path):
    site = hospital(tmp_path)
    (tmp_path / "short").write_text("short")
    for line, words in (
        ("bedside console user add c.officer --role compliance --password file:short", "15 to 256"),
        ("bedside console user add Jane --role compliance --password file:short", "account's name"),
        ("bedside console user add c.officer --role compliance --password short", "by reference"),
        ("bedside console user disable nobody", "there is no account nobody"),
    ):
        done = run(line, site, tmp_path)
        assert done.returncode == 1
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
