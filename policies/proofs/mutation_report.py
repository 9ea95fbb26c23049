"""How mutants came out, as a page for people."""

from collections.abc import Sequence
from typing import Final

from policies.proofs.mutation import Fate, Trial

CAUGHT_MIN: Final = 0.95

_HEAD: Final = """# Policy mutations

Each mistake of these kinds was made in each policy of the packs, one at a time: the policy deleted, its
effect flipped, its obligation dropped, a part of its scope dropped, a condition, conjunct or disjunct
taken for true or for false, a negation dropped, one member of a set left out. A mistake that Cedar's
validator refuses is no policy and does not count. The packs' cases were run on each of the others, and
where they passed, the packs' invariants were proved.

`bedside policy mutate --all --markdown` writes this page; a test compares it.
"""


def caught_share(trials: Sequence[Trial]) -> float:
    """Return which part of the mutants that are policies was caught."""
    counted = [trial for trial in trials if trial.fate is not Fate.NO_POLICY]
    caught = sum(trial.fate is not Fate.SURVIVED for trial in counted)
    return caught / len(counted) if counted else 1.0


def summary(trials: Sequence[Trial]) -> str:
    """Return the result as one line."""
    counts = {fate: sum(trial.fate is fate for trial in trials) for fate in Fate}
    counted = len(trials) - counts[Fate.NO_POLICY]
    return (
        f"{counted} mutants: {counts[Fate.CASE]} caught by a case, {counts[Fate.PROOF]} by a proof, "
        f"{counts[Fate.SURVIVED]} survived ({caught_share(trials):.1%} caught)"
    )


def as_markdown(trials: Sequence[Trial]) -> str:
    """Return the page: numbers for each policy, then the survivors and why they survived."""
    lines = [_HEAD, f"{summary(trials)}; {_unmade(trials)} more were refused by the validator.", ""]
    lines += ["| policy | mutants | by a case | by a proof | survived |", "|---|---|---|---|---|"]
    for policy in dict.fromkeys(trial.mutant.id for trial in trials):
        own = [trial.fate for trial in trials if trial.mutant.id == policy]
        numbers = [own.count(fate) for fate in (Fate.CASE, Fate.PROOF, Fate.SURVIVED)]
        lines.append(f"| `{policy}` | {' | '.join(map(str, [sum(numbers), *numbers]))} |")
    lines += ["", "## Survivors", ""]
    survivors = [trial for trial in trials if trial.fate is Fate.SURVIVED]
    if survivors:
        lines += ["| policy | mistake | what it changes, over every request |", "|---|---|---|"]
    lines += [
        f"| `{each.mutant.id}` | {_cell(each.mutant.mistake)} | {each.why} |" for each in survivors
    ]
    return "\n".join(lines) + "\n"


def _unmade(trials: Sequence[Trial]) -> int:
    return sum(trial.fate is Fate.NO_POLICY for trial in trials)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
