"""Proofs about policies: what holds of every request that there can be.

`docs/explanation/policy-proofs.md` says what they rest on.
"""

from policies.proofs.diff import Change, Outcome, changed_data, differences
from policies.proofs.formula import Unprovable
from policies.proofs.prove import Counterexample, Proof, combinations, prove
from policies.proofs.regions import describe
from policies.proofs.requests import ProofBroken, Request
from policies.proofs.whatif import Explanation, FactChange, Matter, explain_request

__all__ = [
    "Change",
    "Counterexample",
    "Explanation",
    "FactChange",
    "Matter",
    "Outcome",
    "Proof",
    "ProofBroken",
    "Request",
    "Unprovable",
    "changed_data",
    "combinations",
    "describe",
    "differences",
    "explain_request",
    "prove",
]
