"""The page that verifies reports in a browser says what `bedside audit verify` says, offline.

Seen to fail: with the leaf prefix 0x00 left out, with the manifest's digest not compared with what the
log recorded, with a cosignature's time left out of what is verified, with `connect-src *`, and with
`--soft: #aaa`, which is too faint to be read.
"""

import base64
import hashlib
import io
import json
import re
import struct
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.axe import violations
from support.browser import chromium
from support.hospital import SITE, requests
from support.packed import made, pack, packed, unpack
from support.tampered import JSON_CHANGES, ZIP_CHANGES

from audit import NoteVerifier, VerificationError, WitnessKey
from audit.cosignature import Cosigner
from audit.reports import KINDS, Filters, verify_report
from audit.reports.browser import verifier_page

SCREENSHOTS = Path(__file__).parents[2] / "build/screenshots"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return made(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def whole(site):
    """A report over all records, as a zip file."""
    return packed(site, site.report("access"))


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    """The page, opened from a file in a browser that has no network."""
    file = tmp_path_factory.mktemp("page") / "verify.html"
    file.write_text(verifier_page())
    with chromium() as open_tab:
        tab = open_tab(offline=True)
        tab(lambda page: page.goto(file.as_uri()))
        tab(lambda page: page.wait_for_selector("#form:not([hidden])"))
        yield tab
        assert tab.asked == [file.as_uri()]


def ask(tab, name, data, verifiers, witnesses=(), quorum=0):
    """Return the page's verdict on a file, and the reason or what it says."""

    def work(page):
        page.fill("#keys", "\n".join(map(str, verifiers)))
        page.evaluate("document.querySelector('details').open = true")
        page.fill("#witnesses", "\n".join(map(str, witnesses)))
        page.fill("#quorum", str(quorum))
        page.evaluate("document.querySelector('#result').removeAttribute('data-done')")
        file = {"name": name, "mimeType": "application/octet-stream", "buffer": data}
        page.set_input_files("#file", [file])
        page.click("#verify")
        page.wait_for_selector("#result[data-done]")
        return page.inner_text(".verdict h2"), page.inner_text(".verdict p")

    said = tab(work)
    assert tab.problems == []
    return said


def shown(tab, selector):
    return tab(lambda page: page.inner_text(selector))


def reason(tmp_path, name, data, verifiers, witnesses=(), quorum=0):
    """Return why the command refuses a file, or None."""
    (tmp_path / name).write_bytes(data)
    try:
        verify_report(tmp_path / name, verifiers, witnesses=witnesses, quorum=quorum)
    except VerificationError as error:
        return str(error).replace(str(tmp_path / name), name)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_verifies(site, tab, kind):
    filters = Filters(subject=requests(1)[0].subject) if KINDS[kind].needs_subject else None
    report = site.report(kind, filters)
    verdict, said = ask(tab, f"{kind}.zip", packed(site, report), site.verifiers)
    assert verdict == "Verified"
    assert said.startswith(f"{len(report.entries)} record")
    assert report.kind.title in shown(tab, ".about")


def test_every_change_to_a_zip_is_refused_with_the_same_reason(site, tab, whole, tmp_path):
    for change, message in ZIP_CHANGES:
        files = unpack(whole)
        change(files)
        data = pack(files)
        why = reason(tmp_path, "r.zip", data, site.verifiers)
        assert re.search(message, why)
        assert ask(tab, "r.zip", data, site.verifiers) == ("NOT verified", why)


def test_every_change_to_a_report_is_refused_with_the_same_reason(site, tab, whole, tmp_path):
    text = unpack(whole)["report.json"]
    assert ask(tab, "r.json", text, site.verifiers)[0] == "Verified"
    for change, message in JSON_CHANGES:
        document = json.loads(text)
        change(document)
        data = json.dumps(document).encode()
        why = reason(tmp_path, "r.json", data, site.verifiers)
        assert re.search(message, why)
        assert ask(tab, "r.json", data, site.verifiers) == ("NOT verified", why)


def twice():
    doubled = io.BytesIO()
    with zipfile.ZipFile(doubled, "w") as archive:
        archive.writestr("report.json", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("report.json", b"2")
    return doubled.getvalue()


def torn(data):
    """Yield what is no zip file, or not the one that was packed."""
    yield data[:-40]
    yield b"PK"
    place = data.index(b"report.json") + 2000
    yield data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    # A central directory that promises more than 1 GiB of one member.
    entry = data.index(b"PK\x01\x02")
    yield data[: entry + 24] + struct.pack("<I", 0x7FFFFFFF) + data[entry + 28 :]
    yield twice()


def test_damaged_files_are_refused_with_the_same_reason(site, tab, whole, tmp_path):
    for data in torn(whole):
        why = reason(tmp_path, "r.zip", data, site.verifiers)
        assert why is not None
        assert ask(tab, "r.zip", data, site.verifiers) == ("NOT verified", why)


def test_keys_come_from_whoever_verifies_and_from_nowhere_else(site, tab, whole, tmp_path):
    stranger = NoteVerifier(f"{SITE}/reports", Ed25519PrivateKey.generate().public_key())
    for keys in ([], site.verifiers[:-1], [*site.verifiers[:-1], stranger]):
        why = reason(tmp_path, "r.zip", whole, keys)
        assert ask(tab, "r.zip", whole, keys) == ("NOT verified", why)
    good = str(site.verifiers[0])
    name, hash_, key = good.split("+", 2)
    for bad in ("x", f"{name}+00000000+{key}", f"+{hash_}+{key}", f"{name}+{hash_}+AA=="):
        with pytest.raises(VerificationError) as refused:
            NoteVerifier.parse(bad)
        said = ask(tab, "r.zip", whole, [bad])
        assert said == ("NOT verified", f"line 1 of the log keys: {refused.value}")


def test_witnesses_are_counted_and_required_as_the_command_does(tmp_path, tab):
    keys = [Ed25519PrivateKey.generate() for _ in range(3)]
    signers = [Cosigner(f"auditor.example/w{n}", key) for n, key in enumerate(keys)]
    stranger = WitnessKey("auditor.example/w0", keys[2].public_key())
    site = made(tmp_path)
    for source in site.sources:
        path = source.folder / "checkpoint"
        text = path.read_text().split("\n\n")[0] + "\n"
        lines = "".join(signer.cosign(text, 1_764_000_000 + n) for n, signer in enumerate(signers[:2]))
        path.write_text(path.read_text() + lines)
    data = packed(site, site.report("jobs"))
    both = [signer.key for signer in signers]
    for witnesses, quorum in ((both, 0), (both, 2), (both, 3), ([stranger], 1), ([], 0), ([], 1)):
        why = reason(tmp_path, "r.zip", data, site.verifiers, witnesses, quorum)
        verdict, said = ask(tab, "r.zip", data, site.verifiers, witnesses, quorum)
        assert (verdict, said if why else None) == ("NOT verified" if why else "Verified", why)
        if why is None and witnesses:
            assert "auditor.example/w1, 2025-11-24 16:00:01 UTC" in shown(tab, ".scroll")
    files = unpack(data)
    document = json.loads(files["report.json"])
    document["made_by"] = "bedside 0.0.0"
    head = document["logs"][0]["checkpoint"].rstrip("\n")
    raw = bytearray(base64.b64decode(head.rpartition(" ")[2]))
    raw[-1] ^= 1
    document["logs"][0]["checkpoint"] = (
        f"{head.rpartition(' ')[0]} {base64.b64encode(bytes(raw)).decode()}\n"
    )
    data = json.dumps(document).encode()
    why = reason(tmp_path, "r.json", data, site.verifiers, both)
    assert "does not verify" in why
    assert ask(tab, "r.json", data, site.verifiers, both) == ("NOT verified", why)


def test_it_says_plainly_what_it_did_not_check(site, tab, whole, tmp_path):
    """What only the command works out again is listed, not passed over."""
    document = json.loads(unpack(whole)["report.json"])
    document["shown"]["figures"][0]["value"] += 1
    data = json.dumps(document).encode()
    assert "not what follows" in reason(tmp_path, "r.json", data, site.verifiers)
    assert ask(tab, "r.json", data, site.verifiers)[0] == "Verified"
    said = shown(tab, ".checks")
    for words in (
        "the figures, charts, tables, PDF and CSV follow from the records",
        "every record passes the report's filters",
        "That the site recorded this report",
        "That everybody is shown the same log",
        "Whose keys these are",
    ):
        assert words in said
    ask(tab, "r.zip", packed(site, site.report("refusals")), site.verifiers)
    assert "no record was left out when the report was made" in shown(tab, ".checks")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 320])
def test_everybody_can_use_it_whatever_it_says(site, whole, tmp_path, scheme, width):
    file = tmp_path / "verify.html"
    file.write_text(verifier_page())
    damaged = unpack(whole)
    damaged["records.csv"] += b"\n"
    with chromium() as open_tab:
        tab = open_tab(offline=True, color_scheme=scheme, viewport={"width": width, "height": 900})
        tab(lambda page: page.goto(file.as_uri()))
        tab(lambda page: page.wait_for_selector("#form:not([hidden])"))
        usable(tab, f"verify-{scheme}-{width}-empty")
        for name, data, verdict in (
            ("good", whole, "Verified"),
            ("bad", pack(damaged), "NOT verified"),
        ):
            assert ask(tab, "report.zip", data, site.verifiers)[0] == verdict
            usable(tab, f"verify-{scheme}-{width}-{name}")


def usable(tab, name):
    """Keep a picture of the page; axe finds nothing, and nothing is cut off sideways (WCAG 1.4.10)."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    tab(lambda page: page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True))
    assert "\n".join(tab(violations)) == "", name
    root = "document.documentElement"
    assert tab(lambda page: page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")), name


def test_nothing_else_can_run_load_or_connect(tab):
    text = verifier_page()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith(
        "default-src 'none'; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://|src=|url\(|@import| on\w+=|eval\(|innerHTML", text)
    fetched = "(url) => fetch(url).then(() => 'sent', () => 'blocked')"
    for address in ("https://example.org/x", tab(lambda page: page.url)):
        assert tab(lambda page, to=address: page.evaluate(fetched, to)) == "blocked"
    assert all("Content Security Policy" in problem for problem in tab.problems)
    tab.problems.clear()
