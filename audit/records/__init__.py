"""What one audit entry says: metadata only, in types that have no field for content.

Every field is an enum, a number, a digest, a pseudonym, a time or an identifier from a closed set
(principals, models, placements and policies that the site itself registered). There is no free
text, so a record cannot carry an input, an output or the name of a person. The canonical bytes of a
record (`encode`) are one leaf of the transparency log.
"""

from audit.records.base import (
    Outcome,
    Record,
)
from audit.records.codec import (
    AnyRecord,
    decode,
    encode,
)
from audit.records.console import (
    ConsoleAction,
    ConsoleProblem,
    ConsoleRecord,
)
from audit.records.control import (
    DeviceChange,
    DeviceRecord,
    JobRecord,
    JobState,
    ReleaseRecord,
)
from audit.records.fields import (
    Address,
    Count,
    Digest,
    Identifier,
    Jurisdiction,
    Matter,
    Obligation,
    PlaceJurisdiction,
    Pseudonym,
    Reference,
    Time,
)
from audit.records.oversight import (
    ErasureRecord,
    HoldChange,
    HoldRecord,
    HoldScope,
    PruneRecord,
    ReportRecord,
    ReportStep,
    ReviewRecord,
    ReviewVerdict,
)
from audit.records.policy import (
    PolicyOutcome,
    PolicyProblem,
    PolicyRecord,
    PolicyStep,
    RollbackReason,
)
from audit.records.request import (
    AGREEMENTS,
    Action,
    ConsentScope,
    DecisionChange,
    Flag,
    Place,
    PlaceTrait,
    Problem,
    RefusalsRecord,
    RequestRecord,
    ShadowDifference,
    WorkVerdict,
)

__all__ = [
    "AGREEMENTS",
    "Action",
    "Address",
    "AnyRecord",
    "ConsentScope",
    "ConsoleAction",
    "ConsoleProblem",
    "ConsoleRecord",
    "Count",
    "DecisionChange",
    "DeviceChange",
    "DeviceRecord",
    "Digest",
    "ErasureRecord",
    "Flag",
    "HoldChange",
    "HoldRecord",
    "HoldScope",
    "Identifier",
    "JobRecord",
    "JobState",
    "Jurisdiction",
    "Matter",
    "Obligation",
    "Outcome",
    "Place",
    "PlaceJurisdiction",
    "PlaceTrait",
    "PolicyOutcome",
    "PolicyProblem",
    "PolicyRecord",
    "PolicyStep",
    "Problem",
    "PruneRecord",
    "Pseudonym",
    "Record",
    "Reference",
    "RefusalsRecord",
    "ReleaseRecord",
    "ReportRecord",
    "ReportStep",
    "RequestRecord",
    "ReviewRecord",
    "ReviewVerdict",
    "RollbackReason",
    "ShadowDifference",
    "Time",
    "WorkVerdict",
    "decode",
    "encode",
]
