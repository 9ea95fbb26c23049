"""The reference of the policy tools does what it says, command by command."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bedside.children import bedside_command
from policies import check_packs, run_cases
from policies.pack import PACKS

PAGE = Path(__file__).parents[2] / "docs/reference/policy-tools.md"
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE))
NAMES = ("base", "hipaa", "gdpr", "residency")


@pytest.fixture
def shell(tmp_path):
    """Run lines in an empty folder, where `bedside` is the one under test."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "bedside").write_text(f'#!/bin/sh\nexec {" ".join(bedside_command())} "$@"\n')
    (tools / "bedside").chmod(0o755)
    folder = tmp_path / "site"
    folder.mkdir()

    def run(*lines):
        script = f'export PATH="{tools}:$PATH" PACKS="{PACKS}"\n' + "\n".join(lines)
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.mark.parametrize("name", SECTIONS)
def test_a_command_does_what_the_page_says(shell, name):
    section = SECTIONS[name]
    lines = [
        line[2:]
        for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
    ]
    assert any(f"bedside policy {name}" in line for line in lines)
    done = shell(*lines)
    assert done.returncode == 0, done.stdout + done.stderr
    prints = re.findall(r"<!-- prints: (.*?) -->", section)
    assert prints
    for expected in prints:
        assert expected in done.stdout, (expected, done.stdout)


def test_every_tool_is_on_the_page(shell):
    done = shell("bedside policy --help")
    for name in SECTIONS:
        assert name in done.stdout
    assert set(SECTIONS) == {"check", "test", "explain", "prove", "diff", "mutate"}


def test_the_invariant_and_the_case_of_the_page_are_good(tmp_path):
    root = tmp_path / "packs"
    shutil.copytree(PACKS, root)
    (invariant,) = re.findall(r"```cedar\n(.*?)```", SECTIONS["prove"], re.DOTALL)
    (case,) = re.findall(r"```yaml\n(.*?)```", SECTIONS["test"], re.DOTALL)
    (root / "own").mkdir()
    (root / "own/pack.toml").write_text('name = "own"\nrequires = ["base"]\n')
    (root / "own/invariants.cedar").write_text(invariant)
    (root / "own/tests.yaml").write_text(case)
    assert check_packs((*NAMES, "own"), root=root) == ()
    run = run_cases(("base", "hipaa", "gdpr", "residency", "own"), root=root)
    assert [result.name for result in run.results if result.pack == "own"] == ["Norway is in the EEA"]
    assert run.passed


BROKEN = """@id("own-wrong")
@title("Clinicians are never permitted anything")
@cite("none")
@invariant("never")
forbid (
  principal in Role::"clinician",
  action == Action::"place",
  resource
);
"""


def test_a_broken_invariant_is_shown_with_the_least_request_and_fails(tmp_path, monkeypatch, capsys):
    """In process: which packs the command reads is no setting of a site."""
    from bedside.bundles import SiteBundles
    from bedside.cli.policy import prove
    from bedside.config import load_config
    from bedside.errors import BedsideError
    from policies import build_bundle

    root = tmp_path / "packs"
    shutil.copytree(PACKS, root)
    with (root / "residency/invariants.cedar").open("a") as file:
        file.write(f"\n{BROKEN}")
    made = build_bundle(NAMES, name="n", version=1, models={}, root=root)
    monkeypatch.setattr(SiteBundles, "considered", lambda self: (made, True))
    monkeypatch.chdir(tmp_path)
    assert load_config(None)
    with pytest.raises(BedsideError, match=r"1 of .* invariants do not hold"):
        prove.prove_invariants(None)
    shown = capsys.readouterr().out
    assert re.search(r"residency/invariants.cedar:\d+: own-wrong does not hold", shown)
    assert "counterexample:\n    roles: clinician\n" in shown
    assert "permitted by gdpr-care" in shown or "permitted by hipaa-treatment" in shown
