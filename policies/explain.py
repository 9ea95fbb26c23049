"""A decision as a sentence: what was decided, and which rules say so. It names no person."""

from policies.engine import Decision, Verdict
from policies.facts import Facts


def explain(decision: Decision, facts: Facts) -> str:
    """Return why `decision` came out as it did, for a request with `facts`."""
    name = facts.data_class.value
    data = name.upper() if name == "phi" else name.capitalize()
    what = f"{data} data of {facts.jurisdiction} for {facts.purpose.value}"
    if not decision.verdicts:
        return f"{what} may run nowhere: the site has no place that could."
    against = _reasons(decision, permitted=False)
    if not decision.permitted:
        return f"{what} may run nowhere here: {against}."
    sentence = f"{what} may run on {' or '.join(decision.permitted)}: "
    sentence += _reasons(decision, permitted=True)
    if len(decision.permitted) < len(decision.verdicts):
        sentence += f"; not elsewhere: {against}"
    return f"{sentence}."


def _reasons(decision: Decision, *, permitted: bool) -> str:
    reasons = {
        text.id: f"{_lowered(text.title)} ({text.citation})"
        for verdict in decision.verdicts
        if verdict.permitted is permitted
        for text in verdict.policies
    }
    return "; ".join(reasons[name] for name in sorted(reasons)) or "no policy permits it"


def _lowered(title: str) -> str:
    first, _, rest = title.partition(" ")
    return title if first.isupper() and len(first) > 1 else f"{first.lower()} {rest}".strip()


def why(verdict: Verdict) -> str:
    """Return the reason for one candidate's verdict."""
    if not verdict.policies:
        return "no policy permits it"
    return "; ".join(f"{text.title} ({text.citation})" for text in verdict.policies)
