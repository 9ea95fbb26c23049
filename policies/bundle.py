"""A bundle: the signed, versioned set of Cedar policies, schema and data that a site decides by.

It is built from packs (`policies.pack`) and the site's own data: its models, and where its data may
be processed. It travels as one file, `bundle.json`: a DSSE envelope with payload type
`application/vnd.bedside.bundle+json` over canonical JSON (members in the order below, mappings sorted
by key, no spaces):

    name       the site
    version    a whole number from 1; a later bundle has a higher one
    packs      the names of its packs
    schema     [{"path", "text"}]: the parts of the Cedar schema
    policies   [{"path", "text"}]: Cedar files, in the order in which Cedar numbers their policies
    invariants [{"path", "text"}]: what is to be proved of the policies, in Cedar's language
    groups     {group: {"members", "source", "checked"}}: jurisdictions that some law treats alike
    models     {model: {"roles", "purposes", "data_classes", "risk", "necessary_outputs"}}: who may use
               it, for what, on which data, what a wrong answer may do, and which outputs suffice where
               no more than necessary may leave; the last three absent where nothing was said of them
    residency  {jurisdiction: [jurisdiction or group]}: where its identifiable data may be processed
    numbers    {"cohort_minimum", ...}: what is enforced of federated jobs; absent where no pack says
    created    when it was drafted; absent where a site makes its bundle by itself
    rollback   {"version", "reason"}: which published version's content it brings back, if any
    sources    [{"path", "text"}]: the rest of the packs: their cases, so that an approver can test it

The digest of a bundle is SHA-256 of the payload.
"""

import datetime as dt
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta, Struct
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from policies.errors import BundleInvalid, BundleUntrusted
from policies.facts import JURISDICTION, DataClass, Purpose, RiskClass, Role
from policies.invariants import examine_invariants
from policies.numbers import Numbers, strictest
from policies.obligations import is_output_name
from policies.pack import DATA, PACKS, Group, load_packs, merge_groups
from policies.source import SourceFile
from policies.validation import Finding, PolicyText, examine, parse_schema

PAYLOAD_TYPE: Final = "application/vnd.bedside.bundle+json"
# The packs that ship are 40 kB together; a document far beyond that is a mistake or an attack.
DOCUMENT_MAX_BYTES: Final = 16 * 1024 * 1024

_encoder = msgspec.json.Encoder(order="deterministic")


class ModelAccess(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who may use a model and for what, as its site decided.

    `data_classes` are those that it was made for, and `risk` what may come of a wrong answer: the
    worst, of a model of which nothing was said. `necessary_outputs` are those that suffice where the
    law lets no more than necessary leave.
    """

    roles: tuple[Role, ...]
    purposes: tuple[Purpose, ...]
    data_classes: tuple[DataClass, ...] = tuple(DataClass)
    risk: RiskClass = RiskClass.IV
    necessary_outputs: tuple[str, ...] = ()


class RollbackReason(StrEnum):
    """Why a site goes back to what it decided by before."""

    WRONG_PERMISSIONS = "wrong-permissions"
    WRONG_REFUSALS = "wrong-refusals"
    WRONG_OBLIGATIONS = "wrong-obligations"
    LAW_CHANGED = "law-changed"
    PUBLISHED_BY_MISTAKE = "published-by-mistake"


class Rollback(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The published version whose content is brought back, and why."""

    version: Annotated[int, Meta(ge=1)]
    reason: RollbackReason


class Bundle(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything that decisions depend on, and what its approvers sign along with it."""

    name: str
    version: Annotated[int, Meta(ge=1)]
    packs: tuple[str, ...]
    schema: tuple[SourceFile, ...]
    policies: tuple[SourceFile, ...]
    invariants: tuple[SourceFile, ...]
    groups: Mapping[str, Group]
    models: Mapping[str, ModelAccess]
    residency: Mapping[str, tuple[str, ...]]
    numbers: Numbers | None = None
    created: Annotated[dt.datetime, Meta(tz=True)] | None = None
    rollback: Rollback | None = None
    sources: tuple[SourceFile, ...] = ()

    def payload(self) -> bytes:
        """Return the canonical bytes that are signed."""
        return _encoder.encode(self)

    def digest(self) -> str:
        """Return SHA-256 of the payload, in hexadecimal."""
        return hashlib.sha256(self.payload()).hexdigest()

    def schema_text(self) -> str:
        """Return the whole Cedar schema."""
        return "\n".join(file.text for file in self.schema)

    def source(self) -> str:
        """Return all policies as one Cedar text; the nth statement is Cedar's `policy<n>`."""
        return "\n".join(file.text for file in self.policies)


def build_bundle(
    packs: Sequence[str],
    *,
    name: str,
    version: int,
    models: Mapping[str, ModelAccess],
    residency: Mapping[str, Sequence[str]] | None = None,
    root: Path = PACKS,
) -> Bundle:
    """Return the bundle of the packs under `root` with these names, checked.

    `residency` says, for a jurisdiction, in which jurisdictions or groups of them its identifiable
    data may be processed; one that it does not name is left to the other rules.

    Raises:
        BundleInvalid: if a pack is missing, or anything in it does not validate.
    """
    bundle = assemble_bundle(
        packs, name=name, version=version, models=models, residency=residency, root=root
    )
    validate(bundle)
    return bundle


def assemble_bundle(
    packs: Sequence[str],
    *,
    name: str,
    version: int,
    models: Mapping[str, ModelAccess],
    residency: Mapping[str, Sequence[str]] | None = None,
    root: Path = PACKS,
) -> Bundle:
    """Return what `build_bundle` does without checking it, for those who want all the findings.

    Raises:
        BundleInvalid: if a pack cannot be read.
    """
    loaded = load_packs(packs, root)
    return Bundle(
        name=name,
        version=version,
        packs=tuple(packs),
        schema=tuple(file for pack in loaded for file in pack.schema),
        policies=tuple(file for pack in loaded for file in pack.policies),
        invariants=tuple(file for pack in loaded for file in pack.invariants),
        groups=merge_groups(loaded),
        models=dict(models),
        residency={home: tuple(places) for home, places in (residency or {}).items()},
        numbers=strictest(pack.numbers for pack in loaded if pack.numbers is not None),
    )


def find_problems(bundle: Bundle) -> tuple[Finding, ...]:
    """Return everything that is wrong with `bundle`."""
    return _examine(bundle)[1]


def validate(bundle: Bundle) -> tuple[PolicyText, ...]:
    """Return what the bundle's policies say of themselves; the nth is Cedar's `policy<n>`.

    Raises:
        BundleInvalid: naming the file and line, if a policy does not parse, does not fit the
            schema, lacks `@id`, `@title` or `@cite`, shares its id with another, or names a role,
            purpose, data class or jurisdiction that does not exist.
    """
    texts, findings = _examine(bundle)
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise BundleInvalid(f"{findings[0]}{more}")
    return texts


def sign(bundle: Bundle, keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """Return the bundle as a signed document."""
    envelope = Envelope(bundle.payload(), PAYLOAD_TYPE, {})
    for key in keys:
        envelope.sign(CryptoSigner(key))
    return json.dumps(envelope.to_dict()).encode()


def verify(document: bytes, keys: Iterable[Ed25519PublicKey], *, threshold: int = 1) -> Bundle:
    """Return the bundle in `document` if `threshold` of `keys` signed it.

    Raises:
        BundleUntrusted: if they did not, or the document is no signed bundle.
        BundleInvalid: if its content does not validate.
    """
    envelope = open_envelope(document)
    trusted: list[Key] = [SSlibKey.from_crypto(key) for key in keys]
    try:
        envelope.verify(trusted, threshold)
    except (ValueError, VerificationError) as error:
        raise BundleUntrusted("the policy bundle is not signed by the site's policy keys") from error
    bundle = bundle_in(envelope)
    validate(bundle)
    return bundle


def open_envelope(document: bytes) -> Envelope:
    """Return the envelope in `document`, whoever signed it.

    Raises:
        BundleUntrusted: if it is no envelope with a policy bundle.
    """
    if len(document) > DOCUMENT_MAX_BYTES:
        raise BundleUntrusted(f"a policy bundle is at most {DOCUMENT_MAX_BYTES} bytes long")
    try:
        envelope = Envelope.from_dict(json.loads(document))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleUntrusted("the document is no signed policy bundle, or part of one") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BundleUntrusted("the signed document is not a policy bundle")
    return envelope


def bundle_in(envelope: Envelope) -> Bundle:
    """Return the bundle in `envelope`, whoever signed it; whether it validates is not looked at.

    Raises:
        BundleInvalid: if it does not fit its format.
    """
    try:
        bundle = msgspec.json.decode(envelope.payload, type=Bundle)
    except msgspec.DecodeError as error:
        raise BundleInvalid(f"the policy bundle does not fit its format: {error}") from error
    # Records name a bundle by its digest, which must be that of the bytes which were signed.
    if bundle.payload() != envelope.payload:
        raise BundleInvalid("the policy bundle is not in its canonical form")
    return bundle


class _Versioned(Struct):
    version: int


def version_and_digest(document: bytes) -> tuple[int, str]:
    """Return which bundle `document` holds, whoever signed it and whatever else its format has.

    What another release of Bedside kept must still say which versions there were.

    Raises:
        BundleUntrusted: if it is no envelope with a policy bundle.
    """
    payload = open_envelope(document).payload
    try:
        version = msgspec.json.decode(payload, type=_Versioned).version
    except msgspec.DecodeError as error:
        raise BundleUntrusted("the signed document names no version") from error
    return version, hashlib.sha256(payload).hexdigest()


def write_bundle(path: Path, document: bytes) -> None:
    """Put a signed bundle at `path`, whole or not at all, and durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(document)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_bundle(path: Path, keys: Iterable[Ed25519PublicKey], *, threshold: int = 1) -> Bundle:
    """Return the signed bundle at `path`.

    Raises:
        BundleUntrusted: if `threshold` of `keys` did not sign it, or it cannot be read.
        BundleInvalid: if its content does not validate.
    """
    try:
        document = path.read_bytes()
    except OSError as error:
        raise BundleUntrusted(f"the policy bundle cannot be read: {error.strerror}") from error
    return verify(document, keys, threshold=threshold)


def _examine(bundle: Bundle) -> tuple[tuple[PolicyText, ...], tuple[Finding, ...]]:
    texts, findings = examine(bundle.schema, bundle.policies, bundle.groups)
    schema, _ = parse_schema(bundle.schema)
    _, wrong = examine_invariants(bundle.invariants, schema, bundle.groups)
    return texts, (*findings, *wrong, *_of_residency(bundle), *_of_models(bundle), *_of_numbers(bundle))


def _of_residency(bundle: Bundle) -> Iterable[Finding]:
    for home, places in bundle.residency.items():
        if not JURISDICTION.fullmatch(home):
            yield _in_table(f"{home!r} is not an ISO 3166 code; a row is about one country or state")
        for place in places:
            if place not in bundle.groups and not JURISDICTION.fullmatch(place):
                yield _in_table(f"{place!r} in the row {home} is neither an ISO 3166 code nor a group")


def _of_numbers(bundle: Bundle) -> Iterable[Finding]:
    problem = bundle.numbers.problem if bundle.numbers else None
    if problem:
        yield Finding(path=DATA, line=0, message=problem)


def _of_models(bundle: Bundle) -> Iterable[Finding]:
    for name, access in bundle.models.items():
        for output in access.necessary_outputs:
            if not is_output_name(output):
                message = f"{output!r} of the model {name} is no name that an output can have"
                yield Finding(path="models", line=0, message=message)


def _in_table(message: str) -> Finding:
    return Finding(path="residency", line=0, message=message)
