"""A bundle: the signed, versioned set of Cedar policies, schema and data that a site decides by.

A bundle is built from packs (folders with `pack.toml`, `*.cedar`, `*.cedarschema`, `data.toml`) and
the site's own data (its models). It travels as one file, a DSSE envelope with payload type
`application/vnd.bedside.bundle+json` over canonical JSON: {"name", "version", "packs", "schema",
"policies", "groups", "models"}. Its digest is SHA-256 of that payload.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cedarpy
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from policies.errors import BundleInvalid, BundleUntrusted
from policies.facts import Purpose, Role

PAYLOAD_TYPE: Final = "application/vnd.bedside.bundle+json"
PACKS: Final = Path(__file__).parent / "packs"
REQUIRED_ANNOTATIONS: Final = ("id", "title", "cite")

_STATEMENT = re.compile(r"^\s*(?:permit|forbid)\s*\(", re.MULTILINE)
_POLICY_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")

_encoder = msgspec.json.Encoder(order="deterministic")


class ModelAccess(Struct, frozen=True, kw_only=True):
    """Who may use a model and for what, as its site decided."""

    roles: tuple[Role, ...]
    purposes: tuple[Purpose, ...]


class PolicyFile(Struct, frozen=True, kw_only=True):
    """One Cedar file of a pack; `path` is `<pack>/<file>`."""

    path: str
    text: str


class PolicyText(Struct, frozen=True, kw_only=True):
    """What a policy says of itself, and where it stands."""

    id: str
    title: str
    citation: str
    effect: str
    obligations: tuple[str, ...]
    path: str
    line: int


class Bundle(Struct, frozen=True, kw_only=True):
    """Everything that decisions depend on.

    `groups` maps a jurisdiction or group of jurisdictions to the groups that it belongs to.
    """

    name: str
    version: int
    packs: tuple[str, ...]
    schema: str
    policies: tuple[PolicyFile, ...]
    groups: Mapping[str, tuple[str, ...]]
    models: Mapping[str, ModelAccess]

    def payload(self) -> bytes:
        """Return the canonical bytes that are signed."""
        return _encoder.encode(self)

    def digest(self) -> str:
        """Return SHA-256 of the payload, in hexadecimal."""
        return hashlib.sha256(self.payload()).hexdigest()

    def source(self) -> str:
        """Return all policies as one Cedar text; the nth statement is Cedar's `policy<n>`."""
        return "\n".join(file.text for file in self.policies)


def build_bundle(
    packs: Sequence[str],
    *,
    name: str,
    version: int,
    models: Mapping[str, ModelAccess],
    root: Path = PACKS,
) -> Bundle:
    """Return the bundle of the named packs, checked.

    Raises:
        BundleInvalid: if a pack is missing, or anything in it does not validate.
    """
    schema: list[str] = []
    policies: list[PolicyFile] = []
    groups: dict[str, set[str]] = {}
    for pack in packs:
        folder = root / pack
        if not (folder / "pack.toml").is_file():
            raise BundleInvalid(f"there is no policy pack named {pack!r}")
        schema += [file.read_text() for file in sorted(folder.glob("*.cedarschema"))]
        policies += [
            PolicyFile(path=f"{pack}/{file.name}", text=file.read_text())
            for file in sorted(folder.glob("*.cedar"))
        ]
        data = folder / "data.toml"
        if data.is_file():
            for group, members in tomllib.loads(data.read_text())["groups"].items():
                for member in members:
                    groups.setdefault(member, set()).add(group)
    bundle = Bundle(
        name=name,
        version=version,
        packs=tuple(packs),
        schema="\n".join(schema),
        policies=tuple(policies),
        groups={member: tuple(sorted(of)) for member, of in sorted(groups.items())},
        models=dict(models),
    )
    validate(bundle)
    return bundle


def validate(bundle: Bundle) -> tuple[PolicyText, ...]:
    """Return what the bundle's policies say of themselves, in Cedar's order.

    Raises:
        BundleInvalid: naming the file and line, if a policy does not parse, does not fit the
            schema, lacks `@id`, `@title` or `@cite`, or shares its id with another.
    """
    try:
        schema = cedarpy.Schema.from_str(bundle.schema)
    except ValueError as error:
        raise BundleInvalid(f"the schema does not parse: {error}") from error
    texts: list[PolicyText] = []
    for file in bundle.policies:
        own = _describe(file)
        for position, text in enumerate(own):
            earlier = next((o for o in (*texts, *own[:position]) if o.id == text.id), None)
            if earlier is not None:
                raise BundleInvalid(
                    f"{text.path}:{text.line}: @id({text.id}) is taken by {earlier.path}"
                )
        result = cedarpy.validate_policies(file.text, schema)
        if not result.validation_passed:
            finding = result.errors[0]
            index = int(finding.policy_id.removeprefix("policy") or 0) if finding.policy_id else 0
            line = own[index].line if index < len(own) else 1
            raise BundleInvalid(f"{file.path}:{line}: {finding.error}")
        texts += own
    return tuple(texts)


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
    trusted: list[Key] = [SSlibKey.from_crypto(key) for key in keys]
    try:
        envelope = Envelope.from_dict(json.loads(document))
        envelope.verify(trusted, threshold)
    except (ValueError, KeyError, TypeError, AttributeError, VerificationError) as error:
        raise BundleUntrusted("the policy bundle is not signed by the site's policy keys") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BundleUntrusted("the signed document is not a policy bundle")
    try:
        bundle = msgspec.json.decode(envelope.payload, type=Bundle)
    except msgspec.ValidationError as error:
        raise BundleInvalid(f"the policy bundle does not fit its schema: {error}") from error
    validate(bundle)
    return bundle


def _describe(file: PolicyFile) -> list[PolicyText]:
    lines = [file.text.count("\n", 0, match.end()) + 1 for match in _STATEMENT.finditer(file.text)]
    try:
        document = json.loads(cedarpy.policies_to_json_str(file.text))
    except ValueError as error:
        raise BundleInvalid(f"{file.path}: the policies do not parse: {error}") from error
    # Cedar numbers static policies in the order of the text.
    policies: list[dict[str, Any]] = [
        document["staticPolicies"][f"policy{index}"] for index in range(len(document["staticPolicies"]))
    ]
    if document["templates"] or len(policies) != len(lines):
        raise BundleInvalid(f"{file.path}: start each policy on a line of its own; no templates")
    return [_text_of(policy, file.path, line) for policy, line in zip(policies, lines, strict=True)]


def _text_of(policy: dict[str, Any], path: str, line: int) -> PolicyText:
    annotations: dict[str, str | None] = policy.get("annotations", {})
    for name in REQUIRED_ANNOTATIONS:
        if not annotations.get(name):
            raise BundleInvalid(f"{path}:{line}: every policy needs @{name}(...)")
    identifier = annotations["id"] or ""
    if not _POLICY_ID.fullmatch(identifier):
        raise BundleInvalid(f"{path}:{line}: an @id is lower-case letters, digits, '.' and '-'")
    obligations = annotations.get("obligation") or ""
    return PolicyText(
        id=identifier,
        title=annotations["title"] or "",
        citation=annotations["cite"] or "",
        effect=policy["effect"],
        obligations=tuple(name.strip() for name in obligations.split(";") if name.strip()),
        path=path,
        line=line,
    )
