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


@pytest.mark.parametrize("size", ["-1", "01", "x", "1e3", "", "+1", " 1", "1_0", "\u0661", "9" * 5000])
def test_a_checkpoint_with_a_strange_size_is_refused(size):
    signer = NoteSigner("o", Ed25519PrivateKey.generate())
    note = signer.sign(f"o\n{size}\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")
    with pytest.raises(VerificationError):
        open_checkpoint(note, [signer.verifier])


def signed(text):
    return NoteSigner("o", NOTE_KEY).sign(text)


NOTE_KEY = Ed25519PrivateKey.generate()
NOTE_VERIFIER = NoteVerifier("o", NOTE_KEY.public_key())
ROOT = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def test_a_checkpoint_reads_as_the_specification_has_it():
    checkpoint = sign_checkpoint(NoteSigner("o", NOTE_KEY), 0, EMPTY_ROOT)
    assert checkpoint.note.decode().startswith(f"o\n0\n{ROOT}\n\n\u2014 o ")
    assert open_checkpoint(checkpoint.note, [NOTE_VERIFIER]) == checkpoint
    extended = open_checkpoint(signed(f"o\n0\n{ROOT}\nan extension\n"), [NOTE_VERIFIER])
    assert (extended.size, extended.root) == (0, EMPTY_ROOT)


@pytest.mark.parametrize(
    "text",
    [
        "o\n0\n",
        f"\n0\n{ROOT}\n",
        f"o\n0\n{ROOT}\n\nan extension\n",
        f"o\n0\n{ROOT[:-1]}\n",
        f"o\n0\n{ROOT[:-2]}V=\n",
        "o\n0\nAAAA\n",
        f"other\n0\n{ROOT}\n",
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(text):
    with pytest.raises(VerificationError, match="checkpoint"):
        open_checkpoint(signed(text), [NOTE_VERIFIER])


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"text\n",
        signed("text\n")[:-1],
        signed("text\n").replace(b"text", b"te\rxt"),
        signed("text\n") + b"\t\n",
        signed("text\n").replace(b"text", b"te\xffxt"),
        signed("text\n") + "\u2014 p+q AAAAAAAA\n".encode(),
        signed("text\n") + "\u2014 p AAAA\n".encode(),
        signed("text\n") + b"- p AAAAAAAA\n",
        b"x" * 2_000_000,
    ],
)
def test_malformed_notes_are_refused(note):
    with pytest.raises(VerificationError):
        open_note(note, [NOTE_VERIFIER])


def test_only_a_newline_ends_a_line():
    """A verifier that ends lines elsewhere too would read other fields than the signer wrote."""
    text = f"o\u2028x\n0\n{ROOT}\n"
    opened, _ = open_note(signed(text), [NOTE_VERIFIER])
    assert opened == text
    with pytest.raises(VerificationError, match="not signed by its own log"):
        open_checkpoint(signed(text), [NOTE_VERIFIER])


def test_sixteen_signatures_and_more_are_read():
    strangers = [NoteSigner(f"w{n}", Ed25519PrivateKey.generate()) for n in range(40)]
    note = signed("text\n") + b"".join(s.sign("text\n").split(b"\n")[-2] + b"\n" for s in strangers)
    verifiers = [stranger.verifier for stranger in strangers]
    _, who = open_note(note, [NOTE_VERIFIER, *verifiers])
    assert who == [NOTE_VERIFIER, *verifiers]


@pytest.mark.parametrize("text", ["no newline", "a tab\t\n", "\r\n", ""])
def test_no_note_is_signed_that_verifiers_would_refuse(text):
    with pytest.raises(ValueError, match="newline"):
        signed(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\n"])
def test_no_name_is_signed_with_that_verifiers_would_refuse(name):
    with pytest.raises(ValueError, match="name"):
        NoteSigner(name, NOTE_KEY)
