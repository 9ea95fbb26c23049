"""What a draft must pass before it is published: checks, its packs' cases, proofs of its invariants.

They are run on what the draft's approvers signed, which carries its packs along.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct, structs

from audit.records import PolicyProblem
from policies import Bundle, BundleInvalid, CasesInvalid, PolicyError, check_packs, run_cases, unpack
from policies.cache import LruCache
from policies.proofs import prove

SHOWN_MAX: Final = 20
REMEMBERED: Final = 8


class Examination(Struct, frozen=True, kw_only=True):
    """What was found; `problem` is the first gate that the draft did not pass, `objections` why not."""

    problem: PolicyProblem | None
    objections: tuple[str, ...]
    cases: int
    proved: int


_examined: Final[LruCache[str, Examination]] = LruCache(REMEMBERED)


def examine(bundle: Bundle) -> Examination:
    """Check, test and prove `bundle`; takes seconds, and a core.

    What comes out depends on the content alone, so a few are remembered: a draft that is looked at
    before it is published is not examined twice.
    """
    content = structs.replace(bundle, version=1, created=None, rollback=None)
    key = content.digest()
    found = _examined.get(key)
    if found is None:
        found = check(content)
        if found.problem is None:
            found = run_tests(content)
        if found.problem is None:
            found = structs.replace(run_proofs(content), cases=found.cases)
        _examined.put(key, found)
    return found


def check(bundle: Bundle) -> Examination:
    """Return what can be said against `bundle` before it decides anything."""
    try:
        with _unpacked(bundle) as root:
            findings = [str(finding) for finding in check_packs(bundle.packs, root=root)]
    except BundleInvalid as error:
        findings = [str(error)]
    return _found(PolicyProblem.CHECKS_FAILED, findings)


def run_tests(bundle: Bundle) -> Examination:
    """Run the cases that `bundle` brings; one that no case exercises is an objection too."""
    try:
        with _unpacked(bundle) as root:
            run = run_cases(bundle.packs, root=root)
    except (CasesInvalid, BundleInvalid) as error:
        return _found(PolicyProblem.TESTS_FAILED, [str(error)])
    wrong = [
        f"{result.pack}: {result.name}: {problem}"
        for result in run.results
        for problem in result.problems
    ]
    wrong += [f"{text.path}:{text.line}: no case exercises {text.id}" for text in run.untested]
    if not run.results:
        wrong.append("the draft brings no cases")
    return structs.replace(_found(PolicyProblem.TESTS_FAILED, wrong), cases=len(run.results))


def run_proofs(bundle: Bundle) -> Examination:
    """Prove the invariants that `bundle` declares."""
    try:
        proofs = list(prove(bundle))
    except PolicyError as error:
        return _found(PolicyProblem.PROOFS_FAILED, [str(error)])
    broken = [
        f"{proof.invariant.path}:{proof.invariant.line}: {proof.invariant.id} does not hold: "
        f"{proof.invariant.title}"
        for proof in proofs
        if not proof.holds
    ]
    return structs.replace(_found(PolicyProblem.PROOFS_FAILED, broken), proved=len(proofs))


@contextmanager
def _unpacked(bundle: Bundle) -> Iterator[Path]:
    with TemporaryDirectory(prefix="bedside-draft-") as folder:
        unpack(bundle, Path(folder))
        yield Path(folder)


def _found(problem: PolicyProblem, objections: list[str]) -> Examination:
    shown = objections[:SHOWN_MAX]
    if len(objections) > SHOWN_MAX:
        shown.append(f"and {len(objections) - SHOWN_MAX} more")
    return Examination(
        problem=problem if objections else None, objections=tuple(shown), cases=0, proved=0
    )
