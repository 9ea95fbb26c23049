"""Who may approve a site's policies, and whose signatures a bundle carries.

A signature covers the whole bundle, its site and version too: it approves that version of that site
and no other, so it cannot be carried over to one that the approver never saw.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from policies.bundle import PAYLOAD_TYPE, Bundle, bundle_in, open_envelope, validate
from policies.errors import ApproversInvalid, BundleForeign, BundleUnderSigned, BundleUntrusted

# A site has a handful of approvers; each signature costs a verification.
SIGNATURES_MAX: Final = 64


class Approvers(Struct, frozen=True, kw_only=True):
    """The keys of a site's approvers by name, and how many different ones must sign a bundle."""

    site: str
    keys: Mapping[str, Ed25519PublicKey]
    threshold: int

    def __post_init__(self) -> None:
        raw = [key.public_bytes_raw() for key in self.keys.values()]
        if len(set(raw)) < len(raw):
            raise ApproversInvalid("two approvers have the same key, and would sign as one")
        if not 1 <= self.threshold <= len(raw):
            raise ApproversInvalid(
                f"{self.threshold} approvals are asked for of {len(raw)} approvers; name more "
                "approvers, or set another `threshold`"
            )

    def names_on(self, document: bytes) -> tuple[str, ...]:
        """Return the names of the approvers whose signatures in `document` verify, in order.

        Raises:
            BundleUntrusted: if it is no envelope with a policy bundle.
        """
        return self._names_on(open_envelope(document))

    def verify(self, document: bytes, *, threshold: int | None = None) -> Bundle:
        """Return the bundle in `document` if enough approvers of this site signed it.

        Raises:
            BundleUnderSigned: if some did, but fewer than `threshold` (by default the site's).
            BundleForeign: if it was made for another site.
            BundleUntrusted: if nobody did, or it is no signed bundle.
            BundleInvalid: if its content does not validate.
        """
        envelope = open_envelope(document)
        names = self._names_on(envelope)
        needed = self.threshold if threshold is None else threshold
        if not names:
            raise BundleUntrusted("none of the site's approvers signed the policy bundle")
        if len(names) < needed:
            raise BundleUnderSigned(
                f"{len(names)} of {needed} approvers signed the policy bundle: {', '.join(names)}"
            )
        bundle = bundle_in(envelope)
        if bundle.name != self.site:
            raise BundleForeign("the policy bundle was made for another site")
        validate(bundle)
        return bundle

    def attach(self, document: bytes, signature: Mapping[str, str]) -> bytes:
        """Return `document` with an approver's signature added, as it stands in an envelope.

        Raises:
            BundleUntrusted: if it is not a signature of one of the site's approvers on this document.
        """
        envelope = open_envelope(document)
        signed = {"payload": "", "payloadType": "", "signatures": [dict(signature)]}
        try:
            (added,) = Envelope.from_dict(signed).signatures.values()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleUntrusted("a signature has `keyid` and `sig` (base64)") from error
        envelope.signatures[added.keyid] = added
        attached = _encode(envelope)
        if not self._signer_of(added, envelope):
            raise BundleUntrusted("it is no approver's signature on this draft")
        return attached

    def _names_on(self, envelope: Envelope) -> tuple[str, ...]:
        if len(envelope.signatures) > SIGNATURES_MAX:
            raise BundleUntrusted(f"a policy bundle carries at most {SIGNATURES_MAX} signatures")
        signers = (self._signer_of(signature, envelope) for signature in envelope.signatures.values())
        return tuple(sorted({name for name in signers if name is not None}))

    def _signer_of(self, signature: Signature, envelope: Envelope) -> str | None:
        for name, key in self.keys.items():
            known = SSlibKey.from_crypto(key)
            if known.keyid == signature.keyid:
                try:
                    known.verify_signature(signature, envelope.pae())
                except UnverifiedSignatureError:
                    return None
                return name
        return None


def draft_document(bundle: Bundle) -> bytes:
    """Return `bundle` as a document that nobody signed yet."""
    return _encode(Envelope(bundle.payload(), PAYLOAD_TYPE, {}))


def read_draft(document: bytes) -> Bundle:
    """Return the bundle in `document`, whoever signed it, without believing any of it.

    Raises:
        BundleUntrusted: if it is no envelope with a policy bundle.
        BundleInvalid: if what is in it does not fit the format.
    """
    return bundle_in(open_envelope(document))


def add_signature(document: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return `document` with the signature of `key` added.

    Raises:
        BundleUntrusted: if it is no envelope with a policy bundle.
    """
    envelope = open_envelope(document)
    envelope.sign(CryptoSigner(key))
    return _encode(envelope)


def merged(documents: Iterable[bytes]) -> bytes:
    """Return one document with the signatures of all, which were made on the same bundle apart.

    Raises:
        BundleUntrusted: if they are of different bundles.
    """
    first, *others = [open_envelope(document) for document in documents]
    for other in others:
        if other.payload != first.payload:
            raise BundleUntrusted("the signatures are on different bundles")
        first.signatures.update(other.signatures)
    return _encode(first)


def _encode(envelope: Envelope) -> bytes:
    return json.dumps(envelope.to_dict()).encode()
