"""A decision as a sentence: what was decided, and which rules say so. It names no person.

Nodes are named; a device is not, since its name may stand for its person.
"""

from policies.decision import Decision, Verdict
from policies.facts import Facts

NO_POLICY = "no policy permits it"


def explain(decision: Decision, facts: Facts) -> str:
    """Return why `decision` came out as it did, for a request with `facts`.

    For example: "Refused: PHI of DE for TREAT may not run on node:us, because personal data of the
    EEA is not transferred to a third country without adequate protection (GDPR Art. 44, Art.
    45(1), Art. 46(2), Art. 47(1))."
    """
    name = facts.data_class.value
    what = f"{name.upper() if name == 'phi' else name} data of {facts.jurisdiction}"
    what += f" for {facts.purpose.value}"
    if not decision.verdicts:
        return f"Refused: {what} may run nowhere, because the site has no place that could run it."
    against = _clauses(decision, permitted=False)
    if not decision.permitted:
        return f"Refused: {what} may not run {'; nor '.join(against)}."
    verb = "Permitted, to be reviewed" if decision.break_glass else "Permitted"
    sentence = f"{verb}: {what} may run {'; or '.join(_clauses(decision, permitted=True))}"
    return f"{sentence}; not {'; nor '.join(against)}." if against else f"{sentence}."


def why(verdict: Verdict) -> str:
    """Return the reason for one candidate's verdict."""
    return "; ".join(f"{text.title} ({text.citation})" for text in verdict.policies) or NO_POLICY


def _clauses(decision: Decision, *, permitted: bool) -> list[str]:
    """Return one clause for each reason, with all the places that it holds for."""
    places: dict[str, list[str]] = {}
    for verdict in decision.verdicts:
        if verdict.permitted is permitted:
            names = places.setdefault(_reason(verdict), [])
            name = _place(verdict.placement)
            if name not in names:
                names.append(name)
    return [f"on {_listed(names)}, because {reason}" for reason, names in places.items()]


def _reason(verdict: Verdict) -> str:
    reasons = [f"{_lowered(text.title)} ({text.citation})" for text in verdict.policies]
    return _listed(reasons) or NO_POLICY


def _place(placement: str) -> str:
    return "the device that holds it" if placement.startswith("device:") else placement


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _lowered(title: str) -> str:
    """Return `title` as the middle of a sentence: abbreviations keep their capitals."""
    first, _, rest = title.partition(" ")
    return title if first.isupper() and len(first) > 1 else f"{first.lower()} {rest}".strip()
