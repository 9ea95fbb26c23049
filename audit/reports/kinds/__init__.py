"""The kinds of report, each a module of its own."""

from typing import Final

from audit.reports.kind import Kind
from audit.reports.kinds.access import ACCESS
from audit.reports.kinds.activity import ACTIVITY
from audit.reports.kinds.break_glass import BREAK_GLASS
from audit.reports.kinds.disclosures import DISCLOSURES
from audit.reports.kinds.integrity import INTEGRITY
from audit.reports.kinds.jobs import JOBS
from audit.reports.kinds.models import MODELS
from audit.reports.kinds.policies import POLICIES
from audit.reports.kinds.refusals import REFUSALS
from audit.reports.kinds.residency import RESIDENCY
from audit.reports.kinds.subject import SUBJECT

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        ACCESS,
        SUBJECT,
        DISCLOSURES,
        ACTIVITY,
        REFUSALS,
        BREAK_GLASS,
        RESIDENCY,
        MODELS,
        POLICIES,
        JOBS,
        INTEGRITY,
    )
}

__all__ = ["KINDS"]
