"""The how-to for witnesses, done by two parties with their own processes; a split view is caught."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from support import GatewayProcess, call, make_site, publish_linear
from support.sites import ROW, free_port

from audit import NoteSigner, WitnessKey, open_checkpoint
from audit.checkpoint import sign_checkpoint
from audit.cosignature import cosignatures_of
from audit.merkle import Frontier, leaf_hash
from audit.settings import WitnessesSettings, WitnessMember, WitnessSettings
from audit.verify import read_entries
from bedside.children import Child, bedside_command
from bedside.config import Config
from bedside.site import Site
from bedside.up import environment_of

PAGE = (Path(__file__).parents[2] / "docs/how-to/witnesses.md").read_text()
TOML = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)]
CONSOLE = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
PRINTS = re.findall(r"<!-- prints: (.*?) -->", PAGE)


def run(line, site, **environment):
    shown = os.path.expandvars(" ".join(line)) if isinstance(line, list) else line
    for name, value in environment.items():
        shown = shown.replace(f"${name}", value)
    return subprocess.run(
        bedside_command(*shlex.split(shown)[1:]),
        env={**os.environ, **environment_of(site.config)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def infer(gateway, times):
    for _ in range(times):
        assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200


def published(url, size):
    """Wait until the published checkpoint covers `size` records."""
    while True:
        reply = call("GET", f"{url}/checkpoint")
        if reply.status == 200 and int(reply.body.split(b"\n")[1]) >= size:
            return reply.body


@pytest.fixture
def auditor(tmp_path):
    def start(log_keys):
        settings = {**TOML[0]["witness"], "port": free_port(), "logs": log_keys}
        site = Site(Config(data=tmp_path / "auditor", witness=WitnessSettings(**settings)))
        key = run(CONSOLE[1], site).stdout.strip()
        child = Child(
            "witness",
            bedside_command(*shlex.split(CONSOLE[2])[1:]),
            log=tmp_path / "witness.log",
            environment=environment_of(site.config),
        )
        children.append(child)
        assert key in child.wait_for(lambda line: " ready at " in line, 60)
        return site, key, f"http://127.0.0.1:{site.config.witness.port}"

    children = []
    yield start
    for child in children:
        child.stop()


def test_a_log_is_witnessed_as_the_page_says_and_a_split_view_is_caught(tmp_path, auditor):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    log_key = str(site.log_verifier("gateway-1"))
    log_keys = run(CONSOLE[0], site).stdout.split()
    assert log_key in log_keys
    witness, witness_key, url = auditor(log_keys)
    settings = WitnessesSettings(
        quorum=TOML[1]["audit"]["witnesses"]["quorum"],
        interval_s=0.05,
        members=(WitnessMember(url=url, key=witness_key),),
    )
    audit = site.config.audit.model_copy(update={"witnesses": settings})
    site = Site(site.config.model_copy(update={"audit": audit}))
    assert CONSOLE[3] == "bedside gateway"
    with GatewayProcess(site, tmp_path) as gateway:
        infer(gateway, 5)
        note = published(gateway.url, 5)
        metrics = call("GET", f"{gateway.url}/metrics", token=operator(site)).body.decode()
    assert cosignatures_of(note, [WitnessKey.parse(witness_key)])
    assert 'log_witness_state{state="cosigned",witness="auditor.example/w1"} 1.0' in metrics
    folder = str(site.log_folder("gateway-1"))
    every_log_is_witnessed(site, tmp_path)
    assert PRINTS[0] in run(CONSOLE[4], site).stdout
    here = [line.replace(".bedside/logs/gateway-1", folder) for line in CONSOLE[5:7]]
    for line in here:
        done = run(line, site, LOG_KEY=log_key, WITNESS_KEY=witness_key)
        assert PRINTS[1] in done.stdout, (line, done)
    assert PRINTS[2] in run(CONSOLE[7], witness).stdout

    # The owner takes a copy, and both go on: one for the auditor, one for somebody else.
    (tmp_path / "copy").mkdir()
    shutil.copytree(site.data, tmp_path / "copy/site")
    with GatewayProcess(site, tmp_path) as gateway:
        infer(gateway, 10)
        seen = open_checkpoint(published(gateway.url, 15), [site.log_verifier("gateway-1")]).size
    other = Site(
        site.config.model_copy(
            update={
                "data": tmp_path / "copy/site",
                "gateway": site.config.gateway.model_copy(update={"port": free_port()}),
            }
        )
    )
    with GatewayProcess(other, tmp_path / "copy") as gateway:
        infer(gateway, seen)
        # Nothing that the witness did not see is published: readers are left where they were.
        state = ""
        while 'state="contradicted"' not in state:
            scraped = call("GET", f"{gateway.url}/metrics", token=operator(other)).body.decode()
            state = next((line for line in scraped.splitlines() if line.endswith("} 1.0")
                          and "log_witness_state" in line), "")  # fmt: skip
        shown = open_checkpoint(
            call("GET", f"{gateway.url}/checkpoint").body, [site.log_verifier("gateway-1")]
        )
        assert shown.size < seen

    # What the owner signs without the witness convinces nobody who asks for its word.
    fork = other.log_folder("gateway-1")
    size = max(int(path.name) for path in (fork / "tile/entries/000.p").iterdir())
    assert size > seen
    forge(fork, site, size)
    alone = run(f"bedside audit verify {fork} --key {log_key}", other)
    assert f"verified: {size} records" in alone.stdout, alone
    asked = f"bedside audit verify {fork} --key {log_key} --witness {witness_key} --require 1"
    done = run(asked, other)
    assert done.returncode == 1
    assert "NOT verified: 0 of the 1 witnesses cosigned" in done.stderr
    truth = run(asked.replace(str(fork), folder), site)
    assert truth.returncode == 0, truth


def every_log_is_witnessed(site, folder):
    """A report's own log carries the witness's line, as the logs do that it draws on."""
    done = run(f"bedside audit report access --out {folder / 'report'}", site)
    assert done.returncode == 0, done
    verified = run("bedside audit verify", site).stdout.splitlines()
    of = {
        line.split()[4].strip(","): cosigned
        for line, cosigned in itertools.pairwise(verified)
        if "root" in line
    }
    assert {"clinic/gateway-1", "clinic/reports"} <= of.keys()
    assert all("cosigned by auditor.example/w1" in line for line in of.values())
    found = run(f"bedside audit verify {folder / 'report/access-report.zip'} --require 1", site)
    assert found.returncode == 0, found
    # A log that no witness was shown is not verified as one that it was.
    (site.log_folder("reports") / "cosigned").unlink()
    checkpoint = site.log_folder("reports") / "checkpoint"
    lines = checkpoint.read_text().splitlines(keepends=True)
    checkpoint.write_text("".join(line for line in lines if "auditor" not in line))
    done = run("bedside audit verify", site)
    assert "0 of the 1 witnesses cosigned the checkpoint of clinic/reports" in done.stderr, done


def operator(site):
    from policies import Role

    return site.token_issuer().issue("it.operator", [Role.OPERATOR], lifetime_s=600)


def forge(folder, site, size):
    """Sign the copy's tree again, as its owner can, in place of the checkpoint that was cosigned."""
    frontier = Frontier()
    for leaf in read_entries(folder, size):
        frontier.append(leaf_hash(leaf))
    signer = NoteSigner("clinic/gateway-1", site.keys.signing_key("log-gateway-1"))
    (folder / "checkpoint").write_bytes(sign_checkpoint(signer, size, frontier.root()).note)
