"""The metadata that a decision is made on, in closed sets; what is missing takes the strictest value.

Facts hold nothing that identifies a person and take few values each, so that decisions can be
cached and every combination can be checked before a bundle is published.
"""

import re
from enum import StrEnum
from typing import Final

from msgspec import Struct

# A site, an organisation, or the operator of a node, as a site's administrators name it.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# The form of an ISO 3166-1 alpha-2 code, or of a 3166-2 code for a state.
JURISDICTION: Final = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?")


class DataClass(StrEnum):
    """How close the data is to a person: 45 CFR 160.103 (phi), 164.514(e) (limited), (b) (the rest)."""

    PHI = "phi"
    LIMITED = "limited"
    DEIDENTIFIED = "deidentified"
    SYNTHETIC = "synthetic"


class Purpose(StrEnum):
    """Why the data is used: codes of the HL7 v3 value set PurposeOfUse."""

    TREAT = "TREAT"
    ETREAT = "ETREAT"
    HPAYMT = "HPAYMT"
    HOPERAT = "HOPERAT"
    HRESCH = "HRESCH"


class Role(StrEnum):
    """What a principal may be at a site; a token asserts any number of them."""

    CLINICIAN = "clinician"
    ENGINEER = "engineer"
    RESEARCHER = "researcher"
    BILLING = "billing"
    COMPLIANCE = "compliance"
    OPERATOR = "operator"
    APP = "app"
    DEVICE = "device"


class CallerKind(StrEnum):
    """What kind of caller a principal is: a person, an app, an enrolled device, or a program."""

    USER = "user"
    APP = "app"
    DEVICE = "device"
    SERVICE = "service"


class Agreement(StrEnum):
    """What the operator of a node signed with the site."""

    BAA = "baa"  # business associate agreement, 45 CFR 164.504(e)
    DUA = "dua"  # data use agreement for a limited data set, 45 CFR 164.514(e)
    DPA = "dpa"  # contract with a processor, GDPR Art. 28(3)
    SCC = "scc"  # standard contractual clauses, GDPR Art. 46(2)(c)
    BCR = "bcr"  # binding corporate rules, GDPR Art. 47


class RiskClass(StrEnum):
    """What may come of a wrong answer: categories of software as a medical device (IMDRF/SaMD N12)."""

    I = "I"  # noqa: E741 the framework's own name
    II = "II"
    III = "III"
    IV = "IV"


class PlacementKind(StrEnum):
    """Where a request may run at all."""

    NODE = "node"
    DEVICE = "device"


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, without saying who: all that policies can tell of a caller.

    `site` and `organisation` are where the caller belongs; one that says nothing belongs nowhere.
    """

    roles: frozenset[Role]
    kind: CallerKind = CallerKind.USER
    site: str = ""
    organisation: str = ""


class Facts(Struct, frozen=True, kw_only=True):
    """What one request is about, without saying whom.

    `roles`, `kind`, `site` and `organisation` are the caller's.
    `jurisdiction` is ISO 3166-1 alpha-2, or 3166-2 for a state, of the data's legal home; the
    gateway fills the site's own where the caller states none. `on_device` says that a registered
    device holds the subject's data, `own_device` that it is the caller itself; `carries_payload` that
    the request brings tensors of its own.
    """

    roles: frozenset[Role]
    kind: CallerKind = CallerKind.USER
    site: str = ""
    organisation: str = ""
    model: str
    jurisdiction: str
    data_class: DataClass = DataClass.PHI
    purpose: Purpose = Purpose.TREAT
    consent: bool = False
    emergency: bool = False
    on_device: bool = False
    own_device: bool = False
    carries_payload: bool = True

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return Caller(roles=self.roles, kind=self.kind, site=self.site, organisation=self.organisation)


class Candidate(Struct, frozen=True, kw_only=True):
    """One place that could run the request, as policies see it.

    `placement` is `node:<id>` or `device:<id>`. `holds_subject` is true for the device that holds
    the subject's data. `operator` is who runs a node, and `agreements` what it signed; `attested` says
    that the site verified which hardware and software runs there; `adequacy` that the operator is among
    those whom the European Commission's decision on its country covers (GDPR Art. 45), where that
    decision does not cover everybody.
    """

    placement: str
    kind: PlacementKind
    jurisdiction: str
    on_premises: bool = True
    operator: str = ""
    agreements: frozenset[Agreement] = frozenset()
    attested: bool = False
    adequacy: bool = False
    holds_subject: bool = False
