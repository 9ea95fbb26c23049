"""Whether an answer may be kept at all: policies say, and what they leave open is not kept."""

from typing import Final

from policies import DataClass, Decision, Facts

NO_CACHE: Final = "no_cache"
MAY_CACHE: Final = "may_cache"

# A limited data set is still protected health information (45 CFR 164.514(e)(1)).
FREE_CLASSES: Final = frozenset({DataClass.DEIDENTIFIED, DataClass.SYNTHETIC})


def cacheable(decision: Decision, facts: Facts) -> bool:
    """Say whether the answer to a request that was decided so may be kept and given again.

    The obligation `no_cache` forbids it. Answers about `phi` and `limited` data are kept only where
    every permitted placement was permitted by a policy that carries `may_cache`: obligations are the
    union over the placements, and one policy must not loosen what another permitted without it.
    """
    if not decision.permitted or NO_CACHE in decision.obligations:
        return False
    if facts.data_class in FREE_CLASSES:
        return True
    return MAY_CACHE in decision.obligations and all(
        any(MAY_CACHE in text.obligations for text in verdict.policies)
        for verdict in decision.verdicts
        if verdict.permitted
    )
