"""Crypto-erasure as the how-to has it: afterwards nothing stored finds the person's records."""

import asyncio
import base64
import re
import subprocess
from pathlib import Path

import msgspec
from support import make_site

from audit.pseudonyms import PseudonymKey, _path
from audit.records import ErasureRecord, decode, encode
from audit.verify import read_entries, verify_log
from bedside.children import bedside_command
from bedside.up import environment_of
from policies import Role

PAGE = (Path(__file__).parents[2] / "docs/how-to/erase-a-person.md").read_text()
LINES = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
PRINTS = re.findall(r"<!-- prints: (.*?) -->", PAGE)


def run(line, site, role=Role.COMPLIANCE):
    import os

    token = site.token_issuer().issue("c.officer", [role], lifetime_s=600)
    return subprocess.run(
        bedside_command(*line.split()[1:]),
        env={**os.environ, **environment_of(site.config), "TOKEN": token},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_after_erasure_neither_search_nor_anything_stored_finds_the_person(tmp_path, request_record):
    site = make_site(tmp_path)
    site.bundles().settle()
    names = ("mrn-0001", "mrn-0002")
    before = {name: site.pseudonymizer().pseudonym(name) for name in names}
    root = site.keys.pseudonym_key()

    async def write():
        log = await site.open_log("gateway-1")
        for pseudonym in before.values():
            await log.append(encode(msgspec.structs.replace(request_record, subject=pseudonym)))
        await log.close()

    asyncio.run(write())
    assert run(LINES[1], site, Role.CLINICIAN).returncode == 1
    assert site.keys.pseudonym_key() == root
    for line, expected in zip(LINES, PRINTS, strict=True):
        done = run(line, site)
        assert expected in done.stdout, (line, done)
    assert "1 record\n" in run(LINES[0].replace("0001", "0002"), site).stdout

    after = site.pseudonymizer()
    assert after.pseudonym("mrn-0001") != before["mrn-0001"]
    assert after.pseudonym("mrn-0002") == before["mrn-0002"]
    # Every seed on the way from the root to the person's leaf would give the pseudonym back.
    path, seeds = _path(b"mrn-0001", 0), [root]
    for depth in range(1, len(path) + 1):
        seeds.append(PseudonymKey({b"": root})._leaf(path[:depth]))
    content = [file.read_bytes() for file in site.data.rglob("*") if file.is_file()]
    assert any(before["mrn-0001"].encode() in data for data in content)
    for seed in seeds:
        for form in (seed, seed.hex().encode(), base64.b64encode(seed)):
            assert not any(form in data for data in content)
    assert not any(b"mrn-0001" in data for data in content)

    folder, verifier = site.log_folder("erasures"), site.log_verifier("erasures")
    assert verify_log(folder, verifier).records == 1
    (leaf,) = read_entries(folder, 1)
    record = decode(leaf)
    assert isinstance(record, ErasureRecord)
    assert record.principal == "c.officer"
    assert before["mrn-0001"].encode() not in leaf
    assert verify_log(site.log_folder("gateway-1"), site.log_verifier("gateway-1")).records == 2
