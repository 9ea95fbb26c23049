"""Retention as the how-to has it, with the gateway running: afterwards no file holds what was pruned.

Seen to fail: with `await catch_up(...)` left out of `Retention.carry_out` the index still holds them;
with `secure_delete` off, SQLite's free pages do; with a `PruneWatch._run` that returns at once, the
running gateway never prunes.
"""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from support import GatewayProcess, call, make_site, publish_linear
from support.sites import ROW
from typer.testing import CliRunner

from audit.minimum import read_minimum
from audit.records import HoldChange, HoldRecord, PruneRecord, decode, encode
from audit.verify import read_checkpoint, read_entries, verify_log
from bedside.cli.main import app
from bedside.errors import BedsideError
from bedside.up import environment_of
from policies import Role

PAGE = (Path(__file__).parents[2] / "docs/how-to/retain-and-prune.md").read_text()
LINES = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if not line.startswith("$ export ")
]
(TOKEN,) = re.findall(r"^\$ export TOKEN=\$\((.*)\)$", PAGE, re.MULTILINE)
PRINTS = re.findall(r"<!-- prints: (.*?) -->", PAGE)
OLD, SIZE = 512, 600


@pytest.fixture
def run(site, tmp_path, monkeypatch):
    """Run a command line in this process; returns what it printed, or how it failed."""
    monkeypatch.chdir(tmp_path)

    def run(line, role=Role.COMPLIANCE):
        token = site.token_issuer().issue("c.officer", [role], lifetime_s=600)
        environment = {**environment_of(site.config), "TOKEN": token}
        done = CliRunner().invoke(app, line.split()[1:], env=environment)
        if done.exception is not None and not isinstance(done.exception, BedsideError):
            raise done.exception
        return f"{done.output}{done.exception or ''}"

    return run


def write(site, record):
    """Write 512 records of 2018 and 88 of now; return the bytes of all."""
    first = datetime(2018, 1, 1, tzinfo=UTC)
    leaves = [
        encode(
            msgspec.structs.replace(
                record,
                id=UUID(int=number),
                time=first + timedelta(hours=12 * number) if number < OLD else datetime.now(UTC),
                model="breast-cancer" if number == 300 else record.model,
            )
        )
        for number in range(SIZE)
    ]

    async def append():
        log = await site.open_log("gateway-1")
        await asyncio.gather(*(log.append(leaf) for leaf in leaves))
        await log.close()

    asyncio.run(append())
    return leaves


def found_in(folder, leaves):
    content = b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return [number for number, leaf in enumerate(leaves) if leaf in content]


@pytest.fixture
def site(tmp_path):
    site = make_site(tmp_path)
    publish_linear(site, tmp_path)
    site.bundles().settle()
    return site


def test_what_is_past_its_retention_is_gone_from_every_file(site, run, tmp_path, request_record):
    leaves = write(site, request_record)
    # The search index holds copies.
    assert "20 records; there are more" in run("bedside audit search")
    assert found_in(site.data, leaves) == list(range(SIZE))
    officer = site.token_verifier().verify(run(TOKEN).strip().encode())
    assert (officer.id, list(officer.roles)) == ("c.officer", [Role.COMPLIANCE])
    assert "policy lets compliance officers" in run(LINES[-3], Role.CLINICIAN)
    assert "policy lets compliance officers" in run(LINES[1], Role.OPERATOR)
    assert "capital letters" in run("bedside audit hold place Jane-Doe")
    assert "no such hold" in run(LINES[4])
    with GatewayProcess(site, tmp_path) as gateway:
        for line, expected in zip(LINES, PRINTS, strict=True):
            assert expected in (done := run(line)), (line, done)
        assert call("POST", gateway.infer_url, token=gateway.token(), body=ROW).status == 200
        assert found_in(site.data, leaves) == list(range(OLD, SIZE))
    assert found_in(site.data, leaves) == list(range(OLD, SIZE))
    folder, verifier = site.log_folder("gateway-1"), site.log_verifier("gateway-1")
    verified = verify_log(folder, verifier)
    assert (verified.minimum, verified.records) == (OLD, SIZE - OLD + 1)
    assert read_minimum(folder, verifier).newest == decode(leaves[OLD - 1]).time
    assert "512 records before" in run("bedside audit verify")

    report = msgspec.json.decode((tmp_path / "report/integrity-report.json").read_bytes())
    assert any("of that time it is not complete" in note for note in report["notes"])
    assert "report is whole" in run("bedside audit verify report/integrity-report.zip")
    for command in ("check", "rebuild", "check"):
        assert "from record 512 on" in run(f"bedside audit index {command}")
    assert "clinic/gateway-1#600" in run("bedside audit records")
    assert "nothing was changed" in run("bedside audit prune")
    assert "nothing was removed" in run(LINES[-3])

    folder, verifier = site.log_folder("retention"), site.log_verifier("retention")
    size = read_checkpoint(folder, verifier).size
    placed, released, pruned = map(decode, read_entries(folder, size))
    assert isinstance(placed, HoldRecord)
    assert isinstance(released, HoldRecord)
    assert (placed.change, released.change) == (HoldChange.PLACED, HoldChange.RELEASED)
    assert (placed.id, placed.scope) == (released.id, released.scope)
    assert isinstance(pruned, PruneRecord)
    assert (pruned.log, pruned.minimum_index, pruned.principal) == (
        "clinic/gateway-1",
        OLD,
        "c.officer",
    )
    # A minimum index that no record decided is found at the site.
    (folder / "checkpoint").unlink()
    assert "which no record decided" in run("bedside audit verify")
