"""Cosignatures as the specification and the public witness network have them.

Seen to fail: with the time left out of `_message`, and with 0x01 for 0x04 in `COSIGNATURE`.
"""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import NoteSigner, NoteVerifier, VerificationError, WitnessKey, open_checkpoint
from audit.checkpoint import sign_checkpoint
from audit.cosignature import Cosigner, cosignatures_of, require_quorum
from audit.merkle import EMPTY_ROOT

# A checkpoint of a public CT log as its witnesses cosigned it on 2026-05-23, with its published keys;
# the first signature is of a type that is not ours.
LOG = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
WITNESSES = (
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
)
NOTE = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

\u2014 arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
\u2014 arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
\u2014 transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
\u2014 witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
\u2014 remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
\u2014 witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
""".encode()  # noqa: E501

KEY = Ed25519PrivateKey.generate()
CHECKPOINT = sign_checkpoint(NoteSigner("o", KEY), 0, EMPTY_ROOT)
TEXT = CHECKPOINT.note.decode().partition("\n\n")[0] + "\n"
COSIGNER = Cosigner("w", Ed25519PrivateKey.generate())


def cosigned(*lines):
    return CHECKPOINT.note + "".join(lines).encode()


def test_a_checkpoint_of_the_public_network_verifies_with_all_its_witnesses():
    keys = [WitnessKey.parse(text) for text in WITNESSES]
    assert [str(key) for key in keys] == list(WITNESSES)
    assert open_checkpoint(NOTE, [NoteVerifier.parse(LOG)]).size == 1432088532
    found = require_quorum(NOTE, keys, 4)
    assert {cosignature.time for cosignature in found} == {0x6A122120}
    assert all(cosignature.line.encode() in NOTE for cosignature in found)


@pytest.mark.parametrize(("old", "new"), [(b"1432088532", b"1432088533"), (b"AABqEiEg", b"AABqEiEh")])
def test_neither_the_checkpoint_nor_the_time_can_be_changed(old, new):
    with pytest.raises(VerificationError, match="cosignature of"):
        cosignatures_of(NOTE.replace(old, new), [WitnessKey.parse(WITNESSES[0])])


def test_the_signed_message_is_the_specifications():
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    line = Cosigner("witness.example.com/w1", private).cosign(
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        1679315147,
    )
    dash, name, encoded = line.removesuffix("\n").split(" ")
    raw = base64.b64decode(encoded)
    assert (dash, name) == ("\u2014", "witness.example.com/w1")
    assert raw[4:12] == (1679315147).to_bytes(8, "big")
    message = (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )
    private.public_key().verify(raw[12:], message)


def test_a_key_counts_once_and_a_stranger_never():
    stranger = Cosigner("s", Ed25519PrivateKey.generate())
    twice = cosigned(
        COSIGNER.cosign(TEXT, 7),
        COSIGNER.cosign(TEXT, 9),
        COSIGNER.cosign(TEXT, 8),
        stranger.cosign(TEXT, 7),
    )
    (found,) = cosignatures_of(twice, [COSIGNER.key])
    assert found.time == 9
    alias = WitnessKey("another name", COSIGNER.key.key)
    with pytest.raises(VerificationError, match="1 of the 2 witnesses cosigned"):
        require_quorum(twice, [COSIGNER.key, alias], 2)


@pytest.mark.parametrize("time", [0, 2**63])
def test_a_time_that_says_nothing_is_refused(time):
    with pytest.raises(VerificationError, match="does not verify"):
        cosignatures_of(cosigned(COSIGNER.cosign(TEXT, time)), [COSIGNER.key])


def test_a_plain_signature_is_no_cosignature_and_no_keys_stand_for_each_other():
    plain = NoteSigner("w", KEY)
    key = WitnessKey("w", KEY.public_key())
    assert cosignatures_of(plain.sign(TEXT), [key]) == []
    with pytest.raises(VerificationError, match="not a key of type 0x04"):
        WitnessKey.parse(str(plain.verifier))
    with pytest.raises(VerificationError, match="not an Ed25519 key"):
        NoteVerifier.parse(str(key))
