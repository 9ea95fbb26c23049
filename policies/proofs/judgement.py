"""What policies decide of every class of requests at once, as `policies.engine` would of each."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

from msgspec import Struct

from policies.proofs.axes import Axes
from policies.proofs.diagram import Diagram
from policies.proofs.formula import And, Atom, Const, Formula, If, Not, Or, formula_of
from policies.proofs.tables import ERROR, TRUE
from policies.validation import PolicyText

PERMIT: Final = "permit"

Mask = Diagram


class Rule(Struct, frozen=True):
    """A policy, and when it applies."""

    text: PolicyText
    formula: Formula


class Worth(Struct, frozen=True, eq=False):
    """Where a formula is true, and where it cannot be evaluated (None: nowhere)."""

    true: Mask
    error: Mask | None

    @property
    def holds(self) -> Mask:
        """Where the formula is true, or may be as far as anybody can say."""
        return self.true if self.error is None else self.true | self.error


def rules_of(
    texts: Sequence[PolicyText], policies: Sequence[dict[str, Any]], world: int = 0
) -> tuple[Rule, ...]:
    """Return the rules of policies in Cedar's JSON form."""
    return tuple(
        Rule(text, formula_of(policy, world)) for text, policy in zip(texts, policies, strict=True)
    )


def evaluate(formula: Formula, axes: Axes) -> Worth:
    """Return what `formula` is worth in each class, as Cedar evaluates it.

    What stands right of `&&` or `||` is not evaluated where the left side decides: it cannot err there.
    """
    match formula:
        case Const(value):
            return Worth(axes.book.constant(value), None)
        case Atom():
            errs = axes.where(formula, ERROR)
            return Worth(axes.where(formula, TRUE), errs if errs.any() else None)
        case Not(inner):
            worth = evaluate(inner, axes)
            return Worth(_false(worth), worth.error)
        case And(left, right):
            one, two = evaluate(left, axes), evaluate(right, axes)
            return Worth(one.true & two.true, _either(one.error, _within(one.true, two.error)))
        case Or(left, right):
            one, two = evaluate(left, axes), evaluate(right, axes)
            false = _false(one)
            return Worth(one.true | (false & two.true), _either(one.error, _within(false, two.error)))
        case If(test, then, other):
            when, one, two = (evaluate(each, axes) for each in (test, then, other))
            false = _false(when)
            error = _either(_within(when.true, one.error), _within(false, two.error))
            return Worth((when.true & one.true) | (false & two.true), _either(when.error, error))


class Judgement:
    """What rules decide in each class."""

    def __init__(self, axes: Axes, rules: Sequence[Rule]) -> None:
        """Evaluate the rules."""
        self.axes = axes
        self.rules = tuple(rules)
        self.worths = tuple(evaluate(rule.formula, axes) for rule in rules)

    def without(self, n: int) -> "Judgement":
        """Return what is decided if rule `n` is left out."""
        other = Judgement(self.axes, ())
        other.rules = self.rules[:n] + self.rules[n + 1 :]
        other.worths = self.worths[:n] + self.worths[n + 1 :]
        return other

    @cached_property
    def errs(self) -> Mask:
        """Where a policy cannot be evaluated, which refuses."""
        return self._any([worth.error for worth in self.worths if worth.error is not None])

    @cached_property
    def forbidden(self) -> Mask:
        """Where a forbid applies."""
        return self._any([worth.true for rule, worth in self._pairs() if rule.text.effect != PERMIT])

    @cached_property
    def allowed(self) -> Mask:
        """Where neither an error nor a forbid stands against a permit."""
        return ~(self.errs | self.forbidden)

    @cached_property
    def permitted(self) -> Mask:
        """Where the request is permitted."""
        permits = [worth.true for rule, worth in self._pairs() if rule.text.effect == PERMIT]
        return self._any(permits) & self.allowed

    def obliged(self, obligation: str) -> Mask:
        """Where it is permitted with this obligation."""
        permits = [
            worth.true
            for rule, worth in self._pairs()
            if rule.text.effect == PERMIT and obligation in rule.text.obligations
        ]
        return self._any(permits) & self.allowed

    def determined(self, n: int) -> Mask:
        """Where rule `n` is among those that determine the decision."""
        if self.rules[n].text.effect == PERMIT:
            return self.worths[n].true & self.allowed
        return self.worths[n].true & ~self.errs

    @cached_property
    def obligations(self) -> tuple[str, ...]:
        """Every obligation that some permit carries."""
        return tuple(sorted({name for rule in self.rules for name in rule.text.obligations}))

    def outcome(self, obligations: Sequence[str]) -> tuple[Mask, ...]:
        """Return where a request is permitted, and where with each of these obligations.

        Two judgements on the same axes decide alike if these are equal.
        """
        return self.permitted, *(self.obliged(name) for name in obligations)

    def _pairs(self) -> Iterator[tuple[Rule, Worth]]:
        return zip(self.rules, self.worths, strict=True)

    def _any(self, masks: Sequence[Mask]) -> Mask:
        found = self.axes.book.nothing
        for mask in masks:
            found = found | mask
        return found


def _false(worth: Worth) -> Mask:
    return ~worth.true if worth.error is None else ~(worth.true | worth.error)


def _within(where: Mask, error: Mask | None) -> Mask | None:
    if error is None:
        return None
    found = where & error
    return found if found.any() else None


def _either(one: Mask | None, other: Mask | None) -> Mask | None:
    if one is None:
        return other
    return one if other is None else one | other
