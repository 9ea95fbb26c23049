import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import NoteSigner, NoteVerifier, VerificationError, open_checkpoint
from audit.checkpoint import sign_checkpoint
from audit.merkle import EMPTY_ROOT
from audit.note import open_note

# The example of golang.org/x/mod/sumdb/note.
KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
SIGNED = TEXT + (
    "\n\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqd"
    "ngotpRZb6KE6RyyBwJnAM=\n"
)


def test_the_published_example_verifies():
    verifier = NoteVerifier.parse(KEY)
    text, signed = open_note(SIGNED.encode(), [verifier])
    assert text == TEXT
    assert signed == [verifier]
    assert str(verifier) == KEY


def test_a_changed_text_does_not_verify():
    with pytest.raises(VerificationError, match="does not verify"):
        open_note(SIGNED.replace("answer", "answered").encode(), [NoteVerifier.parse(KEY)])


def test_signatures_of_strangers_are_passed_over_and_alone_are_not_enough():
    signer = NoteSigner("clinic/gateway-1", Ed25519PrivateKey.generate())
    stranger = NoteSigner("stranger", Ed25519PrivateKey.generate())
    checkpoint = sign_checkpoint(signer, 0, EMPTY_ROOT)
    line = stranger.sign(checkpoint.note.decode().partition("\n\n")[0] + "\n").splitlines()[-1]
    both = checkpoint.note + line + b"\n"
    assert open_checkpoint(both, [signer.verifier]).size == 0
    with pytest.raises(VerificationError, match="no trusted key"):
        open_checkpoint(
            both, [NoteVerifier("clinic/gateway-1", Ed25519PrivateKey.generate().public_key())]
        )


@pytest.mark.parametrize(
    "text", ["", "name", "name+00000000+AAAA", KEY.replace("c74f20a3", "c74f20a4"), KEY[:-4] + "AAAA"]
)
def test_malformed_verifier_keys_are_refused(text):
    with pytest.raises(VerificationError):
        NoteVerifier.parse(text)


@pytest.mark.parametrize("size", ["-1", "01", "x", "1e3", ""])
def test_a_checkpoint_with_a_strange_size_is_refused(size):
    signer = NoteSigner("o", Ed25519PrivateKey.generate())
    note = signer.sign(f"o\n{size}\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")
    with pytest.raises(VerificationError):
        open_checkpoint(note, [signer.verifier])
