"""The how-tos for pulling a report and for verifying it elsewhere, done as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support import GatewayProcess, call, make_site, publish_linear
from support.sites import ROW

from audit.reports.browser import verifier_page
from bedside.up import environment_of

HOW_TO = Path(__file__).parents[2] / "docs/how-to"


def page(name):
    text = (HOW_TO / name).read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = [[line[2:] for line in block.splitlines()] for block in blocks]
    return lines, re.findall(r"<!-- prints: (.*?) -->", text)


def shell(lines, folder, site=None):
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-euc", "\n".join(lines)],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **(environment_of(site.config) if site else {})},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done
    return done.stdout


def test_a_report_is_pulled_and_verified_elsewhere_as_the_pages_say(tmp_path):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    with GatewayProcess(site, tmp_path) as gateway:
        for _ in range(3):
            assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
    here, auditor = tmp_path / "here", tmp_path / "auditor"
    here.mkdir()
    auditor.mkdir()
    (pull,), prints = page("pull-your-first-report.md")
    assert prints[0] in shell(pull, here, site)
    assert (here / "report/refusals-report.pdf").read_bytes().startswith(b"%PDF")
    (at_site, at_auditor), prints = page("verify-without-trusting-us.md")
    shell(at_site, here, site)
    assert (here / "verify.html").read_text() == verifier_page()
    os.link(here / "report/access-report.zip", auditor / "access-report.zip")
    os.link(here / "keys.txt", auditor / "keys.txt")
    assert prints[0] in shell(at_auditor, auditor)
